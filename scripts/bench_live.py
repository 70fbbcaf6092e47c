"""Measure live transcription: delay, quality and cost of clips that are fed in real time as chunks of 100 ms.

    python scripts/bench_live.py ../shared/data/librispeech --long ../shared/data/long --json live.json

Speech begins where silero-vad's first span of a clip begins, and ends where its last span ends, without padding and
with spans ended by 0.1 s of silence. The delay is the time from the end of speech to the moment when the clip's last
word is final. The delay of phrases is the same for every span followed by at least 0.5 s of silence, or by the end: the
last word that ends by then. Word error rates are of the clips that have a transcript; whole files are decoded with the
defaults. Busy is the time spent in calls of the engine, by all threads of the process together its CPU seconds.

Takes as long as the clips, and again for the peer, whose package is `pip install --no-deps whisper-streaming`. Needs
tilewhisper[vad,bench,peers].
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from clips import read_clips
from live_bench.runs import Outcome, Run, Samples, ours
from peers.base import PeerError
from peers.weights import WORK, Workshop
from quality import word_error_rate
from rich.table import Table

from tilewhisper import WhisperModel, decode_audio
from tilewhisper.engine.commands.files import output_file
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import USER_ERRORS
from tilewhisper.engine.output.files import write_whole
from tilewhisper.engine.report import machine
from tilewhisper.models.audio.vad import SpeechSpan, speech_probabilities, speech_spans
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLE_RATE

PHRASE_PAUSE = SAMPLE_RATE // 2
WORD_TOLERANCE = 0.2
"""Seconds by which a word may end after its span: alignment is no exacter."""
TARGETS = "targets: delay <= 250 ms, first text <= 700 ms, word errors within 1.0 of the whole file, busy < 25 %"


@dataclass(frozen=True)
class Recording:
    name: str
    samples: Samples
    reference: str | None
    spans: Sequence[SpeechSpan]

    @property
    def seconds(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class Figures:
    """Of one engine; delays are (lower quartile, median, upper quartile) in milliseconds."""

    engine: str
    final_delay_ms: tuple[float, float, float]
    phrase_delay_ms: tuple[float, float, float]
    first_text_ms: tuple[float, float, float]
    word_error_rate: float | None
    busy_share: float | None
    """Seconds that calls took per second of audio; None for an engine that works in threads of its own."""
    cpu_share: float
    """CPU seconds per second of audio."""
    revisions_per_minute: float
    """Words of partial text that were shown and then changed or vanished."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        torch.set_num_threads(args.threads)
        recordings = _recordings(args)
        model = WhisperModel(args.model, policy=args.policy, cpu_threads=args.threads)
        whole = _whole_files(model, recordings, args.language)
        engines: dict[str, Run] = {"tilewhisper": ours(model, args.language)}
        if args.peer != "none":
            engines["faster-whisper, whisper-streaming"] = _peer(args)
        figures = [_measured(name, run, recordings) for name, run in engines.items()]
    except (*USER_ERRORS, PeerError, OSError, ValueError) as error:
        say(console(stderr=True), f"bench_live.py: error: {error}")
        return 2
    _show(figures, whole, recordings, args)
    if args.json:
        content = {
            "whole_file_word_error_rate": whole,
            "figures": [asdict(each) for each in figures],
            "clips": len(recordings),
            "audio_seconds": sum(recording.seconds for recording in recordings),
            "options": {key: str(value) for key, value in vars(args).items()},
            "machine": asdict(machine()),
            "packages": _packages(args.peer),
        }
        write_whole(args.json, json.dumps(content, indent=1) + "\n")
    return 0


def _recordings(args: argparse.Namespace) -> list[Recording]:
    """Raises OSError, ValueError and ModelsError."""
    clips = [(clip.file, clip.reference) for clip in read_clips(args.folder)][: args.clips]
    files: list[tuple[Path, str | None]] = [*clips]
    if args.long:
        files += [(file, None) for file in sorted(args.long.glob("*.wav"))]
    found = []
    for file, reference in files:
        samples = decode_audio(str(file))
        options = VadOptions(min_silence_duration_ms=100, speech_pad_ms=0)
        if spans := speech_spans(speech_probabilities([samples]), len(samples), options):
            found.append(Recording(file.name, samples, reference, spans))
    return found


def _whole_files(model: WhisperModel, recordings: Sequence[Recording], language: str) -> float | None:
    with_reference = [recording for recording in recordings if recording.reference]
    files = [recording.samples for recording in with_reference]
    transcripts = model.transcribe_many(files, language=language)
    texts = ["".join(segment.text for segment in transcript.segments) for transcript in transcripts]
    return _word_errors([recording.reference or "" for recording in with_reference], texts)


def _word_errors(references: Sequence[str], texts: Sequence[str]) -> float | None:
    return word_error_rate(references, texts) if references else None


