"""This engine and its peers side by side: the same weights, the same samples, as many threads.

    python scripts/compare.py clips ../shared/data/librispeech --model base --model tiny.en --exporter V/bin/optimum-cli
    python scripts/compare.py files ../shared/data/librispeech --model base --ours batch_size=8 --runs 3
    python scripts/compare.py long ../shared/data/librispeech --model base --runs 3
    python scripts/compare.py token ../shared/data/librispeech --model base --runs 3 --batch 8
    python scripts/compare.py start ../shared/data/jfk.flac --model tiny.en

clips: each clip by itself. files: all clips at once, as a command over many files has them: a contender that can
decodes several together. long: the clips joined to five minutes. token: the decoder's part in the clips, or with
--batch in all of them at once. start: from the start of a process to the transcript, beside a script with
faster-whisper.

All decode greedily, with timestamps, without a second try at another temperature; audio is given as samples in memory.
Only `start` has both with their defaults, which are alike, and the audio as a file. Each contender has a process of its
own, which is stopped while others have their turn. The peers come with tilewhisper[peers]; their weights are converted
from this project's once, and kept in --work.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cold_start
import numpy as np
from clips import end_of_speech, join, read_clips
from comparison import Recording, Row, score, take_turns
from peers.base import PeerError, Setup
from peers.catalog import OURS, PEERS, Kind, versions
from peers.contender import Contender
from peers.weights import WORK, Workshop
from rich.progress import track
from rich.table import Table

from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.routing.policy import DEFAULT_POLICY
from tilewhisper.models.audio import reader
from tilewhisper.models.constants import SAMPLE_RATE

LONG_SECONDS = 300.0
DEFAULT_PEERS = {
    "clips": ("openvino-genai", "faster-whisper", "whisper.cpp"),
    "files": ("openvino-genai", "faster-whisper", "whisper.cpp"),
    "long": ("openvino-genai", "faster-whisper", "faster-whisper-batched", "whisper.cpp"),
    "token": ("openvino-genai",),
}

_SPEED: dict[str, Callable[[Row], str]] = {
    "RTF": lambda row: f"{row.rtf:.4f}",
    "x the first": lambda row: f"{row.ratio:.2f}",
    "median x": lambda row: f"{row.median_ratio:.2f}",
    "WER %": lambda row: f"{row.word_error_rate:.2f}",
}
COLUMNS: dict[str, dict[str, Callable[[Row], str]]] = {
    "clips": _SPEED,
    "files": {name: value for name, value in _SPEED.items() if name != "median x"},
    "long": _SPEED
    | {"out of order": lambda row: str(row.misplaced), "last end s": lambda row: _figure(row.end_error, 1, "+.2f")},
    "token": {
        "tokens": lambda row: _figure(row.tokens, 1, "d"),
        "ms a token": lambda row: _figure(row.token_seconds, 1e3, ".2f"),
        "TPOT ms": lambda row: _figure(row.step_seconds, 1e3, ".2f"),
        "WER %": _SPEED["WER %"],
    },
}
LEGENDS = {
    "clips": "median x: of the clips' ratios",
    "files": "RTF: of all clips together",
    "long": "last end s: from the end of speech to the end of the last segment",
    "token": "ms a token: all that comes after the encoder; TPOT: the same without prompts and a "
    "window's keys and values",
}


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    run = cold_start.compare if args.command == "start" else compare
    try:
        results = [run(model, args) for model in args.model or ["tiny.en"]]
        if args.json:
            args.json.write_text(json.dumps(results, indent=1) + "\n")
    except (*USER_ERRORS, PeerError, OSError, ValueError) as e:
        print(f"compare: error: {e}", file=sys.stderr)
        return 2
    return 0


def compare(model: str, args: argparse.Namespace) -> dict[str, Any]:
    """All contenders over the recordings of `args.command`; printed, and given back for the JSON."""
    kinds = [*_ours(args), *(PEERS[name] for name in args.peer or DEFAULT_PEERS[args.command])]
    packages = {name: number for kind in kinds for name, number in versions(kind).items()}
    with TemporaryDirectory() as folder, ExitStack() as opened:
        recordings = _recordings(args, Path(folder))
        workshop = Workshop(args.work, args.exporter)
        setups = [_setup(kind, model, workshop, args) for kind in kinds]
        contenders = [
            opened.enter_context(Contender(kind.label, setup)) for kind, setup in zip(kinds, setups, strict=True)
        ]
        turns = take_turns(contenders, recordings, args.runs, _tracked(model))
    rows = score([kind.label for kind in kinds], turns, recordings)
    machine = _machine(args.threads)
    _show(model, rows, recordings, machine, packages, args)
    return {
        "command": args.command,
        "model": model,
        "language": args.language,
        "runs": args.runs,
        "machine": machine,
        "packages": packages,
        "setups": [asdict(setup) for setup in setups],
        "recordings": [{"name": one.name, "seconds": one.seconds} for one in recordings],
        "rows": [asdict(row) for row in rows],
    }


def _ours(args: argparse.Namespace) -> list[Kind]:
    """This engine under each policy, and once more in batches where they are asked for."""
    extra = dict(args.ours)
    sets = [{"policy": policy, **extra} for policy in args.policy or [DEFAULT_POLICY]]
    if args.command == "token" and args.batch:
        sets = [{**options, "batch_size": size} for options in sets for size in (1, args.batch)]
    return [replace(OURS, label=_label(options), options=options) for options in sets]


def _label(options: dict[str, Any]) -> str:
    return " ".join([OURS.label, *(f"{name}={value}" for name, value in options.items())])


def _setup(kind: Kind, model: str, workshop: Workshop, args: argparse.Namespace) -> Setup:
    weights = str(workshop.weights(model, kind.weights))
    return Setup(kind.module, weights, args.threads, args.language, dict(kind.options))


def _recordings(args: argparse.Namespace, folder: Path) -> list[Recording]:
    """Decoded into `folder`: each clip, or one of many joined."""
    found = read_clips(args.folder)[: args.clips]
    decoded = [reader.decode_audio(clip.file) for clip in found]
    names, references = [clip.file.name for clip in found], [clip.reference for clip in found]
    if args.command == "long":
        joined, used = join(decoded, args.seconds)
        decoded, names, references = [joined], [f"{used} clips joined"], [" ".join(references[:used])]
    recordings = []
    for number, (name, samples, reference) in enumerate(zip(names, decoded, references, strict=True)):
        path = folder / f"{number:06}.npy"
        np.save(path, samples)
        seconds = len(samples) / SAMPLE_RATE
        recordings.append(Recording(name, path, seconds, reference, end_of_speech(samples)))
    at_once = args.command == "files" or (args.command == "token" and args.batch)
    return [_all_at_once(recordings, folder)] if at_once else recordings


def _all_at_once(recordings: Sequence[Recording], folder: Path) -> Recording:
    seconds = sum(one.seconds for one in recordings)
    reference = " ".join(one.reference for one in recordings)
    return Recording(f"{len(recordings)} clips at once", folder, seconds, reference, seconds)


def _tracked(model: str) -> Callable[[range], Iterable[int]]:
    screen = console(stderr=True)
    return lambda turns: track(turns, description=model, console=screen, transient=True)


def _show(
    model: str,
    rows: Sequence[Row],
    recordings: Sequence[Recording],
    machine: dict[str, Any],
    packages: dict[str, str],
    args: argparse.Namespace,
) -> None:
    columns = COLUMNS[args.command]
    table = Table(model, box=None, pad_edge=False)
    for heading in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, *(value(row) for value in columns.values()))
    what = recordings[0].name if len(recordings) == 1 else f"{len(recordings)} clips"
    seconds = sum(one.seconds for one in recordings)
    screen = console()
    screen.print(table)
    say(
        screen,
        f"{what}, {seconds:.1f} s; language {args.language}, greedy; median of {args.runs} run(s) in turn after a "
        f"warm-up; {LEGENDS[args.command]}; {args.threads} threads of {machine['cpu']}; "
        + ", ".join(f"{name} {number}" for name, number in packages.items()),
    )


def _figure(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None else format(value if form == "d" else value * scale, form)


def _machine(threads: int) -> dict[str, Any]:
    from tilewhisper.engine.report import machine  # imports torch

    return asdict(replace(machine(), threads=threads))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, defaults in DEFAULT_PEERS.items():
        p = commands.add_parser(name)
        p.add_argument("folder", type=Path, help="audio files and their transcripts.tsv")
        p.add_argument("--peer", action="append", choices=PEERS, help=f"repeatable (default: {', '.join(defaults)})")
        p.add_argument("--clips", type=_positive, metavar="N", help="the first N only")
        if name == "long":
            p.add_argument("--seconds", type=float, default=LONG_SECONDS, help="to be joined (default: %(default)g)")
        _add_common(p, runs=1)
    commands.choices["token"].add_argument(
        "--batch", type=_positive, metavar="N", help="all clips at once, by this engine one by one and N together"
    )
    start = commands.add_parser("start")
    start.add_argument("file", type=Path)
    _add_common(start, runs=5)
    return parser


def _add_common(p: argparse.ArgumentParser, runs: int) -> None:
    p.add_argument("--model", action="append", help="repeatable (default: tiny.en)")
    p.add_argument("--policy", action="append", help=f"of this engine; repeatable (default: {DEFAULT_POLICY})")
    p.add_argument(
        "--ours",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="an option of this engine's `transcribe`: audio_context=full; repeatable",
    )
    p.add_argument("--language", default="en", help="(default: en)")
    p.add_argument("--threads", type=_positive, default=2, help="of every contender (default: 2)")
    p.add_argument("--runs", type=_positive, default=runs, help="of which the median counts (default: %(default)s)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all figures and texts")
    p.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        default=WORK,
        help="converted weights (default: %(default)s)",
    )
    p.add_argument("--exporter", type=Path, metavar="FILE", help="optimum-intel's optimum-cli, for OpenVINO's weights")


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
