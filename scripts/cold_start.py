"""Time from the start of a process to its transcript: `tilewhisper transcribe` against a script with faster-whisper.

Both run once beforehand, so that their caches are filled and the files are in the page cache.
`compare.py start` runs this.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peers.base import PeerError
from peers.catalog import OURS, PEERS, versions
from peers.weights import Workshop
from rich.table import Table

from tilewhisper.engine.commands.screen import console, say

_SCRIPT = Path(__file__).with_name("faster_whisper_once.py")


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the process to its first line of text and to its end."""

    to_text: float
    to_end: float
    text: str


def compare(model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Print the comparison of one model, and return it for the JSON. Raises PeerError."""
    peer = PEERS["faster-whisper"]
    packages = versions(OURS) | versions(peer)
    weights = Workshop(args.work).weights(model, peer.weights)
    theirs = [sys.executable, str(_SCRIPT), str(weights), str(args.file), args.language, str(args.threads)]
    commands = {_name(policy): _ours(model, policy, args) for policy in args.policy or [None]}
    commands["faster-whisper int8, a script"] = theirs
    for command in commands.values():
        start(command, args.threads)
    starts: dict[str, list[Start]] = {name: [] for name in commands}
    for run in range(args.runs):
        for name in sorted(commands, reverse=bool(run % 2)):
            starts[name].append(start(commands[name], args.threads))
    _show(model, starts, packages, args)
    return {
        "command": "start",
        "model": model,
        "threads": args.threads,
        "packages": packages,
        "commands": commands,
        "starts": {name: [asdict(run) for run in runs] for name, runs in starts.items()},
    }


def start(command: Sequence[str], threads: int) -> Start:
    """Run a command to its end and time it. Raises PeerError where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles what it installs; a working copy does so when run
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
    )
    assert process.stdout
    first = process.stdout.readline()
    to_text = time.perf_counter() - began
    rest, errors = process.communicate()
    to_end = time.perf_counter() - began
    if process.returncode:
        lines = errors.splitlines() or ["no message"]
        raise PeerError(f"{command[0]}: exit status {process.returncode}: {lines[-1]}")
    return Start(to_text, to_end, " ".join((first + rest).split()))


def _name(policy: str | None) -> str:
    return f"tilewhisper transcribe{f' --policy {policy}' if policy else ''}"


def _ours(model: str, policy: str | None, args: argparse.Namespace) -> list[str]:
    program = Path(sys.executable).with_name("tilewhisper")
    command = [str(program), "transcribe", str(args.file), "--model", model, "--language", args.language]
    command += ["--threads", str(args.threads), *(["--policy", policy] if policy else [])]
    return command + [part for name, value in args.ours for part in (f"--{name}", str(value))]


def _show(model: str, starts: dict[str, list[Start]], packages: dict[str, str], args: argparse.Namespace) -> None:
    table = Table(model, box=None, pad_edge=False)
    for heading in ("to text s", "to end s", "min", "max"):
        table.add_column(heading, justify="right")
    table.add_column("text")
    for name, runs in starts.items():
        ends = [run.to_end for run in runs]
        seconds = (statistics.median(run.to_text for run in runs), statistics.median(ends), min(ends), max(ends))
        table.add_row(name, *(f"{value:.2f}" for value in seconds), runs[-1].text[:60])
    screen = console()
    screen.print(table)
    numbers = ", ".join(f"{name} {number}" for name, number in packages.items())
    say(
        screen,
        f"{args.file.name}, {args.threads} threads, medians of {args.runs} alternating runs after a warm-up; {numbers}",
    )
