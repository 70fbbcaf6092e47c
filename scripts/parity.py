"""This engine beside openai-whisper, whose results it is to give: tokens, times of words, and long files.

    pip install openai-whisper==20250625
    python scripts/parity.py ../shared/data/librispeech ../shared/data/long --model tiny.en --model base

The first folder holds clips of up to 30 s and their `transcripts.tsv` (see clips.py); the files of further ones are
transcribed as they are, after the clips joined to five minutes. A setting is POLICY/AUDIO_CONTEXT. All is English, at
temperature 0. openai-whisper computes in float32 on this project's weights; what it said is kept in --work, so that it
is waited for once.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from clips import join, read_clips
from compare import LONG_SECONDS
from openai_whisper import PACKAGE, OpenAIWhisper, Said, installed_version
from peers.base import PeerError
from peers.weights import WORK, Workshop
from quality import misplaced, word_error_rate
from rich.progress import track
from rich.table import Table
from transcripts import Setting

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.report import machine
from tilewhisper.models.audio import reader

SETTINGS = ("torch/full", "cpu/full")
NEAR = 0.06  # seconds
LEGEND = (
    "same tokens: as openai-whisper's; "
    f"near: starts and ends of words within {NEAR * 1e3:.0f} ms of theirs, over recordings with the same words; "
    "apart: word errors, were their words right; WER: where it is known what was said; disordered: segments "
    "that start before the one before ends, or have no length"
)


@dataclass(frozen=True)
class Decoding:
    """How both decode. Without timestamps long files are left out: their windows end where a timestamp says."""

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


@dataclass(frozen=True)
class Recording:
    name: str
    samples: npt.NDArray[np.float32]
    reference: str | None


@dataclass(frozen=True)
class Row:
    """One decoding of some recordings under one setting, beside openai-whisper's. Rates in percent."""

    model: str
    setting: str
    decoding: str
    what: str
    recordings: int
    different: list[str]
    """Recordings whose tokens are not the same."""
    near: float | None
    """None without words."""
    apart: float
    word_error_rate: float | None
    their_word_error_rate: float | None
    disordered: int
    their_disordered: int

    @property
    def same_tokens(self) -> int:
        return self.recordings - len(self.different)


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return run(args)
    except (*USER_ERRORS, PeerError, OSError, ValueError) as e:
        print(f"parity: error: {e}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Every model: a table as soon as it is done; the JSON at the end."""
    packages = {PACKAGE: installed_version()}
    settings = [Setting.of(text) for text in dict.fromkeys(args.setting or SETTINGS)]
    clips, long = _recordings(args)
    screen, rows = console(), []
    for name in dict.fromkeys(args.model or ["tiny.en"]):
        theirs = OpenAIWhisper(name, Workshop(args.work, None))
        found = []
        for setting in settings:
            with WhisperModel(name, policy=setting.policy, cpu_threads=args.threads) as model:
                for decoding in args.decoding or DECODINGS:
                    found += _rows(name, model, theirs, setting, decoding, clips, long)
        screen.print(_table(name, found))
        rows += found
    about = machine()
    packages |= about.packages
    say(screen, LEGEND)
    say(screen, f"{about.threads} threads of {about.cpu}; {PACKAGE} {packages[PACKAGE]}, torch {packages['torch']}")
    if args.json:
        whole = {"machine": asdict(about), "packages": packages, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _recordings(args: argparse.Namespace) -> tuple[list[Recording], list[Recording]]:
    """The clips; and the long files, of which the first is all clips joined, as many as there are."""
    every = [Recording(one.file.name, reader.decode_audio(one.file), one.reference) for one in read_clips(args.folder)]
    if not args.long:
        return every[: args.clips], []
    samples, used = join([one.samples for one in every], LONG_SECONDS)
    joined = Recording(f"{used} clips joined", samples, " ".join(str(one.reference) for one in every[:used]))
    files = sorted(file for folder in args.long for file in folder.iterdir() if file.is_file())
    return every[: args.clips], [joined, *(Recording(file.name, reader.decode_audio(file), None) for file in files)]


def _rows(
    name: str,
    model: WhisperModel,
    theirs: OpenAIWhisper,
    setting: Setting,
    decoding: str,
    clips: Sequence[Recording],
    long: Sequence[Recording],
) -> list[Row]:
    """One over all clips, one for each long file."""
    how = DECODINGS[decoding]
    sets = {f"{len(clips)} clips": clips} | {one.name: [one] for one in long if how.timestamps}
    rows = []
    for what, recordings in sets.items():
        shown = track(
            recordings, f"{name}, {setting}, {decoding}, {what}", console=console(stderr=True), transient=True
        )
        pairs = [
            (
                transcribe(model, setting.audio_context, one.samples, how),
                theirs.transcribe(one.samples, how.beam_size, how.timestamps, how.words),
            )
            for one in shown
        ]
        rows.append(score(name, str(setting), decoding, what, recordings, pairs))
    return rows


def transcribe(model: WhisperModel, audio_context: str, samples: npt.NDArray[np.float32], how: Decoding) -> Said:
    """By this engine."""
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
    return Said(
        "".join(segment.text for segment in segments),
        [token for segment in segments for token in segment.tokens],
        [(segment.start, segment.end) for segment in segments],
        [(word.word, word.start, word.end) for segment in segments for word in segment.words or ()],
    )


def score(
    model: str,
    setting: str,
    decoding: str,
    what: str,
    recordings: Sequence[Recording],
    pairs: Sequence[tuple[Said, Said]],
) -> Row:
    """Of (ours, theirs) for each recording."""
    ours, theirs = [mine.text for mine, _ in pairs], [other.text for _, other in pairs]
    references = [one.reference for one in recordings if one.reference is not None]
    known = len(references) == len(recordings)
    return Row(
        model=model,
        setting=setting,
        decoding=decoding,
        what=what,
        recordings=len(recordings),
        different=[
            one.name for one, (mine, other) in zip(recordings, pairs, strict=True) if mine.tokens != other.tokens
        ],
        near=near(pairs),
        apart=word_error_rate(theirs, ours),
        word_error_rate=word_error_rate(references, ours) if known else None,
        their_word_error_rate=word_error_rate(references, theirs) if known else None,
        disordered=sum(misplaced(mine.spans) for mine, _ in pairs),
        their_disordered=sum(misplaced(other.spans) for _, other in pairs),
    )


def near(pairs: Sequence[tuple[Said, Said]]) -> float | None:
    """The share of starts and ends of words that are within `NEAR` of theirs."""
    within = [
        abs(mine - other) <= NEAR + 1e-6  # times are multiples of 10 ms, in binary
        for ours, theirs in pairs
        if [word for word, *_ in ours.words] == [word for word, *_ in theirs.words]
        for (_, *times), (_, *their_times) in zip(ours.words, theirs.words, strict=True)
        for mine, other in zip(times, their_times, strict=True)
    ]
    return 100 * sum(within) / len(within) if within else None


def _table(model: str, rows: Sequence[Row]) -> Table:
    table = Table(model, "", "", box=None, pad_edge=False)
    for heading in ("same tokens", "near %", "apart %", "WER %", "openai's", "disordered", "openai's"):
        table.add_column(heading, justify="right")
    for row in rows:
        rates = (row.near, row.apart, row.word_error_rate, row.their_word_error_rate)
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
    parser.add_argument("--clips", type=int, metavar="N", help="the first N only; the joined file has them all")
    parser.add_argument("--model", action="append", help="repeatable (default: tiny.en)")
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
        help="plain: without timestamps; repeatable (default: all)",
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, and which tokens differ")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        default=WORK,
        help="converted weights, and what openai-whisper said (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
