"""Check that other engines load what `tilewhisper convert` writes, and give this engine's tokens.

    python scripts/check_exports.py ../shared/data/jfk.flac ../shared/data/librispeech --model tiny.en --model base

Every format is written in every precision, and loaded by its own engine. Both decode greedily, without timestamps, the
recording and the first clips of the folder. A float precision must give the same tokens on all clips but one; for
quantised ones the word error rate is shown. Exit status: 0 if all do, 1 if not, 2 if the check cannot run.
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
from export_check.engines import ENGINES, Samples
from quality import word_error_rate
from rich.progress import track
from rich.table import Table

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.models.audio import reader
from tilewhisper.models.checkpoint import export
from tilewhisper.models.constants import WINDOW_SAMPLES

PACKAGES = {
    "ctranslate2": "faster_whisper",
    "ggml": "pywhispercpp",
    "openai": "whisper",
    "transformers": "transformers",
    "onnx": "onnxruntime",
    "openvino": "openvino_genai",
}
ALLOWED_DIFFERENCES = 1


@dataclass(frozen=True)
class Row:
    """One precision of one format, by its own engine."""

    model: str
    kind: str
    precision: str
    megabytes: float
    same: int
    """Recordings with this engine's tokens."""
    recordings: int
    word_error_rate: float
    """In percent, of the clips; this engine's own is `our_word_error_rate`."""
    our_word_error_rate: float

    @property
    def passed(self) -> bool:
        return is_quantised(self.precision) or self.recordings - self.same <= ALLOWED_DIFFERENCES


def is_quantised(precision: str) -> bool:
    return precision.startswith(("int", "q"))


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        clips = read_clips(args.folder)[: args.clips]
        recordings = [padded(reader.decode_audio(file)) for file in (args.file, *(clip.file for clip in clips))]
        references = [clip.reference for clip in clips]
        rows = [row for model in args.model or ["tiny.en"] for row in check(model, recordings, references, args.format)]
    except (*USER_ERRORS, OSError, ValueError) as e:
        print(f"check_exports: error: {e}", file=sys.stderr)
        return 2
    if args.json:
        write_whole(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    console().print(_table(rows))
    for kind in sorted({*args.format} - {row.kind for row in rows}):
        print(f"{kind} left out: {PACKAGES[kind]} is not installed")
    return 0 if rows and all(row.passed for row in rows) else 1


def check(model: str, recordings: Sequence[Samples], references: Sequence[str], kinds: Sequence[str]) -> Iterator[Row]:
    """A row for each precision of the formats whose engines are installed; the first recording has no reference."""
    with WhisperModel(model, policy="torch") as ours:
        checkpoint = ours.checkpoint
        expected = [tokens(ours, samples) for samples in recordings]
    decode = checkpoint.tokenizer.decode
    own_errors = word_error_rate(references, [decode(one) for one in expected[1:]])
    wanted = [(kind, precision) for kind in kinds if _installed(kind) for precision in export.FORMATS[kind].precisions]
    for kind, precision in track(wanted, model, console=console(stderr=True), transient=True):
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, precision)
            size = sum(file.stat().st_size for file in export.write(checkpoint, kind, written, precision))
            engine = ENGINES[kind](written, checkpoint)
            found = [[t for t in engine(samples) if t < checkpoint.tokenizer.eot] for samples in recordings]
            del engine
        same = sum(one == other for one, other in zip(found, expected, strict=True))
        errors = word_error_rate(references, [decode(one) for one in found[1:]])
        yield Row(model, kind, precision, size / 1e6, same, len(recordings), errors, own_errors)


def tokens(model: WhisperModel, samples: Samples) -> list[int]:
    """This engine's tokens, as `ENGINES` decode."""
    segments, _ = model.transcribe(
        samples, "en", beam_size=1, temperature=0.0, without_timestamps=True, audio_context="full"
    )
    return [token for segment in segments for token in segment.tokens]


def padded(samples: Samples) -> Samples:
    """30 s: whisper.cpp pads with silence, the others with zeros in the spectrogram, and tokens depend on it."""
    return np.pad(samples, (0, WINDOW_SAMPLES - len(samples)))


def _installed(kind: str) -> bool:
    return importlib.util.find_spec(PACKAGES[kind]) is not None


def _table(rows: Sequence[Row]) -> Table:
    table = Table("model", "format", "precision", box=None, pad_edge=False)
    for heading in ("MB", "same tokens", "WER %", "our WER %"):
        table.add_column(heading, justify="right")
    for row in rows:
        same = f"{row.same}/{row.recordings}" + ("" if row.passed else " FAILED")
        errors = (f"{value:.2f}" for value in (row.word_error_rate, row.our_word_error_rate))
        table.add_row(row.model, row.kind, row.precision, f"{row.megabytes:.1f}", same, *errors)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a recording of English speech, such as jfk.flac")
    parser.add_argument("folder", type=Path, help="clips and their transcripts.tsv")
    parser.add_argument("--model", action="append", help="repeatable (default: tiny.en)")
    parser.add_argument(
        "--format", nargs="+", choices=export.FORMATS, default=list(export.FORMATS), help="default: all"
    )
    parser.add_argument("--clips", type=int, default=10, metavar="N", help="of the folder (default: %(default)s)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the table as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
