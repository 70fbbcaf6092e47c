"""What a policy and an audio context do to transcripts: errors, agreement with the first setting, timestamps, time.

    python scripts/transcripts.py ../shared/data/librispeech ../shared/data/languages --model tiny.en --model base

Each folder holds audio files and a `transcripts.tsv` (see clips.py). A setting is POLICY/AUDIO_CONTEXT. Clip after clip
all settings take turns in one process, after a warm-up, so that a machine that slows down slows them alike. Errors are
counted in words (WER) where all of a folder's clips are English, else in characters (CER).
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from clips import Clip, read_clips
from quality import character_error_rate, misplaced, word_error_rate
from rich.progress import track
from rich.table import Table

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS, OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.report import machine
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.checkpoint.locate import locate

SETTINGS = ("torch/full", "cpu/full", "cpu/sparse:4", "cpu/sparse:8", "cpu/silent")
LOOP = 2.4  # Whisper's own bound: zlib makes text shorter than that where it repeats itself
LEGEND = (
    "same text: as the first setting's; ends: how many seconds segments end off the first setting's, where text and "
    "number of segments are the same; disordered: segments that start before the one before ends, or have no length; "
    f"in full: windows done again in full; loops: clips with a segment of compression ratio above {LOOP}"
)


@dataclass(frozen=True)
class Setting:
    """A policy's name or file, and how much of the silence is encoded."""

    policy: str
    audio_context: str

    @classmethod
    def of(cls, text: str) -> "Setting":
        """From POLICY/AUDIO_CONTEXT. Raises OptionError and PolicyError."""
        policy, _, context = text.rpartition("/")
        if not policy:
            raise OptionError(f"expected POLICY/AUDIO_CONTEXT, such as cpu/sparse:4, not {text!r}")
        load_policy(policy)
        TranscriptionOptions(audio_context=context)
        return cls(policy, context)

    def __str__(self) -> str:
        return f"{self.policy}/{self.audio_context}"


@dataclass(frozen=True)
class Outcome:
    """What came of one clip under one setting."""

    text: str
    spans: list[tuple[float, float]]
    """Seconds from and to, of each segment."""
    loops: bool
    again_in_full: int
    audio_seconds: float
    encode_seconds: float
    decode_seconds: float
    seconds: float
    """Of the whole transcription."""


@dataclass(frozen=True)
class Difference:
    """A clip that does not say what it says under the first setting."""

    file: str
    reference: str
    first: str
    text: str


@dataclass(frozen=True)
class Row:
    """One setting over one folder."""

    model: str
    folder: str
    setting: str
    clips: int
    measure: str
    """WER or CER."""
    error_rate: float
    """Percent."""
    end_mean: float | None
    """Seconds, as all times here; None where no clip's segments can be compared."""
    end_max: float | None
    ends_compared: int
    disordered: int
    again_in_full: int
    loops: int
    audio_seconds: float
    encode_seconds: float
    decode_seconds: float
    rtf: float
    different: list[Difference] = field(repr=False)

    @property
    def same_text(self) -> int:
        return self.clips - len(self.different)


