"""Compare the peak memory, the size on disk and the time to load with faster-whisper's int8, on the same weights.

    python scripts/footprint.py ../shared/data/jfk.flac --model base --random small --json footprint.json

Each engine transcribes the file with 5 beams in fresh processes: ours from the checkpoint as it is, at its first start,
which packs the weights into an empty cache, and then `--runs` times from that cache; faster-whisper from a folder that
was converted to int8 beforehand. Weights of `--random` have the shapes of an official size and random values, so that
their text is no text. Exit status: 0, 1 where our memory exceeds the target, 2 after an error.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import random_model
from peers.base import PeerError
from peers.catalog import OURS, PEERS, versions
from peers.weights import WORK
from rich.table import Table

from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.models.checkpoint import export, loader
from tilewhisper.models.checkpoint.catalog import SIZES

MB = 10**6
MORE_MB = 100
"""Of memory that ours may take more than the peer."""
FIRST_MORE_MB = 500
"""Of memory that the first start may take more than the packed weights."""
_RUN = Path(__file__).with_name("footprint_run.py")
_PEER = "faster-whisper"


@dataclass(frozen=True)
class Footprint:
    """One engine's figures on one model: medians of its runs."""

    model: str
    engine: str
    parameters: int
    disk_bytes: int
    first_peak_bytes: int | None
    """Of the start that packs the weights; None for the peer, whose weights are converted beforehand."""
    peak_bytes: int
    load_seconds: float
    seconds: float
    """From the start of Python to the end of the text."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    screen = console()
    found: list[Footprint] = []
    try:
        for name in args.model or ([] if args.random else ["tiny.en"]):
            found += compare(name, name, args)
        for size in args.random or []:
            found += compare(size, str(_random_weights(size, args.work)), args)
    except (*USER_ERRORS, PeerError, OSError, ValueError) as e:
        print(f"footprint: error: {e}", file=sys.stderr)
        return 2
    screen.print(_table(found))
    packages = versions(OURS) | versions(PEERS[_PEER])
    say(screen, f"{args.runs} runs, {args.threads} threads, 5 beams; {packages}")
    if args.json:
        write_whole(args.json, json.dumps({"versions": packages, "footprints": [*map(asdict, found)]}, indent=1) + "\n")
    return int(any(ours.peak_bytes > theirs.peak_bytes + MORE_MB * MB for ours, theirs in _pairs(found)))


def compare(name: str, model: str, args: argparse.Namespace) -> list[Footprint]:
    """Ours, one for each policy, and the peer's last. Raises ValueError with the last line of a failed process."""
    checkpoint = loader.load(model)
    parameters = sum(weight.numel() for weight in checkpoint.model.parameters())
    converted = args.work / "footprint" / f"{Path(model).name}-int8"
    if not converted.exists():
        export.write(checkpoint, "ctranslate2", converted, "int8")
    found = []
    for policy in args.policy or ["int8"]:
        with _empty_home() as home:
            first = _run(policy, model, args, home)
            later = [_run(policy, model, args, home) for _ in range(args.runs)]
            cache = Path(home, ".cache", "tilewhisper", "models")
            found.append(_footprint(name, policy, parameters, _size(cache), first["peak_bytes"], later))
    theirs = [_run(_PEER, str(converted), args, os.environ["HOME"]) for _ in range(args.runs)]
    return [*found, _footprint(name, _PEER, parameters, _size(converted), None, theirs)]


def _footprint(
    model: str, engine: str, parameters: int, disk_bytes: int, first: int | None, runs: Sequence[dict[str, Any]]
) -> Footprint:
    load_seconds, seconds = (statistics.median(run[key] for run in runs) for key in ("load_seconds", "seconds"))
    peak_bytes = max(run["peak_bytes"] for run in runs)
    return Footprint(model, engine, parameters, disk_bytes, first, peak_bytes, load_seconds, seconds)


def _run(engine: str, model: str, args: argparse.Namespace, home: str) -> dict[str, Any]:
    command = [sys.executable, str(_RUN), engine, model, str(args.file), str(args.threads)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, "HOME": home}, check=False
    )
    if done.returncode:
        lines = done.stderr.splitlines() or ["no message"]
        raise ValueError(f"{engine} on {model}: exit status {done.returncode}: {lines[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


@contextmanager
def _empty_home() -> Iterator[str]:
    """A home whose cache has only the compiled kernels, so that the first start does not compile."""
    with tempfile.TemporaryDirectory() as home:
        native = Path("~/.cache/tilewhisper/native").expanduser()
        cache = Path(home, ".cache", "tilewhisper")
        cache.mkdir(parents=True)
        if native.exists():
            (cache / "native").symlink_to(native)
        hub = Path("~/.cache/huggingface").expanduser()
        if hub.exists():
            (cache.parent / "huggingface").symlink_to(hub)
        yield home


def _random_weights(size: str, work: Path) -> Path:
    folder = work / "footprint" / f"random-{size}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_made(folder.parent)) as unfinished:
            random_model.write(size, Path(unfinished, "made"))
            Path(unfinished, "made").rename(folder)
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _pairs(found: Sequence[Footprint]) -> Iterator[tuple[Footprint, Footprint]]:
    """Each of ours with the peer's on the same model."""
    theirs = {each.model: each for each in found if each.engine == _PEER}
    return ((each, theirs[each.model]) for each in found if each.engine != _PEER)


def _table(found: Sequence[Footprint]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("model, engine")
    for title in ("peak MB", "peak at first start", "disk MB", "bytes a parameter", "load s", "to text s"):
        table.add_column(title, justify="right")
    for each in found:
        first = "" if each.first_peak_bytes is None else f"{each.first_peak_bytes / MB:.0f}"
        table.add_row(
            f"{each.model}, {each.engine}",
            f"{each.peak_bytes / MB:.0f}",
            first,
            f"{each.disk_bytes / MB:.0f}",
            f"{each.disk_bytes / each.parameters:.3f}",
            f"{each.load_seconds:.2f}",
            f"{each.seconds:.2f}",
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the recording to transcribe")
    parser.add_argument("--model", action="append", help="model to measure; repeatable (default: tiny.en)")
    parser.add_argument(
        "--random", action="append", choices=sorted(SIZES), help="size to measure with random weights; repeatable"
    )
    parser.add_argument("--policy", action="append", help="policy to measure; repeatable (default: int8)")
    parser.add_argument("--runs", type=int, default=3, help="processes after the first (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--work", type=Path, default=WORK, help=f"folder of converted weights (default: {WORK})")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
