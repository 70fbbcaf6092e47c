"""transformers' own way from samples to text: its feature extractor, its encoder, its `generate`.

The oracle the engine's tests hold against, and the peer its benchmark stands beside. Nothing here is routed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
from transformers.utils import logging

from tilewhisper.models import checkpoint
from tilewhisper.models.audio import SAMPLE_RATE


@dataclass(frozen=True)
class Generated:
    """Tokens without prompt and end-of-text, and their text."""

    tokens: tuple[int, ...]
    text: str


class TransformersWhisper:
    """A model of its own, unrouted. Raises ModelsError as `checkpoint.load` does."""

    def __init__(self, name_or_path: str | Path) -> None:
        loaded = checkpoint.load(name_or_path)
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self._extractor = WhisperFeatureExtractor(feature_size=loaded.model.config.num_mel_bins)

    def log_mel(self, samples: npt.NDArray[np.float32]) -> Tensor:
        """Samples (n,) at 16 kHz to (1, n_mels, frames): 3000 frames up to 30 s, as many as there are beyond."""
        long = len(samples) > self._extractor.n_samples
        whole: dict[str, Any] = {"truncation": False, "padding": "longest"} if long else {}
        features: Tensor = self._extractor(
            samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", **whole
        ).input_features
        return features

    @torch.inference_mode()
    def states(self, mel: Tensor) -> Tensor:
        """(batch, n_mels, 3000) to the encoder's states (batch, 1500, d_model)."""
        states: Tensor = self.model.model.encoder(mel).last_hidden_state
        return states

    @torch.inference_mode()
    def detect_language(self, mel: Tensor) -> str:
        """The code of the likeliest language of one window (1, n_mels, 3000)."""
        token = int(self.model.detect_language(mel)[0])
        return next(code for code, i in self.tokenizer.languages.items() if i == token)

    @torch.inference_mode()
    def generate(
        self,
        samples: npt.NDArray[np.float32],
        language: str | None,
        task: str = "transcribe",
        timestamps: bool = True,
        max_new_tokens: int = 224,
    ) -> Generated:
        """Greedy tokens of samples (n,) at 16 kHz; beyond 30 s by transformers' own sequential windows."""
        spoken: dict[str, Any] = {"language": language, "task": task} if self.tokenizer.is_multilingual else {}
        mel = self.log_mel(samples)
        with _quiet():
            output = self.model.generate(
                mel,
                attention_mask=torch.ones(mel.shape[0], mel.shape[2], dtype=torch.long),
                return_timestamps=timestamps,
                num_beams=1,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                **spoken,
            )
        tokens = tuple(token for token in output[0].tolist() if token != self.tokenizer.eot)
        return Generated(tokens, self.tokenizer.decode(tokens))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep `generate` from warning, at every call, of settings that it makes itself."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def normalizer() -> Callable[[str], str]:
    """Whisper's normalisation of English text for error rates, without its table of British spellings."""
    normalize: Callable[[str], str] = EnglishTextNormalizer({})
    return normalize
