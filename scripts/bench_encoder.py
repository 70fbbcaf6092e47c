"""Time one encoder pass over a 30 s window under each policy, in ONNX Runtime and in OpenVINO (both float32).

    python scripts/bench_encoder.py --model base --policy torch --policy cpu --json encoder.json

The peers (`pip install 'tilewhisper[peers]'`) run the same weights, converted here, with the same number of threads.
Peers that are not installed are listed and left out. First, the final states are compared with transformers' float32
states: a contender whose error exceeds the bound is reported as wrong and not timed. Then all alternate in one process,
each after a pause in which the other thread pools stop spinning. Ratios are against the faster peer.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from encoder_peers import Encode, open_peers
from rich.table import Table

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.report import machine
from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import WINDOW_SAMPLES

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "sample.flac"
PAUSE = 0.2  # seconds


@dataclass(frozen=True)
class Row:
    """The result of one contender. A wrong contender has no times."""

    name: str
    right: bool
    error: float
    """Relative error of the final states against transformers' float32, in the Frobenius norm."""
    seconds: tuple[float, ...] = ()
    """Seconds of each round."""
    median: float | None = None
    ratio: float | None = None
    """Median of the faster peer / own median: above 1 is faster than the peer. None where no peer ran."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return run(args)
    except (*USER_ERRORS, OSError) as e:
        print(f"bench_encoder: error: {e}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    if args.threads < 0:
        raise OptionError(f"--threads must be >= 0, got {args.threads}")
    if args.rounds < 1:
        raise OptionError(f"--rounds must be >= 1, got {args.rounds}")
    if args.threads:
        torch.set_num_threads(args.threads)
    oracle = TransformersWhisper(args.model)
    mel = oracle.log_mel(reader.decode_audio(args.audio)[:WINDOW_SAMPLES])
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        passes: dict[str, Encode] = {"transformers": lambda: oracle.states(mel)}
        for policy in dict.fromkeys(args.policy or ["torch", "cpu"]):
            model = stack.enter_context(WhisperModel(args.model, policy=policy, cpu_threads=args.threads))
            passes[f"tilewhisper, policy {policy} on {', '.join(model.backend_labels)}"] = partial(model.encode, mel)
        peers = dict(open_peers(oracle.model.model.encoder, mel, left_out))
        rows = measure(passes | peers, tuple(peers), args.rounds, args.bound)
    _show(rows, left_out, args)
    if args.json:
        result = {"machine": asdict(machine()), "model": args.model, "audio": str(args.audio), "bound": args.bound}
        result |= {"rounds": args.rounds, "left_out": left_out, "rows": [asdict(row) for row in rows]}
        write_whole(args.json, json.dumps(result, indent=1) + "\n")
    return 0


def measure(passes: Mapping[str, Encode], peers: Sequence[str], rounds: int, bound: float) -> list[Row]:
    """Compare the states of every pass with the first pass's, then time the correct passes in alternation."""
    expected = next(iter(passes.values()))().double()
    errors = {name: float((encode() - expected).norm() / expected.norm()) for name, encode in passes.items()}
    correct = {name: passes[name] for name, error in errors.items() if error <= bound}  # not a NaN
    seconds = _time_alternating(correct, rounds)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    best_peer = min((medians[name] for name in peers if name in medians), default=None)
    return [
        Row(name, True, error, tuple(seconds[name]), medians[name], best_peer and best_peer / medians[name])
        if name in correct
        else Row(name, False, error)
        for name, error in errors.items()
    ]


def _time_alternating(passes: Mapping[str, Encode], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, encode in passes.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            encode()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _show(rows: Sequence[Row], left_out: Mapping[str, str], args: argparse.Namespace) -> None:
    about = machine()
    screen = console()
    screen.print(_table(rows, args.bound))
    say(
        screen,
        f"model {args.model}, a 30 s window of {args.audio.name}; {args.rounds} alternating rounds after a warm-up; "
        f"ratio against the faster peer; {about.threads} threads of {about.cpu}; torch {about.packages['torch']}, "
        f"transformers {about.packages['transformers']}",
    )
    for name, reason in left_out.items():
        say(screen, f"left out: {name}: {reason}")


def _table(rows: Sequence[Row], bound: float) -> Table:
    table = Table("", box=None, pad_edge=False)
    for heading in ("error", "ms median", "min", "max", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.error:.1e}", *(_cells(row) if row.right else (f"wrong: error above {bound:g}",)))
    return table


def _cells(row: Row) -> Iterator[str]:
    for seconds in (statistics.median(row.seconds), min(row.seconds), max(row.seconds)):
        yield f"{seconds * 1e3:.1f}"
    yield "-" if row.ratio is None else f"{row.ratio:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base", help="model to encode with (default: base)")
    parser.add_argument("--policy", action="append", help="policy to time; repeatable (default: torch and cpu)")
    parser.add_argument(
        "--audio", type=Path, default=SAMPLE, help="its first 30 s are encoded (default: tests/data/sample.flac)"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 is torch's default (default: 0)")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds (default: 9)")
    parser.add_argument("--bound", type=float, default=5e-3, help="largest accepted relative error (default: 5e-3)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
