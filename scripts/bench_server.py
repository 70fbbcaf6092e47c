"""Load `tilewhisper serve` with many clients at once, beside one client, a long file, and a faster-whisper server.

    python scripts/bench_server.py ../shared/data/librispeech --model base --policy int8 --json server.json

Requests are the folder's clips, sent over the loopback address with the clips' language; both servers decode with
--beam_size. Every text is compared with the one that `WhisperModel.transcribe` gives for the same file. In turn,
--rounds times: one client, then --clients clients. Then --short clips by --short_clients clients, alone and while a
10-minute file is transcribed. Then the same load on a minimal server around faster-whisper, on the same weights.
Memory is flat if the largest resident size in the last quarter of all --clients' requests is at most 2 % above that in
the quarter before.

Exit status: 0 when every answer came with the right text, 1 when not, 2 after an error. Needs
tilewhisper[serve,bench,peers].
"""

import argparse
import json
import sys
import tempfile
import wave
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from clips import join, read_clips
from peers.base import PeerError
from peers.weights import WORK, Workshop
from rich.table import Table
from server_load import servers
from server_load.clients import Answer, Load, send, send_beside
from server_load.servers import RunningServer, ServerError, running

from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import SAMPLE_RATE

LONG_SECONDS = 600.0
FLAT = 1.02
TARGETS = {"together": 2.2, "peer": 6.0, "fairness": 2.0}


@dataclass(frozen=True)
class Phase:
    """The figures of one part of the run."""

    name: str
    clients: int
    requests: int
    seconds: float
    requests_per_second: float
    p50: float
    p95: float
    failed: int
    wrong: int

    @classmethod
    def of(cls, name: str, clients: int, load: Load, texts: Mapping[Path, str] | None) -> "Phase":
        """`texts` are the right ones; None where any text will do, as of another engine."""
        failed = sum(answer.text is None for answer in load.answers)
        wrong = sum(answer.text not in (None, texts[answer.file]) for answer in load.answers) if texts else 0
        rate = load.requests_per_second
        requests, p50, p95 = len(load.answers), load.latency(50), load.latency(95)
        return cls(name, clients, requests, load.seconds, rate, p50, p95, failed, wrong)


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        files = [clip.file for clip in read_clips(args.folder)]
        with tempfile.TemporaryDirectory() as folder:
            long_file = _long_file(files, Path(folder, "long.wav"))
            texts = _right_texts([*files, long_file], args)
            phases, together, errors = _load_ours(files, long_file, texts, args)
        if args.peer != "none":
            phases.append(_load_peer(files, args))
    except (*USER_ERRORS, PeerError, ServerError, OSError, ValueError) as e:
        print(f"bench_server: error: {e}", file=sys.stderr)
        return 2
    result = _result(phases, together, errors, args)
    _show(phases, result)
    if args.json:
        write_whole(args.json, json.dumps(result, indent=1) + "\n")
    return int(any(phase.failed or phase.wrong for phase in phases))


def _load_ours(
    files: Sequence[Path], long_file: Path, texts: Mapping[Path, str], args: argparse.Namespace
) -> tuple[list[Phase], list[Answer], set[str]]:
    """The figures, the answers of many clients at once, and the errors of all."""
    phases: list[Phase] = []
    answers: list[Answer] = []
    errors: set[str] = set()

    def record(name: str, clients: int, load: Load) -> None:
        phases.append(Phase.of(name, clients, load, texts))
        answers.extend(load.answers if name == "together" else ())
        errors.update(answer.error for answer in load.answers if answer.error)
        _tell(phases[-1])

    with running("tilewhisper", servers.ours(args.model, args.policy, args.threads, args.beam_size)) as server:
        _send(server, files[:2], 1, args)
        for _ in range(args.rounds):
            record("one at a time", 1, _send(server, files, 1, args))
            record("together", args.clients, _send(server, _many(files, args.requests), args.clients, args))
        short = _many(files, args.short)
        for _ in range(args.rounds):
            record("short alone", args.short_clients, _send(server, short, args.short_clients, args))
            load, long = send_beside(server, short, args.short_clients, long_file, args.model, args.language)
            record("short beside a long file", args.short_clients, load)
            record("the long file", 1, Load([long], long.seconds))
    return phases, answers, errors


def _load_peer(files: Sequence[Path], args: argparse.Namespace) -> Phase:
    """The peer answers the same requests, --peer_requests of them: it takes several times as long."""
    weights = Workshop(args.work).weights(args.model, "CTranslate2 float16")
    with running("faster-whisper", servers.faster_whisper(weights, args.threads, args.beam_size)) as server:
        _send(server, files[:2], 1, args)
        load = _send(server, _many(files, args.peer_requests), args.clients, args)
    phase = Phase.of("faster-whisper", args.clients, load, None)
    _tell(phase)
    return phase


def _send(server: RunningServer, files: Sequence[Path], clients: int, args: argparse.Namespace) -> Load:
    return send(server, files, clients, args.model, args.language)


