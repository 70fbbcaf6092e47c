"""Check that `tilewhisper serve` survives faults: each gets a clear answer or a clean close, and nothing is left.

    python scripts/check_faults.py ../shared/data/jfk.flac --model base --policy int8

After each fault, the server must be ready, transcribe the file with the text that it gave at first, have no file in its
temporary folder, open or named, and not have grown by more than 5 %. The NPU is emulated, on the model of --npu_model.
`--only WORD` runs the faults whose names contain the word.

Exit status: 0 when all is well, 1 when not, 2 after an error. Needs tilewhisper[serve] and httpx.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from faults import http_faults, live_faults, server_faults
from faults.clients import transcribe, wait_until_idle
from faults.process import ServerProcess, UnexpectedError, server
from rich.table import Table
from websockets.exceptions import WebSocketException

from tilewhisper.engine.commands.screen import console

Fault = Callable[[ServerProcess, Path], str]
FLAT = 1.05
WARM_UP = 5
"""Requests before memory is measured."""


@dataclass(frozen=True)
class State:
    """A warm server's state before the fault. ONNX Runtime leaves a file when it is imported."""

    files: set[str]
    resident_bytes: int


def main() -> int:
    args = parse()
    failures = 0
    table = Table("fault", "result", "", box=None, pad_edge=False)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for name, check in checks(args, Path(folder)):
            if args.only and args.only not in name:
                continue
            try:
                table.add_row(name, "ok", check())
            except (UnexpectedError, httpx.HTTPError, WebSocketException, OSError) as error:
                failures += 1
                table.add_row(name, "FAILED", f"{type(error).__name__}: {error}")
            console(stderr=True).print(f"{name}: {[*table.columns[1].cells][-1]}")
    console().print(table)
    return 1 if failures else 0


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("speech", type=Path, metavar="FILE", help="a recording of some seconds of speech")
    p.add_argument("--model", default="base", help="(default: %(default)s)")
    p.add_argument("--npu_model", default="tiny.en", help="model of the emulated NPU (default: %(default)s)")
    p.add_argument("--policy", default="int8", help="(default: %(default)s)")
    p.add_argument("--live_hours", type=float, default=6, help="of audio (default: %(default)s)")
    p.add_argument("--live_speed", type=float, default=50, help="times real time, at most (default: %(default)s)")
    p.add_argument("--only", metavar="WORD", help="run the faults whose names contain this word")
    return p.parse_args()


def checks(args: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """The checks by name."""
    for name, fault in http_faults.FAULTS.items():
        yield name, partial(on_own_server, fault, args, folder)
    live = partial(live_faults.live_audio, hours=args.live_hours, speed=args.live_speed)
    yield "hours of live audio", partial(on_own_server, live, args, folder, warm_up=live_faults.warm_up)
    yield "NPU hang, no fallback", partial(server_faults.hang_without_fallback, folder, args.npu_model, args.speech)
    yield "NPU hang, fallback", partial(server_faults.hang_with_fallback, folder, args.npu_model, args.speech)
    load = partial(server_faults.shutdown_under_load, folder, args.model, args.policy, args.speech)
    yield "shutdown under load", load


def on_own_server(fault: Fault, args: argparse.Namespace, folder: Path, warm_up: Fault | None = None) -> str:
    """Let a fault happen to a warm server, and check what is left of it."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    with server(temporary, ["--model", args.model, "--policy", args.policy]) as running:
        expected = [transcribe(running, args.speech).text for _ in range(WARM_UP)][-1]
        if warm_up:
            warm_up(running, args.speech)
        before = State({*running.left_files()}, running.resident_bytes())
        result = fault(running, args.speech)
        check_whole(running, args.speech, expected, before)
    return result


def check_whole(running: ServerProcess, speech: Path, expected: str, before: State) -> None:
    """Raises UnexpectedError."""
    if (status := running.health()) != "ready":
        raise UnexpectedError(f"the server is {status} afterwards")
    answer = transcribe(running, speech)
    if (answer.status, answer.text) != (200, expected):
        raise UnexpectedError(f"the next answer is {answer.status}: {answer.text}")
    wait_until_idle(running)
    if left := {*running.left_files()} - before.files:
        raise UnexpectedError(f"files are left: {', '.join(left)}")
    if (grown := running.resident_bytes() / before.resident_bytes) > FLAT:
        raise UnexpectedError(f"resident memory has grown by {grown - 1:.0%}")


if __name__ == "__main__":
    sys.exit(main())