def _peer(args: argparse.Namespace) -> Run:
    """Raises PeerError."""
    try:
        from live_bench.whisper_streaming_peer import peer

        return peer(Path(Workshop(WORK).weights(args.model, "CTranslate2 float16")), args.threads, args.language)
    except ImportError as error:
        raise PeerError(f"{error}: pip install --no-deps whisper-streaming, or --peer none") from error


def _measured(name: str, run: Run, recordings: Sequence[Recording]) -> Figures:
    run(recordings[0].samples)  # warm-up
    outcomes = [run(recording.samples) for recording in recordings]
    both = list(zip(recordings, outcomes, strict=True))
    delays = [result.final[-1][1] - recording.spans[-1].end / SAMPLE_RATE for recording, result in both if result.final]
    first = [
        result.first_text - recording.spans[0].start / SAMPLE_RATE
        for recording, result in both
        if result.first_text is not None
    ]
    scored = [(recording.reference, result.text) for recording, result in both if recording.reference]
    seconds = sum(recording.seconds for recording in recordings)
    return Figures(
        engine=name,
        final_delay_ms=_quartiles(delays),
        phrase_delay_ms=_quartiles(
            [delay for recording, result in both for delay in _phrase_delays(recording, result)]
        ),
        first_text_ms=_quartiles(first),
        word_error_rate=_word_errors([reference for reference, _ in scored], [text for _, text in scored]),
        busy_share=_share([result.busy_seconds for result in outcomes], seconds),
        cpu_share=sum(result.cpu_seconds for result in outcomes) / seconds,
        revisions_per_minute=60 * sum(result.revisions for result in outcomes) / seconds,
    )


def _phrase_delays(recording: Recording, outcome: Outcome) -> list[float]:
    """For each phrase: from its end to the moment when its last word was final."""
    delays = []
    starts = [span.start for span in recording.spans[1:]] + [len(recording.samples) + PHRASE_PAUSE]
    for span, next_start in zip(recording.spans, starts, strict=True):
        end = span.end / SAMPLE_RATE
        finals = [now for word_end, now in outcome.final if word_end <= end + WORD_TOLERANCE]
        if next_start - span.end >= PHRASE_PAUSE and finals:
            delays.append(max(finals) - end)
    return delays


def _quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    if len(seconds) < 2:
        value = 1000 * seconds[0] if seconds else float("nan")
        return value, value, value
    low, middle, high = (1000 * value for value in statistics.quantiles(seconds, method="inclusive"))
    return low, middle, high


def _show(
    figures: Sequence[Figures], whole: float | None, recordings: Sequence[Recording], args: argparse.Namespace
) -> None:
    table = Table("", *(each.engine for each in figures))
    rows: Mapping[str, Any] = {
        "end of speech to final text, ms: median (quartiles)": lambda each: _spread(each.final_delay_ms),
        "end of a phrase to its final text, ms": lambda each: _spread(each.phrase_delay_ms),
        "start of speech to first text, ms": lambda each: _spread(each.first_text_ms),
        "word error rate, %": lambda each: _number(each.word_error_rate),
        "busy seconds per second of audio": lambda each: _number(each.busy_share),
        "CPU seconds per second of audio": lambda each: f"{each.cpu_share:.3f}",
        "revised words of partial text per minute": lambda each: f"{each.revisions_per_minute:.1f}",
    }
    for title, value in rows.items():
        table.add_row(title, *(value(each) for each in figures))
    out = console()
    out.print(table)
    say(out, f"word error rate of whole-file decoding: {_number(whole)} %; {TARGETS}")
    seconds = sum(recording.seconds for recording in recordings)
    this = machine()
    say(
        out,
        f"{len(recordings)} clips, {seconds:.0f} s; {args.model}, policy {args.policy}, {args.threads} threads; "
        f"{this.cpu}, {os.cpu_count()} cores; {', '.join(f'{k} {v}' for k, v in _packages(args.peer).items())}",
    )


def _spread(values: tuple[float, float, float]) -> str:
    return f"{values[1]:.0f} ({values[0]:.0f} to {values[2]:.0f})"


def _share(busy: Sequence[float | None], seconds: float) -> float | None:
    known = [each for each in busy if each is not None]
    return sum(known) / seconds if known else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _packages(peer: str) -> dict[str, str]:
    names = ["tilewhisper", "torch", "silero-vad"]
    if peer != "none":
        names += ["whisper-streaming", "faster-whisper", "ctranslate2"]
    return {name: version(name) for name in names}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="clips with transcripts.tsv")
    parser.add_argument("--long", type=Path, help="a folder of longer .wav files without transcripts")
    parser.add_argument("--clips", type=int, help="only the first N clips")
    parser.add_argument("--model", default="base")
    parser.add_argument("--policy", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--language", default="en")
    parser.add_argument("--peer", choices=("whisper-streaming", "none"), default="whisper-streaming")
    parser.add_argument("--json", type=output_file, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
