"""One encoder pass over a 30 s window under each policy, beside ONNX Runtime and OpenVINO in float32.

    python scripts/bench_encoder.py --model base --policy torch --policy cpu --json encoder.json

The peers (`pip install 'tilewhisper[peers]'`) run the same weights, converted here, with the same number of threads;
one that is not installed is named and left out. Final states are held against transformers' float32 first: one beyond
the bound is called wrong and never timed. Then all take turns in one process, each after a pause in which the others'
threads stop spinning; the ratio is against the faster peer.
"""

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.engine.report import machine
from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import WINDOW_SAMPLES

SAMPLE = Path(__file__).parents[1] / "tests" / "data" / "sample.flac"
PAUSE = 0.2  # seconds

Encode = Callable[[], Tensor]
"""One pass over the window: the final states (1, 1500, d_model)."""


@dataclass(frozen=True)
class Row:
    """One contender. There are seconds, and what follows from them, unless it is wrong."""

    name: str
    right: bool
    error: float
    """Of the final states, relative to transformers' float32 in the Frobenius norm."""
    seconds: tuple[float, ...] = ()
    """Of each round."""
    median: float | None = None
    ratio: float | None = None
    """The faster peer's median over this one's: above 1 is faster than it; None where no peer ran."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return run(args)
    except (*USER_ERRORS, OSError) as e:
        print(f"bench_encoder: error: {e}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    if args.threads < 0 or args.rounds < 1:
        raise OptionError("--threads must not be negative, and --rounds at least 1")
    if args.threads:
        torch.set_num_threads(args.threads)
    theirs = TransformersWhisper(args.model)
    mel = theirs.log_mel(reader.decode_audio(args.audio)[:WINDOW_SAMPLES])
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        passes: dict[str, Encode] = {"transformers": lambda: theirs.states(mel)}
        for policy in dict.fromkeys(args.policy or ["torch", "cpu"]):
            model = stack.enter_context(WhisperModel(args.model, policy=policy, cpu_threads=args.threads))
            passes[f"tilewhisper, policy {policy} on {', '.join(model.backend_labels)}"] = _ours(model, mel)
        peers = dict(_peers(theirs, mel, left_out))
        rows = measure(passes | peers, tuple(peers), args.rounds, args.bound)
    about = machine()
    screen = console()
    screen.print(_table(rows, args.bound))
    say(
        screen,
        f"model {args.model}, a 30 s window of {args.audio.name}; {args.rounds} rounds in turn after a warm-up; ratio "
        f"against the faster peer; {about.threads} threads of {about.cpu}; torch {about.packages['torch']}, "
        f"transformers {about.packages['transformers']}",
    )
    for name, why in left_out.items():
        say(screen, f"left out: {name}: {why}")
    if args.json:
        whole = {"machine": asdict(about), "model": args.model, "audio": str(args.audio), "bound": args.bound}
        whole |= {"rounds": args.rounds, "left_out": left_out, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


def measure(passes: Mapping[str, Encode], peers: Sequence[str], rounds: int, bound: float) -> list[Row]:
    """Check every pass against the first, then time those that are right, in turn."""
    expected = next(iter(passes.values()))().double()
    errors = {name: float((encode() - expected).norm() / expected.norm()) for name, encode in passes.items()}
    right = {name: passes[name] for name, error in errors.items() if error <= bound}  # a NaN is not
    seconds = _in_turn(right, rounds)
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    best = min((medians[name] for name in peers if name in medians), default=None)
    return [
        Row(name, True, error, tuple(seconds[name]), medians[name], best and best / medians[name])
        if name in right
        else Row(name, False, error)
        for name, error in errors.items()
    ]


def _in_turn(passes: Mapping[str, Encode], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(rounds):
        for name, encode in passes.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            encode()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _ours(model: WhisperModel, mel: Tensor) -> Encode:
    return lambda: model.encode(mel)


def _peers(theirs: TransformersWhisper, mel: Tensor, left_out: dict[str, str]) -> Iterator[tuple[str, Encode]]:
    """The peers that are installed, with their versions; the others' names and what they lack go to `left_out`."""
    encoder = _States(theirs.model.model.encoder)
    for name, open_peer in (("ONNX Runtime", _onnx_runtime), ("OpenVINO", _openvino)):
        try:
            with _quiet():
                peer_version, encode = open_peer(encoder, mel)
        except ModuleNotFoundError as e:
            left_out[name] = f"it needs {e.name}: pip install 'tilewhisper[peers]'"
        else:
            yield f"{name} {peer_version} float32", encode


class _States(torch.nn.Module):
    """The encoder as converters want it: a tensor in, a tensor out."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: Tensor) -> Tensor:
        states: Tensor = self.encoder(mel).last_hidden_state
        return states


def _onnx_runtime(encoder: _States, mel: Tensor) -> tuple[str, Encode]:
    import onnxruntime
    import onnxscript  # noqa: F401 (what the export needs, named here where it is absent)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "encoder.onnx")
        torch.onnx.export(encoder, (mel,), file, input_names=["mel"], dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {"mel": mel.numpy()}
    return version("onnxruntime"), lambda: torch.from_numpy(session.run(None, feed)[0])


def _openvino(encoder: _States, mel: Tensor) -> tuple[str, Encode]:
    import openvino

    setting = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # by itself it takes bfloat16 where the processor has it
    }
    compiled = openvino.compile_model(openvino.convert_model(encoder, example_input=mel), "CPU", setting)
    request, window = compiled.create_infer_request(), mel.numpy()
    return version("openvino"), lambda: torch.from_numpy(request.infer([window])[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Converters warn about what they cannot know of any model; errors still come through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _table(rows: Sequence[Row], bound: float) -> Table:
    table = Table("", box=None, pad_edge=False)
    for heading in ("error", "ms median", "min", "max", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.error:.1e}", *(_cells(row) if row.right else (f"wrong: beyond {bound:g}",)))
    return table


def _cells(row: Row) -> Iterator[str]:
    for seconds in (statistics.median(row.seconds), min(row.seconds), max(row.seconds)):
        yield f"{seconds * 1e3:.1f}"
    yield "-" if row.ratio is None else f"{row.ratio:.2f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base", help="(default: base)")
    parser.add_argument("--policy", action="append", help="repeatable (default: torch and cpu)")
    parser.add_argument("--audio", type=Path, default=SAMPLE, help="(default: tests/data/sample.flac)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: as many as torch takes)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: 9)")
    parser.add_argument("--bound", type=float, default=5e-3, help="of the relative error (default: 5e-3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
