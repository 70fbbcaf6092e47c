"""Check every weight format against the engine it belongs to: what it reads, and what `tilewhisper convert` writes.

    python scripts/check_weights.py ../shared/data/jfk.flac ../shared/data/librispeech --model base

Each format is written in each precision, and loaded by its own engine. Both decode the recording and the first clips of
the folder, padded to 30 s, greedily and without timestamps. The table shows on how many the engine gives the tokens
that this one gives with the same file (if it reads the format) and with the source, and the engine's word error rate.
Engines that are not installed are left out, with a line.

Engines multiply quantised weights by activations that each quantises in its own way, which changes tokens that are
about as likely as others. The column "its rounding" has this engine's tokens with the same file where activations are
rounded as the format's engine rounds them: what differs then is either misread or chance. How much is chance is in the
column "itself", for rows that fail: on how many the engine gives its own tokens again when noise of half a step of 16
bits, far too low to hear, is added to the recordings.

Exit status: 0 if nine of ten recordings have the same tokens with the same file, in either of the two ways, and with
the source in float precisions; 1 if not, 2 if the check cannot run.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from clips import read_clips
from quality import word_error_rate
from rich.progress import track
from rich.table import Table
from weight_check import engine_rounding, k_quants
from weight_check.engines import ENGINES, PACKAGES, Samples

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.models.audio import reader
from tilewhisper.models.checkpoint import export
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.constants import WINDOW_SAMPLES

SHARE = 0.9
"""Of the recordings, that must have the same tokens."""
HALF_STEP = 2.0**-16
"""Of samples of 16 bits, where full scale is 1."""
_FILES = ("ggml", "openai")  # formats of one file, which engines take instead of its folder
_READ = {"transformers": "hf", **{name: name for name in ("ctranslate2", "ggml", "openai")}}
"""Of the formats that this engine reads, its readers' names."""


@dataclass(frozen=True)
class Row:
    """One precision of one format, by its own engine."""

    model: str
    format: str
    precision: str
    megabytes: float
    recordings: int
    same_as_file: int | None
    """Recordings with the tokens that this engine gives with the same file; None if it does not read the format."""
    same_with_its_rounding: int | None
    """The same where this engine rounds activations as the format's does; None where it has no such rounding."""
    same_as_itself: int | None
    """Recordings with the format's engine's own tokens after noise was added; None where enough are the same."""
    same_as_source: int
    """Recordings with the tokens that this engine gives with the source."""
    word_error_rate: float
    """In percent, of the clips, by the format's engine."""
    our_word_error_rate: float
    """By this engine with the same file, or with the source where it does not read the format."""

    @property
    def passed(self) -> bool:
        of_file = (self.same_as_file, self.same_with_its_rounding)
        as_source = is_quantised(self.precision) or self.same_as_source >= SHARE * self.recordings
        return as_source and _enough(of_file, self.recordings)


def _enough(counts: Sequence[int | None], recordings: int) -> bool:
    """Whether the greatest count is a large enough share of the recordings, or there is none."""
    known = [count for count in counts if count is not None]
    return not known or max(known) >= SHARE * recordings


