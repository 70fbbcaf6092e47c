"""openai-whisper on this project's weights in float32: the oracle of transcripts, with cached results.

It is slow, so a result is stored under `WEIGHTS/openai-whisper-VERSION/DECODING/`, named by a hash of its samples.
Writing is atomic, so that an interrupted run continues where it stopped.
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
class Transcription:
    """An engine's result for a recording; times in seconds."""

    text: str
    tokens: list[int]
    """Timestamps included, without prompts and end-of-text."""
    spans: list[tuple[float, float]]
    """(start, end) of each segment."""
    words: list[tuple[str, float, float]]
    """(word, start, end); empty without word timestamps."""

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "Transcription":
        """Restore the tuples that JSON turns into lists."""
        spans, words = ([tuple(item) for item in stored[name]] for name in ("spans", "words"))
        return cls(stored["text"], stored["tokens"], spans, words)


class OpenAIWhisper:
    """One model, loaded at the first result that is not cached. Raises PeerError and ModelsError."""

    def __init__(self, model: str, workshop: Workshop) -> None:
        self._name = model
        self._weights = Path(workshop.weights(model, "openai float32"))
        self._cache = self._weights.parents[1] / f"{PACKAGE}-{installed_version()}"
        self._model: Any = None

    def transcribe(
        self, samples: npt.NDArray[np.float32], beam_size: int, timestamps: bool, words: bool
    ) -> Transcription:
        """Transcribe English samples (n,) at 16 kHz, at temperature 0 only; a beam size of 1 is greedy."""
        decoding = f"beam{beam_size}" + "-timestamps" * timestamps + "-words" * words
        file = self._cache / decoding / f"{hashlib.sha256(samples.tobytes()).hexdigest()[:16]}.json"
        if not file.exists():
            transcription = self._transcribe(samples, beam_size, timestamps, words)
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".part")
            unfinished.write_text(json.dumps(asdict(transcription)), encoding="utf-8")
            unfinished.replace(file)
        return Transcription.from_json(json.loads(file.read_text(encoding="utf-8")))

    def _transcribe(
        self, samples: npt.NDArray[np.float32], beam_size: int, timestamps: bool, words: bool
    ) -> Transcription:
        import whisper

        if self._model is None:
            self._model = whisper.load_model(str(self._weights), "cpu")
            # The file does not contain them, and by default all heads of the upper layers would be used.
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
        return Transcription(
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
    """Return the installed version. Raises PeerError where it is not installed."""
    try:
        return version(PACKAGE)
    except PackageNotFoundError as error:
        raise PeerError(f"{PACKAGE} is not installed: pip install {PACKAGE}==20250625") from error
