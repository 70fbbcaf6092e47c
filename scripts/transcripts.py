"""Compare settings of policy and audio context: errors, agreement with the first setting, timestamps, time.

    python scripts/transcripts.py ../shared/data/librispeech ../shared/data/languages --model tiny.en --model base

Each folder holds clips and their `transcripts.tsv` (see clips.py). A setting is POLICY/AUDIO_CONTEXT. After a warm-up,
all settings transcribe each clip in alternation in one process, so that a change of clock speed affects all alike.
Errors are counted in words (WER) where all clips of a folder are English, else in characters (CER).
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clips import Clip, read_clips
from rich.progress import track
from rich.table import Table
from transcript_scores import Outcome, Row, Setting, score

from tilewhisper import WhisperModel
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.report import machine
from tilewhisper.models.checkpoint.locate import locate

SETTINGS = ("torch/full", "cpu/full", "cpu/sparse:4", "cpu/sparse:8", "cpu/silent")
LOOP = 2.4  # compression ratio by zlib, Whisper's own bound: text that repeats itself is above it
LEGEND = (
    "same text: as the first setting's; ends: seconds between segment ends and the first setting's, where text and "
    "number of segments are the same; disordered: segments that start before the previous segment's end or have no "
    f"length; in full: windows re-encoded with full context; loops: clips with a compression ratio above {LOOP}"
)


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
    """Run every model over every folder. Each model's table is printed when it is done, the JSON at the end."""
    options = {"beam_size": args.beam_size, "without_timestamps": args.without_timestamps, "temperature": 0.0}
    TranscriptionOptions(**options)  # validates the options before anything is loaded
    settings = [Setting.parse(text) for text in dict.fromkeys(args.setting or SETTINGS)]
    folders = {folder: read_clips(folder) for folder in dict.fromkeys(args.folder)}
    names = list(dict.fromkeys(args.model or ["tiny.en"]))
    for name in names:
        locate(name)
    screen = console()
    rows: list[Row] = []
    for name in names:
        model_rows, notes = run_model(name, settings, folders, options, args.threads)
        screen.print(_table(name, model_rows))
        for note in notes:
            say(screen, note)
        rows += model_rows
    about = machine()
    say(screen, LEGEND)
    say(screen, f"{_describe(options)}; {about.threads} threads of {about.cpu}; torch {about.packages['torch']}")
    if args.json:
        result = {"machine": asdict(about), "options": options, "rows": [asdict(row) for row in rows]}
        write_whole(args.json, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return 0


def run_model(
    name: str,
    settings: Sequence[Setting],
    folders: Mapping[Path, Sequence[Clip]],
    options: Mapping[str, Any],
    threads: int,
) -> tuple[list[Row], list[str]]:
    """Run one model over every folder; return its rows, and notes on skipped clips and on backends."""
    rows: list[Row] = []
    notes: list[str] = []
    with ExitStack() as stack:
        models = {
            policy: stack.enter_context(WhisperModel(name, policy=policy, cpu_threads=threads))
            for policy in dict.fromkeys(setting.policy for setting in settings)
        }
        for folder, clips in folders.items():
            supported = supported_clips(models[settings[0].policy], clips)
            if skipped := len(clips) - len(supported):
                notes.append(f"{name} is English-only: {skipped} of {len(clips)} clips of {folder} left out")
            if supported:
                rows += compare(models, settings, folder.name, supported, options)
        notes += [_backends(policy, model) for policy, model in models.items()]
    return rows, notes


def supported_clips(model: WhisperModel, clips: Sequence[Clip]) -> list[Clip]:
    """Select the clips in the model's languages, with language codes. Raises LanguageError for an unknown language."""
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
    """Return one row per setting; `models` holds one model per policy."""
    outcomes: dict[Setting, list[Outcome]] = {setting: [] for setting in settings}
    name = models[settings[0].policy].checkpoint.name
    for setting in settings:
        transcribe(models[setting.policy], setting, clips[0], options)
    progress = track(clips, description=f"{name}, {folder}", console=console(stderr=True), transient=True)
    for number, clip in enumerate(progress):
        for setting in reversed(settings) if number % 2 else settings:
            outcomes[setting].append(transcribe(models[setting.policy], setting, clip, options))
    first = outcomes[settings[0]]
    return [score(name, folder, str(setting), clips, own, first) for setting, own in outcomes.items()]


def transcribe(model: WhisperModel, setting: Setting, clip: Clip, options: Mapping[str, Any]) -> Outcome:
    """Transcribe one clip under one setting."""
    run, _ = model.transcribe(clip.file, clip.language, audio_context=setting.audio_context, **options)
    segments = list(run)
    report = run.report()
    seconds = {stage.name: stage.wall_seconds for stage in report.stages}
    return Outcome(
        text="".join(segment.text for segment in segments).strip(),
        spans=[(segment.start, segment.end) for segment in segments],
        loops=any(segment.compression_ratio > LOOP for segment in segments),
        again_in_full=report.windows_reencoded,
        audio_seconds=report.audio_seconds,
        encode_seconds=seconds["encode"],
        decode_seconds=report.decoder_seconds,
        seconds=report.total.wall_seconds,
    )


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
    """Describe the backends that a policy uses on this machine."""
    decoder = model.runtime.decoder_plan
    why = f" ({decoder.fallback_reason})" if decoder.fallback_reason else ""
    return f"{policy}: encoder on {', '.join(model.backend_labels)}, decoder on {decoder.backend.label}{why}"


def _describe(options: Mapping[str, Any]) -> str:
    search = "greedy" if options["beam_size"] == 1 else f"beam search of {options['beam_size']}"
    return f"{search}, {'no ' if options['without_timestamps'] else ''}timestamps, temperature 0"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+", help="clips and their transcripts.tsv")
    parser.add_argument("--model", action="append", help="model to run; repeatable (default: tiny.en)")
    parser.add_argument(
        "--setting",
        action="append",
        metavar="POLICY/AUDIO_CONTEXT",
        help=f"repeatable; the first is the baseline of the others (default: {', '.join(SETTINGS)})",
    )
    parser.add_argument("--beam_size", type=int, default=1, metavar="N", help="1 is greedy (default: 1)")
    parser.add_argument("--without_timestamps", action="store_true", help="decode without timestamp tokens")
    parser.add_argument(
        "--threads", type=int, default=2, metavar="N", help="CPU threads; 0 is torch's default (default: 2)"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write results and differing texts as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
