"""Compare this engine with other engines: the same weights, the same samples, the same number of threads.

    python scripts/compare.py clips ../shared/data/librispeech --model base --model tiny.en
    python scripts/compare.py files ../shared/data/librispeech --model base --ours batch_size=8 --runs 3
    python scripts/compare.py long ../shared/data/librispeech --model base --runs 3
    python scripts/compare.py token ../shared/data/librispeech --model base --runs 3 --batch 8
    python scripts/compare.py start ../shared/data/jfk.flac --model tiny.en
    python scripts/compare.py all --quick --json quick.json --html quick.html

clips   each clip on its own
files   all clips at once, as from a command over many files; engines that can, batch them
long    the clips joined to five minutes
lengths recordings from a short clip to an hour, each on its own
token   time per token after the encoder, of each clip, or with --batch of all clips at once
start   from the start of a process to the transcript, against a script with faster-whisper
all     these and more, with every installed engine: a table, JSON, and a page with charts

All engines decode greedily or with --beam_size beams, with timestamps, without temperature fallback, from samples in
memory. `start` is the exception: both engines use their defaults, which are alike, and read a file. Each contender has
its own process, which is stopped during the turns of the others. The peers come with tilewhisper[peers]. Their weights
are converted from this project's weights once and cached in --work.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cold_start
import compare_all
import comparison_audio
from clips import LONG_SECONDS
from comparison import Recording, run_alternating, score
from comparison_table import show
from peers.base import PeerError, Setup
from peers.catalog import OURS, PEERS, Kind, missing, versions
from peers.contender import Contender
from peers.weights import WORK, Workshop
from rich.progress import track

from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.flags import count
from tilewhisper.engine.commands.screen import console
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.routing.policy import DEFAULT_POLICY
from tilewhisper.models.errors import ModelsError

DEFAULT_PEERS = {
    "clips": ("openvino-genai", "faster-whisper", "whisper.cpp"),
    "files": ("openvino-genai", "faster-whisper", "whisper.cpp"),
    "long": ("openvino-genai", "faster-whisper", "faster-whisper-batched", "whisper.cpp"),
    "lengths": ("openvino-genai", "faster-whisper", "whisper.cpp"),
    "token": ("openvino-genai",),
}
LENGTHS = (1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Seconds."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    run = cold_start.compare if args.command == "start" else compare
    try:
        if args.command == "all":
            return compare_all.run(args)
        results = [run(model, args) for model in args.model or ["tiny.en"]]
        if args.json:
            write_whole(args.json, json.dumps(results, indent=1) + "\n")
    except (*USER_ERRORS, PeerError, OSError, ValueError) as e:
        print(f"compare: error: {e}", file=sys.stderr)
        return 2
    return 0


def compare(model: str, args: argparse.Namespace) -> dict[str, Any]:
    """Run all contenders on the recordings of `args.command`, print the table, and return the results for the JSON."""
    left_out: dict[str, str] = {}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        recordings = _recordings(args, Path(folder))
        kinds = _kinds(args, model, recordings, left_out)
        packages = {name: number for kind in kinds for name, number in versions(kind).items()}
        opened = _opened(kinds, model, args, recordings[0], left_out)
        contenders = [stack.enter_context(contender) for contender in opened]
        answers = run_alternating(contenders, recordings, args.runs, _progress(model))
    rows = score([contender.name for contender in contenders], answers, recordings)
    machine = _machine(args.threads)
    result = {
        "command": args.command,
        "model": model,
        "language": args.language,
        "beam_size": args.beam_size,
        "runs": args.runs,
        "machine": machine,
        "packages": packages,
        "setups": [asdict(contender.setup) for contender in contenders],
        "recordings": [{"name": recording.name, "seconds": recording.seconds} for recording in recordings],
        "rows": [asdict(row) for row in rows],
        "left_out": left_out,
    }
    show(result, rows)
    return result


def _ours(args: argparse.Namespace) -> list[Kind]:
    """This engine under each policy; for `token --batch`, once per batch size."""
    extra = dict(args.ours)
    sets = [{"policy": policy, **extra} for policy in args.policy or [DEFAULT_POLICY]]
    if args.command == "token" and args.batch:
        sets = [{**options, "batch_size": size} for options in sets for size in (1, args.batch)]
    return [replace(OURS, label=_label(options), options=options) for options in sets]


def _label(options: dict[str, Any]) -> str:
    return " ".join([OURS.label, *(f"{name}={value}" for name, value in options.items())])


def _setup(kind: Kind, model: str, workshop: Workshop, args: argparse.Namespace) -> Setup:
    weights = str(workshop.weights(model, kind.weights))
    return Setup(kind.module, weights, args.threads, args.language, dict(kind.options), args.beam_size)


def _recordings(args: argparse.Namespace, folder: Path) -> list[Recording]:
    """Decode the clips into `folder`: separately, joined to recordings, or as one folder."""
    speech = comparison_audio.speeches(args.folder, args.clips)
    if args.command == "long":
        speech = [comparison_audio.joined(speech, args.seconds)]
    if args.command == "lengths":
        speech = list(comparison_audio.of_lengths(speech, args.seconds or LENGTHS))
    recordings = comparison_audio.saved(speech, folder)
    at_once = args.command == "files" or (args.command == "token" and args.batch)
    return [comparison_audio.all_at_once(recordings, folder)] if at_once else recordings


def _kinds(
    args: argparse.Namespace, model: str, recordings: Sequence[Recording], left_out: dict[str, str]
) -> list[Kind]:
    """Ours and the peers. Of --every-peer, those that cannot run are added to `left_out` with the reason."""
    kinds = _ours(args)
    if not args.every_peer:
        return [*kinds, *(PEERS[name] for name in args.peer or DEFAULT_PEERS[args.command])]
    longest = max(recording.longest for recording in recordings)
    for kind in PEERS.values():
        if package := missing(kind):
            left_out[kind.label] = f"{package} is not installed: pip install {kind.install}"
        elif longest > kind.longest:
            left_out[kind.label] = f"takes recordings of up to {kind.longest:g} s"
        elif kind.only_multilingual and model.endswith(".en"):
            left_out[kind.label] = "takes multilingual models only"
        else:
            kinds.append(kind)
    return kinds


def _opened(
    kinds: Sequence[Kind], model: str, args: argparse.Namespace, recording: Recording, left_out: dict[str, str]
) -> Iterator[Contender]:
    """Load each contender and let it transcribe `recording` as a warm-up.

    A peer of --every-peer that fails is added to `left_out`; any other failure is raised as PeerError or ModelsError.
    """
    workshop = Workshop(args.work)
    for kind in kinds:
        try:
            contender = Contender(kind.label, _setup(kind, model, workshop, args))
            try:
                contender.transcribe(recording.samples)
            except BaseException:
                contender.close()
                raise
        except (PeerError, ModelsError) as e:
            if kind.module == OURS.module or not args.every_peer:
                raise
            left_out[kind.label] = f"failed: {e}"
        else:
            yield contender


def _progress(model: str) -> Callable[[range], Iterable[int]]:
    return lambda turns: track(turns, description=model, console=console(stderr=True), transient=True)


def _machine(threads: int) -> dict[str, Any]:
    from tilewhisper.engine.report import machine  # imports torch

    return asdict(replace(machine(), threads=threads))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, peers in DEFAULT_PEERS.items():
        p = commands.add_parser(name)
        p.add_argument("folder", type=Path, help="clips and their transcripts.tsv")
        p.add_argument("--peer", action="append", choices=PEERS, help=f"repeatable (default: {', '.join(peers)})")
        p.add_argument(
            "--every-peer", action="store_true", help="all peers; a row says why one is missing, and what installs it"
        )
        p.add_argument("--clips", type=count(1), metavar="N", help="use the first N clips only")
        p.add_argument("--beam_size", type=count(1), default=1, metavar="N", help="beams of every engine (default: 1)")
        if name == "long":
            p.add_argument("--seconds", type=float, default=LONG_SECONDS, help="length to join (default: %(default)g)")
        if name == "lengths":
            lengths_help = f"a length; repeatable (default: {', '.join(f'{length:g}' for length in LENGTHS)})"
            p.add_argument("--seconds", type=float, action="append", metavar="S", help=lengths_help)
        if name == "token":
            batch_help = "all clips at once, with batch sizes 1 and N of this engine"
            p.add_argument("--batch", type=count(1), metavar="N", help=batch_help)
        _add_common(p, runs=1)
    start = commands.add_parser("start")
    start.add_argument("file", type=Path, help="audio file")
    _add_common(start, runs=5)
    compare_all.add_arguments(commands.add_parser("all"))
    return parser


def _add_common(p: argparse.ArgumentParser, runs: int) -> None:
    p.add_argument("--model", action="append", help="model to compare; repeatable (default: tiny.en)")
    p.add_argument("--policy", action="append", help=f"of this engine; repeatable (default: {DEFAULT_POLICY})")
    ours_help = "an argument of this engine's `transcribe`, such as audio_context=full; repeatable"
    p.add_argument("--ours", action="append", type=_option, default=[], metavar="NAME=VALUE", help=ours_help)
    p.add_argument("--language", default="en", help="language of the audio (default: en)")
    p.add_argument("--threads", type=count(1), default=2, help="CPU threads of every contender (default: 2)")
    p.add_argument("--runs", type=count(1), default=runs, help="runs; the median counts (default: %(default)s)")
    p.add_argument("--json", type=output_file, metavar="FILE", help="write results and texts as JSON")
    p.add_argument(
        "--work", type=Path, metavar="DIR", default=WORK, help="cache of converted weights (default: %(default)s)"
    )


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


if __name__ == "__main__":
    sys.exit(main())
