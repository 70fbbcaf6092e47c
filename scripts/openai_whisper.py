"""openai-whisper on this project's weights in float32, the oracle of transcripts. It is slow: what it says is kept.

A result lies under `WEIGHTS/openai-whisper-VERSION/DECODING/`, by a hash of its samples, and is written whole or not at
all: a run that is interrupted goes on where it was.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from peers.base import PeerError
from peers.weights import Workshop

PACKAGE = "openai-whisper"


@dataclass(frozen=True)
class Said:
    """What an engine makes of a recording; times in seconds."""

    text: str
    tokens: list[int]
    """Timestamps included, without prompts and end-of-text."""
    spans: list[tuple[float, float]]
    """Of each segment."""
    words: list[tuple[str, float, float]]
    """Empty where they were not asked for."""

    @classmethod
    def of(cls, kept: dict[str, Any]) -> "Said":
        """From JSON, which has lists for pairs."""
        spans, words = ([tuple(one) for one in kept[name]] for name in ("spans", "words"))
        return cls(kept["text"], kept["tokens"], spans, words)


class OpenAIWhisper:
    """One model, loaded when something is to be transcribed that is not known yet. Raises PeerError and ModelsError."""

    def __init__(self, model: str, workshop: Workshop) -> None:
        self._name = model
        self._weights = Path(workshop.weights(model, "openai-float32"))
        self._kept = self._weights.parent / f"{PACKAGE}-{installed_version()}"
        self._model: Any = None

    def transcribe(self, samples: npt.NDArray[np.float32], beam_size: int, timestamps: bool, words: bool) -> Said:
        """English samples (n,) at 16 kHz, at temperature 0 alone; a beam of 1 is greedy."""
        decoding = f"beam{beam_size}" + "-timestamps" * timestamps + "-words" * words
        kept = self._kept / decoding / f"{hashlib.sha256(samples.tobytes()).hexdigest()[:16]}.json"
        if not kept.exists():
            said = self._transcribe(samples, beam_size, timestamps, words)
            kept.parent.mkdir(parents=True, exist_ok=True)
            unfinished = kept.with_suffix(".part")
            unfinished.write_text(json.dumps(asdict(said)), encoding="utf-8")
            unfinished.replace(kept)
        return Said.of(json.loads(kept.read_text(encoding="utf-8")))

    def _transcribe(self, samples: npt.NDArray[np.float32], beam_size: int, timestamps: bool, words: bool) -> Said:
        import whisper

        if self._model is None:
            self._model = whisper.load_model(str(self._weights), "cpu")
            # A file has none of these, and by default all heads of the upper layers would time the words.
            self._model.set_alignment_heads(whisper._ALIGNMENT_HEADS[self._name])
        result = whisper.transcribe(
            self._model,
            samples,
            language="en",
            temperature=0.0,
            fp16=False,
            beam_size=None if beam_size == 1 else beam_size,
            without_timestamps=not timestamps,
            word_timestamps=words,
        )
        segments = result["segments"]
        return Said(
            result["text"],
            [token for segment in segments for token in segment["tokens"]],
            [(float(segment["start"]), float(segment["end"])) for segment in segments],
            [
                (word["word"], float(word["start"]), float(word["end"]))
                for segment in segments
                for word in segment.get("words", ())
            ],
        )


def installed_version() -> str:
    """Raises PeerError where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError as error:
        raise PeerError(f"{PACKAGE} is not installed: pip install {PACKAGE}==20250625") from error