def _many(files: Sequence[Path], requests: int) -> list[Path]:
    return [*islice(cycle(files), requests)]


def _right_texts(files: Iterable[Path], args: argparse.Namespace) -> dict[Path, str]:
    """The text that the Python API gives for each file."""
    from tilewhisper import WhisperModel  # imports torch

    with WhisperModel(args.model, policy=args.policy, cpu_threads=args.threads) as model:
        return {
            file: "".join(
                segment.text for segment in model.transcribe(file, language=args.language, beam_size=args.beam_size)[0]
            ).strip()
            for file in files
        }


def _long_file(files: Sequence[Path], path: Path) -> Path:
    decoded = [reader.decode_audio(file) for file in files]
    times = int(LONG_SECONDS * SAMPLE_RATE / sum(map(len, decoded))) + 1
    samples, _ = join(decoded * times, LONG_SECONDS)
    with wave.open(str(path), "wb") as wav:
        wav.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        wav.writeframes((samples * 32767).round().astype(np.int16).tobytes())
    return path


def _result(
    phases: Sequence[Phase], together: Sequence[Answer], errors: set[str], args: argparse.Namespace
) -> dict[str, Any]:
    from tilewhisper.engine.report import machine  # imports torch

    rate = {name: median(p.requests_per_second for p in phases if p.name == name) for name in {p.name for p in phases}}
    p95 = {name: median(p.p95 for p in phases if p.name == name) for name in rate}
    half, last = len(together) // 2, len(together) * 3 // 4
    third, fourth = (max(answer.resident_bytes for answer in part) for part in (together[half:last], together[last:]))
    return {
        "model": args.model,
        "policy": args.policy,
        "beam_size": args.beam_size,
        "ratios": {
            "together": rate["together"] / rate["one at a time"],
            "peer": rate["together"] / rate["faster-whisper"] if "faster-whisper" in rate else None,
            "fairness": p95["short beside a long file"] / p95["short alone"],
        },
        "memory": {"third_quarter": third, "last_quarter": fourth, "flat": fourth <= FLAT * third},
        "phases": [asdict(phase) for phase in phases],
        "errors": sorted(errors),
        "machine": asdict(replace(machine(), threads=args.threads)),
    }


def _tell(phase: Phase) -> None:
    say(console(stderr=True), f"{phase.name}: {phase.requests} requests in {phase.seconds:.1f} s")


def _show(phases: Sequence[Phase], result: Mapping[str, Any]) -> None:
    table = Table(f"{result['model']}, {result['policy']}, beam size {result['beam_size']}", box=None, pad_edge=False)
    for heading in ("clients", "requests", "requests/s", "p50 s", "p95 s", "failed", "wrong text"):
        table.add_column(heading, justify="right")
    for phase in phases:
        figures = (f"{phase.requests_per_second:.2f}", f"{phase.p50:.3f}", f"{phase.p95:.3f}")
        table.add_row(
            phase.name, str(phase.clients), str(phase.requests), *figures, str(phase.failed), str(phase.wrong)
        )
    screen = console()
    screen.print(table)
    ratios, memory, machine = result["ratios"], result["memory"], result["machine"]
    say(screen, f"throughput together / one at a time: {ratios['together']:.2f} (target: {TARGETS['together']})")
    if ratios["peer"] is not None:
        say(screen, f"throughput / faster-whisper's: {ratios['peer']:.2f} (target: {TARGETS['peer']})")
    say(screen, f"p95 beside a long file / alone: {ratios['fairness']:.2f} (target: at most {TARGETS['fairness']})")
    third, fourth = (memory[part] / 2**20 for part in ("third_quarter", "last_quarter"))
    say(screen, f"largest resident memory: {third:.0f} MiB in the third quarter, {fourth:.0f} MiB in the last")
    for error in result["errors"]:
        say(screen, error)
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    say(screen, f"medians of the rounds; {machine['threads']} threads of {machine['cpu']}; {packages}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clips and their transcripts.tsv")
    parser.add_argument("--model", default="base", help="model (default: base)")
    parser.add_argument("--policy", default="int8", help="policy of our server (default: int8)")
    parser.add_argument("--language", default="en", help="language of the clips (default: en)")
    parser.add_argument("--clients", type=int, default=32, help="clients at once (default: 32)")
    parser.add_argument("--requests", type=int, default=300, help="requests of all clients together (default: 300)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each load is repeated (default: 3)")
    parser.add_argument("--short", type=int, default=50, help="short clips beside the long file (default: 50)")
    parser.add_argument("--short_clients", type=int, default=4, help="clients that send them (default: 4)")
    parser.add_argument("--peer", choices=("faster-whisper", "none"), default="faster-whisper", help="other server")
    parser.add_argument("--peer_requests", type=int, default=100, help="requests to the other server (default: 100)")
    parser.add_argument("--beam_size", type=int, default=1, help="hypotheses of both servers (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--work", type=Path, default=WORK, help="cache of the other server's weights")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
