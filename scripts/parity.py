"""Compare this engine with openai-whisper, whose results it must reproduce: tokens, word times, long files.

    pip install openai-whisper==20250625
    python scripts/parity.py ../shared/data/librispeech ../shared/data/long --model tiny.en --model base

The first folder holds clips of up to 30 s and their `transcripts.tsv` (see clips.py). Further folders hold long files;
with them, the clips joined to five minutes are transcribed, too. A setting is POLICY/AUDIO_CONTEXT. The language is
English, the temperature 0. openai-whisper computes in float32 on this project's weights; its results are cached in
--work, so that later runs are quick.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from clips import LONG_SECONDS, join, read_clips
from openai_whisper import PACKAGE, OpenAIWhisper, Transcription, installed_version
from parity_scores import NEAR, Recording, Row, score
from peers.base import PeerError
from peers.weights import WORK, Workshop
from rich.progress import track
from rich.table import Table
from transcript_scores import Setting

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.report import machine
from tilewhisper.models.audio import reader

SETTINGS = ("torch/full", "cpu/full")
LEGEND = (
    "same tokens: as openai-whisper's; "
    f"near: word starts and ends within {NEAR * 1e3:.0f} ms of theirs, over recordings with the same words; "
    "WER to theirs: with their text as the reference; WER: with the true text, where it is known; disordered: segments "
    "that start before the previous segment's end or have no length"
)


@dataclass(frozen=True)
class Decoding:
    """Options of both engines. Without timestamps long files are left out: timestamps decide where windows end."""

    beam_size: int
    timestamps: bool
    words: bool = False


DECODINGS = {
    "greedy": Decoding(1, timestamps=True),
    "greedy-words": Decoding(1, timestamps=True, words=True),
    "greedy-plain": Decoding(1, timestamps=False),
    "beam5": Decoding(5, timestamps=True),
    "beam5-plain": Decoding(5, timestamps=False),
}


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return run(args)
    except (*USER_ERRORS, PeerError, OSError, ValueError) as e:
        print(f"parity: error: {e}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Run every model. Each model's table is printed when it is done, the JSON at the end."""
    packages = {PACKAGE: installed_version()}
    settings = [Setting.parse(text) for text in dict.fromkeys(args.setting or SETTINGS)]
    clips, long = _recordings(args)
    screen = console()
    rows: list[Row] = []
    for name in dict.fromkeys(args.model or ["tiny.en"]):
        oracle = OpenAIWhisper(name, Workshop(args.work))
        model_rows: list[Row] = []
        for setting in settings:
            with WhisperModel(name, policy=setting.policy, cpu_threads=args.threads) as model:
                for decoding in args.decoding or DECODINGS:
                    model_rows += _rows(name, model, oracle, setting, decoding, clips, long)
        screen.print(_table(name, model_rows))
        rows += model_rows
    about = machine()
    packages |= about.packages
    say(screen, LEGEND)
    say(screen, f"{about.threads} threads of {about.cpu}; {PACKAGE} {packages[PACKAGE]}, torch {packages['torch']}")
    if args.json:
        result = {"machine": asdict(about), "packages": packages, "rows": [asdict(row) for row in rows]}
        write_whole(args.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


def _recordings(args: argparse.Namespace) -> tuple[list[Recording], list[Recording]]:
    """Decode the clips, and the long files with the joined clips before them."""
    clips = [
        Recording(clip.file.name, reader.decode_audio(clip.file), clip.reference) for clip in read_clips(args.folder)
    ]
    if not args.long:
        return clips[: args.clips], []
    samples, used = join([clip.samples for clip in clips], LONG_SECONDS)
    joined = Recording(f"{used} clips joined", samples, " ".join(str(clip.reference) for clip in clips[:used]))
    files = sorted(file for folder in args.long for file in folder.iterdir() if file.is_file())
    return clips[: args.clips], [joined, *(Recording(file.name, reader.decode_audio(file), None) for file in files)]


def _rows(
    name: str,
    model: WhisperModel,
    oracle: OpenAIWhisper,
    setting: Setting,
    decoding: str,
    clips: Sequence[Recording],
    long: Sequence[Recording],
) -> list[Row]:
    """Return one row for all clips, and one for each long file."""
    how = DECODINGS[decoding]
    sets = {f"{len(clips)} clips": clips} | {recording.name: [recording] for recording in long if how.timestamps}
    rows = []
    for what, recordings in sets.items():
        description = f"{name}, {setting}, {decoding}, {what}"
        pairs = [
            (
                transcribe(model, setting.audio_context, recording.samples, how),
                oracle.transcribe(recording.samples, how.beam_size, how.timestamps, how.words),
            )
            for recording in track(recordings, description, console=console(stderr=True), transient=True)
        ]
        rows.append(score(name, str(setting), decoding, what, recordings, pairs))
    return rows


def transcribe(
    model: WhisperModel, audio_context: str, samples: npt.NDArray[np.float32], how: Decoding
) -> Transcription:
    """Transcribe samples (n,) at 16 kHz with this engine."""
    segments = list(
        model.transcribe(
            samples,
            "en",
            temperature=0.0,
            beam_size=how.beam_size,
            without_timestamps=not how.timestamps,
            word_timestamps=how.words,
            audio_context=audio_context,
        )[0]
    )
    return Transcription(
        "".join(segment.text for segment in segments),
        [token for segment in segments for token in segment.tokens],
        [(segment.start, segment.end) for segment in segments],
        [(word.word, word.start, word.end) for segment in segments for word in segment.words or ()],
    )


def _table(model: str, rows: Sequence[Row]) -> Table:
    table = Table(model, "", "", box=None, pad_edge=False)
    for heading in ("same tokens", "near %", "WER to theirs %", "WER %", "openai's", "disordered", "openai's"):
        table.add_column(heading, justify="right")
    for row in rows:
        rates = (row.near, row.difference, row.word_error_rate, row.their_word_error_rate)
        table.add_row(
            row.setting,
            row.decoding,
            row.what,
            f"{row.same_tokens}/{row.recordings}",
            *("-" if rate is None else f"{rate:.2f}" for rate in rates),
            str(row.disordered),
            str(row.their_disordered),
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="clips and their transcripts.tsv")
    parser.add_argument("long", type=Path, nargs="*", help="folders of longer files")
    parser.add_argument(
        "--clips", type=int, metavar="N", help="use the first N clips only (the joined recording uses all)"
    )
    parser.add_argument("--model", action="append", help="model to run; repeatable (default: tiny.en)")
    parser.add_argument(
        "--setting",
        action="append",
        metavar="POLICY/AUDIO_CONTEXT",
        help=f"repeatable (default: {', '.join(SETTINGS)})",
    )
    parser.add_argument(
        "--decoding",
        action="append",
        choices=DECODINGS,
        help="options of both engines (plain: without timestamps); repeatable (default: all)",
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (default: 2)")
    parser.add_argument(
        "--json",
        type=output_file,
        metavar="FILE",
        help="write results and the names of differing recordings as JSON",
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        default=WORK,
        help="cache of converted weights and of openai-whisper's results (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
