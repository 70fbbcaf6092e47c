"""Transcripts as files, byte for byte as openai-whisper writes them; jsonl is a format of our own.

A file is written whole or not at all, except jsonl, which may grow segment by segment, a whole line at a time.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from tilewhisper.engine.output.subtitles import PLAIN, SubtitleOptions, milliseconds, subtitles
from tilewhisper.engine.results import Segment, TranscriptionInfo, Word

_SEGMENT_KEYS = (
    "id",
    "seek",
    "start",
    "end",
    "text",
    "tokens",
    "temperature",
    "avg_logprob",
    "compression_ratio",
    "no_speech_prob",
)
_WORD_KEYS = ("word", "start", "end", "probability")


class Writer(Protocol):
    """A transcript to the content of a file. The options are for subtitles; other formats take no notice of them."""

    def __call__(
        self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN
    ) -> str: ...


def txt(segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
    """The text of a segment a line."""
    return "".join(f"{segment.text.strip()}\n" for segment in segments)


def vtt(segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
    """WebVTT: minutes and seconds, hours where there are any."""
    return "WEBVTT\n\n" + "".join(
        f"{_vtt_time(one.start)} --> {_vtt_time(one.end)}\n{one.text}\n\n" for one in subtitles(segments, options)
    )


def srt(segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
    """SubRip: numbered from 1, hours always, a comma before the milliseconds."""
    return "".join(
        f"{number}\n{_srt_time(one.start)} --> {_srt_time(one.end)}\n{one.text}\n\n"
        for number, one in enumerate(subtitles(segments, options), start=1)
    )


def tsv(segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
    """Start and end in whole milliseconds, and the text, which has no tab in it."""
    return "start\tend\ttext\n" + "".join(
        f"{milliseconds(one.start)}\t{milliseconds(one.end)}\t{_without_tabs(one.text)}\n" for one in segments
    )


def to_json(segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
    """One line: the whole text, the segments, the language."""
    result = {
        "text": "".join(segment.text for segment in segments),
        "segments": [_segment(segment) for segment in segments],
        "language": info.language,
    }
    return json.dumps(result)


def jsonl(segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
    """The segments as in json, one a line."""
    return "".join(_json_line(segment) for segment in segments)


WRITERS: dict[str, Writer] = {"txt": txt, "vtt": vtt, "srt": srt, "tsv": tsv, "json": to_json, "jsonl": jsonl}


def timed_line(segment: Segment) -> str:
    """A segment as openai-whisper's command shows it."""
    start, end = (_vtt_time(milliseconds(seconds)) for seconds in (segment.start, segment.end))
    return f"[{start} --> {end}] {segment.text}"


class JsonLines:
    """A jsonl file that grows as segments come. At every moment, and whatever stops it, it ends with a whole line.

    Takes the place of an older file of its name at once. Raises OSError.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: a line is there to be read as soon as it is written, and nothing is left for later to fail.
        self._file = path.open("wb", buffering=0)

    def write(self, segment: Segment) -> None:
        end = self._file.tell()
        rest = _json_line(segment).encode()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except BaseException:
            self._file.truncate(end)
            self._file.seek(end)
            raise

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_whole(path: Path, text: str) -> None:
    """Put `text` at `path` by way of a temporary file beside it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _json_line(segment: Segment) -> str:
    return json.dumps(_segment(segment)) + "\n"


def _segment(segment: Segment) -> dict[str, Any]:
    fields: dict[str, Any] = {key: getattr(segment, key) for key in _SEGMENT_KEYS}
    if segment.words is not None:
        fields["words"] = [_word(word) for word in segment.words]
    return fields


def _word(word: Word) -> dict[str, Any]:
    return {key: getattr(word, key) for key in _WORD_KEYS}


def _without_tabs(text: str) -> str:
    return text.strip().replace("\t", " ")


def _clock(milliseconds: int) -> tuple[int, int, int, int]:
    """Hours, minutes, seconds, milliseconds."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return *divmod(minutes, 60), seconds, milliseconds


def _srt_time(milliseconds: int) -> str:
    hours, minutes, seconds, rest = _clock(milliseconds)
    return f"{hours:02}:{minutes:02}:{seconds:02},{rest:03}"


def _vtt_time(milliseconds: int) -> str:
    hours, minutes, seconds, rest = _clock(milliseconds)
    return (f"{hours:02}:" if hours else "") + f"{minutes:02}:{seconds:02}.{rest:03}"


def format_timestamp(seconds: float, always_include_hours: bool = False, decimal_marker: str = ".") -> str:
    """Seconds as `[HH:]MM:SS.mmm`, hours only above 0 unless always included; openai-whisper's signature."""
    hours, minutes, whole, rest = _clock(milliseconds(seconds))
    head = f"{hours:02}:" if always_include_hours or hours else ""
    return f"{head}{minutes:02}:{whole:02}{decimal_marker}{rest:03}"
