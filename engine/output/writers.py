"""Output formats of transcripts, byte for byte as openai-whisper writes them; jsonl is our own.

A format is one subclass of `Writer` and its entry in `WRITERS`, from which every list of formats is derived, the
command line's included.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

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


class Writer(ABC):
    """An output format."""

    name: ClassVar[str]
    """The format's name on the command line, and its files' extension."""

    @abstractmethod
    def render(self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
        """The content of a transcript's file. `options` only concern the subtitle formats."""


class GrowingWriter(Writer):
    """A format whose file is written segment by segment, while the rest is still being decoded."""

    @abstractmethod
    def line(self, segment: Segment) -> str:
        """A segment's line, with its line break."""

    def render(self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
        return "".join(map(self.line, segments))


class Text(Writer):
    """Plain text: a line per segment."""

    name = "txt"

    def render(self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
        return "".join(f"{segment.text.strip()}\n" for segment in segments)


class WebVtt(Writer):
    """WebVTT: minutes and seconds, hours only above 0."""

    name = "vtt"

    def render(self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
        return "WEBVTT\n\n" + "".join(
            f"{_timestamp(one.start)} --> {_timestamp(one.end)}\n{one.text}\n\n" for one in subtitles(segments, options)
        )


class SubRip(Writer):
    """SubRip: numbered from 1, always with hours, a comma before the milliseconds."""

    name = "srt"

    def render(self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
        return "".join(
            f"{number}\n{_timestamp(one.start, True, ',')} --> {_timestamp(one.end, True, ',')}\n{one.text}\n\n"
            for number, one in enumerate(subtitles(segments, options), start=1)
        )


class TabSeparated(Writer):
    """Tab-separated values: start and end in whole milliseconds, and the text, without tabs."""

    name = "tsv"

    def render(self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
        return "start\tend\ttext\n" + "".join(
            f"{milliseconds(one.start)}\t{milliseconds(one.end)}\t{_without_tabs(one.text)}\n" for one in segments
        )


class Json(Writer):
    """JSON on one line: the whole text, the segments and the language."""

    name = "json"

    def render(self, segments: Sequence[Segment], info: TranscriptionInfo, options: SubtitleOptions = PLAIN) -> str:
        result = {
            "text": "".join(segment.text for segment in segments),
            "segments": [segment_fields(segment) for segment in segments],
            "language": info.language,
        }
        return json.dumps(result)


class JsonLines(GrowingWriter):
    """JSON Lines: each line is a segment as in `Json`."""

    name = "jsonl"

    def line(self, segment: Segment) -> str:
        return json.dumps(segment_fields(segment)) + "\n"


WRITERS: Mapping[str, Writer] = {
    writer.name: writer for writer in (Text(), WebVtt(), SubRip(), TabSeparated(), Json(), JsonLines())
}
"""The output formats by name."""


def timed_line(segment: Segment) -> str:
    """A segment with its times, as openai-whisper's command prints it."""
    return f"[{format_timestamp(segment.start)} --> {format_timestamp(segment.end)}] {segment.text}"


class GrowingFile:
    """A file that grows segment by segment. It always ends with a complete line, even after an error.

    Opening it replaces an older file of its name. Raises OSError.
    """

    def __init__(self, path: Path, writer: GrowingWriter) -> None:
        self._writer = writer
        # Unbuffered: a line can be read as soon as it is written, and closing the file cannot fail for a lack of space.
        self._file = path.open("wb", buffering=0)

    def write(self, segment: Segment) -> None:
        end = self._file.tell()
        rest = self._writer.line(segment).encode()
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


def format_timestamp(seconds: float, always_include_hours: bool = False, decimal_marker: str = ".") -> str:
    """Seconds as `[HH:]MM:SS.mmm`, hours only above 0 unless always included; openai-whisper's signature."""
    return _timestamp(milliseconds(seconds), always_include_hours, decimal_marker)


def _timestamp(milliseconds: int, always_include_hours: bool = False, decimal_marker: str = ".") -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours:02}:" if always_include_hours or hours else ""
    return f"{head}{minutes:02}:{seconds:02}{decimal_marker}{rest:03}"


def segment_fields(segment: Segment) -> dict[str, Any]:
    """A segment as in openai-whisper's JSON."""
    fields: dict[str, Any] = {key: getattr(segment, key) for key in _SEGMENT_KEYS}
    if segment.words is not None:
        fields["words"] = [_word(word) for word in segment.words]
    return fields


def _word(word: Word) -> dict[str, Any]:
    return {key: getattr(word, key) for key in _WORD_KEYS}


def _without_tabs(text: str) -> str:
    return text.strip().replace("\t", " ")
