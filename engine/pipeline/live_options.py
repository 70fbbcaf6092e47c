"""The options of a live transcription."""

from dataclasses import dataclass, field

from tilewhisper.models.audio.vad_options import VadOptions

PHRASE_VAD = VadOptions(min_silence_duration_ms=800, speech_pad_ms=300)
"""Phrases of live speech: 0.8 s of silence ends one, and 0.3 s before its first word belong to it."""


@dataclass(frozen=True)
class LiveOptions:
    """How a stream is transcribed. Language and task are checked by the model when it decodes."""

    language: str | None = None
    """A code or an English name; None detects it in the first phrases."""
    task: str = "transcribe"
    prompt: str | None = None
    """Text shown to the model as if it came before the stream."""
    vad: VadOptions = field(default=PHRASE_VAD)
    """What counts as speech, and the silence that ends a phrase."""
    interval: float = 0.8
    """Seconds of new speech after which the open phrase is decoded again."""
