"""Transcripts as files, in openai-whisper's formats. A file is written whole or not at all."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from tilewhisper.engine.results import Segment, TranscriptionInfo

Writer = Callable[[Sequence[Segment], TranscriptionInfo], str]

_JSON_KEYS = (
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


def txt(segments: Sequence[Segment], info: TranscriptionInfo) -> str:
    """The text of a segment a line."""
    return "".join(f"{segment.text.strip()}\n" for segment in segments)


def to_json(segments: Sequence[Segment], info: TranscriptionInfo) -> str:
    """One line: the whole text, the segments, the language."""
    result = {
        "text": "".join(segment.text for segment in segments),
        "segments": [{key: getattr(segment, key) for key in _JSON_KEYS} for segment in segments],
        "language": info.language,
    }
    return json.dumps(result)


WRITERS: dict[str, Writer] = {"txt": txt, "json": to_json}


def write_whole(path: Path, text: str) -> None:
    """Put `text` at `path` by way of a temporary file beside it. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
