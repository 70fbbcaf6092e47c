"""Check every weight format against the engine it belongs to: the same file, the same text tokens.

    python scripts/check_weights.py ../shared/data/jfk.flac ../shared/data/librispeech/*.flac --model base

Each format and precision is written once, into a temporary folder, and both engines decode the first `--clips`
recordings of at most 30 s greedily, without timestamps. Engines that are not installed are left out, with a line.
Quantised files are compared with engines that also quantise activations, each in its own way, so one clip of ten may
differ. Exit status: 0 if each format has the same tokens in at least 9 of 10 clips, else 1.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from weight_check import k_quants
from weight_check.engines import ENGINES, Decode, Samples

from tilewhisper import WhisperModel
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.models.audio.reader import decode_audio
from tilewhisper.models.checkpoint import export, loader
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.constants import WINDOW_SAMPLES

SHARE = 0.9
"""Of the clips, that must have the same tokens."""


@dataclass(frozen=True)
class Result:
    """One format and precision."""

    format: str
    precision: str
    megabytes: float
    equal: int
    clips: int
    differences: tuple[tuple[str, str, str], ...]
    """(clip, our text, the engine's text)"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; see the module."""
    args = _arguments().parse_args(argv)
    console = Console()
    try:
        clips = _clips(args.audio, args.clips)
        checkpoint = loader.load(args.model)
        results = [_check(args, checkpoint, *each, clips, console) for each in _precisions(args, console)]
    except USER_ERRORS as error:
        console.print(f"check_weights.py: {error}", style="red")
        return 2
    console.print(_table(args.model, results))
    if args.json:
        args.json.write_text(json.dumps([asdict(result) for result in results], indent=1, ensure_ascii=False))
    return 0 if all(result.equal >= SHARE * result.clips for result in results) else 1


def _clips(paths: Sequence[Path], count: int) -> dict[str, Samples]:
    """The first recordings that fit into a window, by name."""
    found: dict[str, Samples] = {}
    for path in paths:
        samples = decode_audio(path)
        if len(samples) <= WINDOW_SAMPLES and len(found) < count:
            found[path.stem] = samples
    return found


def _precisions(args: argparse.Namespace, console: Console) -> Iterator[tuple[str, str]]:
    for name in args.format or ENGINES:
        more = k_quants.TYPES if name == "ggml" else ()
        for precision in (*export.FORMATS[name].precisions, *more):
            if args.precision is None or precision in args.precision:
                yield name, precision


def _check(
    args: argparse.Namespace,
    checkpoint: Checkpoint,
    name: str,
    precision: str,
    clips: dict[str, Samples],
    console: Console,
) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        weights = _write(checkpoint, name, Path(folder, "made"), precision)
        files = [weights] if weights.is_file() else list(weights.iterdir())
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        model = WhisperModel(str(weights), policy=args.policy)
        peer = ENGINES[name](weights, args.language, args.threads)
        differences = []
        for clip, samples in clips.items():
            ours, theirs = _tokens(model, samples, args.language), _text_tokens(peer, samples, model)
            if ours != theirs:
                decode = model.checkpoint.tokenizer.decode
                differences.append((clip, decode(ours), decode(theirs)))
        model.close()
    equal = len(clips) - len(differences)
    console.print(f"{name} {precision}: {equal} of {len(clips)}")
    return Result(name, precision, megabytes, equal, len(clips), tuple(differences))


def _write(checkpoint: Checkpoint, name: str, folder: Path, precision: str) -> Path:
    """Write the weights, and return the file or folder to load."""
    if precision not in k_quants.TYPES:
        files = export.write(checkpoint, name, folder, precision)
        return next((file for file in files if file.suffix == ".pt" or name == "ggml"), folder)
    (source,) = export.write(checkpoint, name, folder, "f16")
    target = source.with_name(f"{precision}.bin")
    k_quants.convert(source, target, precision)
    return target


def _tokens(model: WhisperModel, samples: Samples, language: str) -> list[int]:
    segments, _ = model.transcribe(
        samples, language=language, beam_size=1, temperature=0.0, without_timestamps=True, audio_context="full"
    )
    return [token for segment in segments for token in segment.tokens if token < model.checkpoint.tokenizer.eot]


def _text_tokens(peer: Decode, samples: Samples, model: WhisperModel) -> list[int]:
    return [token for token in peer(samples) if token < model.checkpoint.tokenizer.eot]


def _table(model: str, results: Sequence[Result]) -> Table:
    table = Table("format", "precision", "MB", "same tokens", title=f"{model}: tilewhisper beside the format's engine")
    for result in results:
        table.add_row(result.format, result.precision, f"{result.megabytes:.0f}", f"{result.equal} of {result.clips}")
    return table


def _arguments() -> argparse.ArgumentParser:
    description, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", nargs="+", type=Path, help="recordings of speech; longer ones than 30 s are left out")
    parser.add_argument("--model", default="base")
    parser.add_argument("--policy", default="cpu", help="of tilewhisper (default: %(default)s)")
    parser.add_argument("--language", default="en")
    parser.add_argument("--format", action="append", choices=list(ENGINES), help="only this one; may be repeated")
    parser.add_argument("--precision", action="append", help="only this one; may be repeated")
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the results and the differing texts to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