def is_quantised(precision: str) -> bool:
    return precision.startswith(("int", "q"))


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        clips = read_clips(args.folder)[: args.clips]
        recordings = [padded(reader.decode_audio(file)) for file in (args.file, *(clip.file for clip in clips))]
        references = [clip.reference for clip in clips]
        rows = [row for model in args.model or ["tiny.en"] for row in check(model, recordings, references, args)]
    except (*USER_ERRORS, OSError, ValueError) as e:
        print(f"check_weights: error: {e}", file=sys.stderr)
        return 2
    if args.json:
        write_whole(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    console().print(_table(rows))
    for kind in sorted({*args.format} - {row.format for row in rows}):
        print(f"{kind} left out: {PACKAGES[kind]} is not installed")
    return 0 if rows and all(row.passed for row in rows) else 1


def check(
    name: str, recordings: Sequence[Samples], references: Sequence[str], args: argparse.Namespace
) -> Iterator[Row]:
    """A row for each precision of the formats whose engines are installed; the first recording has no reference."""
    checkpoint, of_source = _ours(name, recordings, args.policy)

    def errors(tokens: Sequence[list[int]]) -> float:
        return word_error_rate(references, [checkpoint.tokenizer.decode(one) for one in tokens[1:]])

    for kind, precision in track([*_precisions(checkpoint, args)], name, console=console(stderr=True), transient=True):
        with tempfile.TemporaryDirectory() as folder:
            weights = write(checkpoint, kind, Path(folder, precision), precision)
            size = weights.stat().st_size if weights.is_file() else sum(f.stat().st_size for f in weights.iterdir())
            theirs = _theirs(kind, weights, checkpoint, recordings)
            ours = _ours(weights, recordings, args.policy)[1] if kind in _READ else None
            rounded = _with_its_rounding(kind, precision, weights, recordings)
            same_as_file = None if ours is None else _same(theirs, ours)
            same_with_its_rounding = None if rounded is None else _same(theirs, rounded)
            itself = None
            if not _enough((same_as_file, same_with_its_rounding), len(recordings)):
                itself = _same(theirs, _theirs(kind, weights, checkpoint, [noisy(one) for one in recordings]))
        yield Row(
            name,
            kind,
            precision,
            size / 1e6,
            len(recordings),
            same_as_file=same_as_file,
            same_with_its_rounding=same_with_its_rounding,
            same_as_itself=itself,
            same_as_source=_same(theirs, of_source),
            word_error_rate=errors(theirs),
            our_word_error_rate=errors(of_source if ours is None else ours),
        )


def _theirs(kind: str, weights: Path, checkpoint: Checkpoint, recordings: Sequence[Samples]) -> list[list[int]]:
    """The text tokens of the format's engine."""
    decode = ENGINES[kind](weights, checkpoint)
    return [[token for token in decode(samples) if token < checkpoint.tokenizer.eot] for samples in recordings]


def _with_its_rounding(
    kind: str, precision: str, weights: Path, recordings: Sequence[Samples]
) -> list[list[int]] | None:
    rounding = engine_rounding.of(kind, precision)
    if rounding is None:
        return None
    decode = engine_rounding.decoder(weights, rounding)
    return [decode(samples) for samples in recordings]


def _precisions(checkpoint: Checkpoint, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    fits = checkpoint.model.config.d_model % k_quants.BLOCK == 0  # whisper.cpp crashes on files of mixed types
    for kind in args.format:
        if importlib.util.find_spec(PACKAGES[kind]):
            for precision in (*export.FORMATS[kind].precisions, *(k_quants.TYPES if kind == "ggml" and fits else ())):
                if not args.precision or precision in args.precision:
                    yield kind, precision


def write(checkpoint: Checkpoint, kind: str, folder: Path, precision: str) -> Path:
    """Write the weights, and return the file or folder to load."""
    if precision not in k_quants.TYPES:
        files = export.write(checkpoint, kind, folder, precision)
        return next(file for file in files if file.suffix in (".pt", ".bin")) if kind in _FILES else folder
    (source,) = export.write(checkpoint, kind, folder, "f16")
    target = source.with_name(f"{precision}.bin")
    k_quants.convert(source, target, precision)
    return target


def _ours(model: str | Path, recordings: Sequence[Samples], policy: str) -> tuple[Checkpoint, list[list[int]]]:
    """This engine's text tokens, as `ENGINES` decode."""
    with WhisperModel(str(model), policy=policy) as ours:
        return ours.checkpoint, [tokens(ours, samples) for samples in recordings]


def tokens(model: WhisperModel, samples: Samples) -> list[int]:
    """This engine's tokens, as `ENGINES` decode."""
    segments, _ = model.transcribe(
        samples, "en", beam_size=1, temperature=0.0, without_timestamps=True, audio_context="full"
    )
    return [token for segment in segments for token in segment.tokens]


def _same(found: Sequence[list[int]], expected: Sequence[list[int]]) -> int:
    return sum(one == other for one, other in zip(found, expected, strict=True))


def padded(samples: Samples) -> Samples:
    """30 s: whisper.cpp pads with silence, the others with zeros in the spectrogram, and tokens depend on it."""
    return np.pad(samples, (0, WINDOW_SAMPLES - len(samples)))


def noisy(samples: Samples) -> Samples:
    """With white noise of half a step of 16 bits, always the same."""
    noise = np.random.default_rng(0).uniform(-HALF_STEP, HALF_STEP, len(samples))
    return (samples + noise).astype(np.float32)


def _table(rows: Sequence[Row]) -> Table:
    table = Table("model", "format", "precision", box=None, pad_edge=False)
    for heading in ("MB", "same file", "its rounding", "itself", "source", "of", "WER %", "our WER %"):
        table.add_column(heading, justify="right")
    for row in rows:
        same = "not read" if row.same_as_file is None else str(row.same_as_file)
        errors = (f"{value:.2f}" for value in (row.word_error_rate, row.our_word_error_rate))
        more = ("" if count is None else str(count) for count in (row.same_with_its_rounding, row.same_as_itself))
        counts = (same, *more, str(row.same_as_source), f"{row.recordings}" + ("" if row.passed else " FAILED"))
        table.add_row(row.model, row.format, row.precision, f"{row.megabytes:.1f}", *counts, *errors)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a recording of English speech, such as jfk.flac")
    parser.add_argument("folder", type=Path, help="clips and their transcripts.tsv")
    parser.add_argument("--model", action="append", help="repeatable (default: tiny.en)")
    parser.add_argument("--policy", default="cpu", help="of this engine (default: %(default)s)")
    parser.add_argument(
        "--format", nargs="+", choices=export.FORMATS, default=list(export.FORMATS), help="default: all"
    )
    parser.add_argument("--precision", nargs="+", help="only these (default: all)")
    parser.add_argument("--clips", type=int, default=10, metavar="N", help="of the folder (default: %(default)s)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the table as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