COLUMNS: dict[str, Callable[[Row], str]] = {
    "clips": lambda row: str(row.clips),
    "error %": lambda row: f"{row.measure} {row.error_rate:.2f}",
    "same text": lambda row: str(row.same_text),
    "ends mean": lambda row: _seconds(row.end_mean),
    "max": lambda row: _seconds(row.end_max),
    "disordered": lambda row: str(row.disordered),
    "in full": lambda row: str(row.again_in_full),
    "loops": lambda row: str(row.loops),
    "encode s": lambda row: f"{row.encode_seconds:.2f}",
    "decode s": lambda row: f"{row.decode_seconds:.2f}",
    "RTF": lambda row: f"{row.rtf:.4f}",
}


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        return run(args)
    except (*USER_ERRORS, OSError, ValueError) as e:
        print(f"transcripts: error: {e}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Every model over every folder: a table as soon as a model is done, the JSON at the end."""
    options = {"beam_size": args.beam_size, "without_timestamps": args.without_timestamps, "temperature": 0.0}
    TranscriptionOptions(**options)  # what is out of range is said before anything is loaded
    settings = [Setting.of(text) for text in dict.fromkeys(args.setting or SETTINGS)]
    folders = {folder: read_clips(folder) for folder in dict.fromkeys(args.folder)}
    names = list(dict.fromkeys(args.model or ["tiny.en"]))
    for name in names:
        locate(name)
    screen, rows = console(), []
    for name in names:
        with ExitStack() as stack:
            models = {
                policy: stack.enter_context(WhisperModel(name, policy=policy, cpu_threads=args.threads))
                for policy in dict.fromkeys(setting.policy for setting in settings)
            }
            found, notes = [], []
            for folder, clips in folders.items():
                known = known_clips(models[settings[0].policy], clips)
                if left_out := len(clips) - len(known):
                    notes.append(f"{name} knows English only: {left_out} of {len(clips)} clips of {folder} left out")
                if known:
                    found += compare(models, settings, folder.name, known, options)
            notes += [_backends(policy, model) for policy, model in models.items()]
        screen.print(_table(name, found))
        for note in notes:
            say(screen, note)
        rows += found
    about = machine()
    say(screen, LEGEND)
    say(screen, f"{_wording(options)}; {about.threads} threads of {about.cpu}; torch {about.packages['torch']}")
    if args.json:
        whole = {"machine": asdict(about), "options": options, "rows": [asdict(row) for row in rows]}
        args.json.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def known_clips(model: WhisperModel, clips: Sequence[Clip]) -> list[Clip]:
    """Those in a language that the model knows, languages as codes. Raises LanguageError for one that is none."""
    code = model.checkpoint.tokenizer.language_code
    coded = [replace(clip, language=code(clip.language)) for clip in clips]
    return [clip for clip in coded if model.is_multilingual or clip.language == "en"]


def compare(
    models: Mapping[str, WhisperModel],
    settings: Sequence[Setting],
    folder: str,
    clips: Sequence[Clip],
    options: Mapping[str, Any],
) -> list[Row]:
    """A row a setting; `models` are one model under each policy."""
    outcomes: dict[Setting, list[Outcome]] = {setting: [] for setting in settings}
    name = models[settings[0].policy].checkpoint.name
    for setting in settings:
        transcribe(models[setting.policy], setting, clips[0], options)
    shown = track(clips, description=f"{name}, {folder}", console=console(stderr=True), transient=True)
    for number, clip in enumerate(shown):
        for setting in reversed(settings) if number % 2 else settings:
            outcomes[setting].append(transcribe(models[setting.policy], setting, clip, options))
    first = outcomes[settings[0]]
    return [score(name, folder, str(setting), clips, mine, first) for setting, mine in outcomes.items()]


def transcribe(model: WhisperModel, setting: Setting, clip: Clip, options: Mapping[str, Any]) -> Outcome:
    run, _ = model.transcribe(clip.file, clip.language, audio_context=setting.audio_context, **options)
    segments = list(run)
    report = run.report()
    seconds = {stage.name: stage.wall_seconds for stage in report.stages}
    return Outcome(
        text="".join(segment.text for segment in segments).strip(),
        spans=[(segment.start, segment.end) for segment in segments],
        loops=any(segment.compression_ratio > LOOP for segment in segments),
        again_in_full=report.windows_again_in_full,
        audio_seconds=report.audio_seconds,
        encode_seconds=seconds["encode"],
        decode_seconds=report.decoder_seconds,
        seconds=report.total.wall_seconds,
    )


def score(
    model: str, folder: str, setting: str, clips: Sequence[Clip], outcomes: Sequence[Outcome], first: Sequence[Outcome]
) -> Row:
    """`outcomes` of the clips, held against the `first` setting's."""
    english = all(clip.language == "en" for clip in clips)
    error_rate = word_error_rate if english else character_error_rate
    ends = _end_differences(outcomes, first)
    seconds = sum(one.audio_seconds for one in outcomes)
    return Row(
        model=model,
        folder=folder,
        setting=setting,
        clips=len(clips),
        measure="WER" if english else "CER",
        error_rate=error_rate([clip.reference for clip in clips], [one.text for one in outcomes]),
        end_mean=statistics.fmean(ends) if ends else None,
        end_max=max(ends, default=None),
        ends_compared=len(ends),
        disordered=sum(misplaced(one.spans) for one in outcomes),
        again_in_full=sum(one.again_in_full for one in outcomes),
        loops=sum(one.loops for one in outcomes),
        audio_seconds=seconds,
        encode_seconds=sum(one.encode_seconds for one in outcomes),
        decode_seconds=sum(one.decode_seconds for one in outcomes),
        rtf=sum(one.seconds for one in outcomes) / seconds,
        different=[
            Difference(clip.file.name, clip.reference, theirs.text, mine.text)
            for clip, mine, theirs in zip(clips, outcomes, first, strict=True)
            if mine.text != theirs.text
        ],
    )


def _end_differences(outcomes: Sequence[Outcome], first: Sequence[Outcome]) -> list[float]:
    """Of every segment, where text and number of segments are the same."""
    return [
        abs(end - their_end)
        for mine, theirs in zip(outcomes, first, strict=True)
        if mine.text == theirs.text and len(mine.spans) == len(theirs.spans)
        for (_, end), (_, their_end) in zip(mine.spans, theirs.spans, strict=True)
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(model: str, rows: Sequence[Row]) -> Table:
    table = Table(model, "", box=None, pad_edge=False)
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.setting, row.folder, *(value(row) for value in COLUMNS.values()))
    return table


def _backends(policy: str, model: WhisperModel) -> str:
    """What a policy came to on this machine."""
    decoder = model.decoder_plan
    why = f" ({decoder.fallback_reason})" if decoder.fallback_reason else ""
    return f"{policy}: encoder on {', '.join(model.backend_labels)}, decoder on {decoder.backend.label}{why}"


def _wording(options: Mapping[str, Any]) -> str:
    search = "greedy" if options["beam_size"] == 1 else f"beam search of {options['beam_size']}"
    return f"{search}, {'no ' if options['without_timestamps'] else ''}timestamps, temperature 0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="audio files and their transcripts.tsv")
    parser.add_argument("--model", action="append", help="repeatable (default: tiny.en)")
    parser.add_argument(
        "--setting",
        action="append",
        metavar="POLICY/AUDIO_CONTEXT",
        help=f"repeatable; the others are held against the first (default: {', '.join(SETTINGS)})",
    )
    parser.add_argument("--beam_size", type=int, default=1, metavar="N", help="1 is greedy (default: 1)")
    parser.add_argument("--without_timestamps", action="store_true")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="0 leaves it to torch (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, and the texts that differ")
    return parser


if __name__ == "__main__":
    sys.exit(main())
