"""transformers' own inference path from samples to text: its feature extractor, its encoder, its `generate`.

The oracle of the engine's tests and the peer of its benchmark. Nothing here is routed. No other module of this project
imports transformers: the import takes longer than transcribing a short clip.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
from transformers.utils import logging

from tilewhisper.models.checkpoint import loader
from tilewhisper.models.checkpoint.export import transformers
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.constants import SAMPLE_RATE


@dataclass(frozen=True)
class Generated:
    """Tokens without prompt and end-of-text, and their text."""

    tokens: tuple[int, ...]
    text: str


class TransformersWhisper:
    """An unrouted transformers model, loaded for itself. Raises ModelsError as `loader.load` does."""

    def __init__(self, name_or_path: str | Path | Source) -> None:
        loaded = loader.load(name_or_path)
        self.model = transformers_model(loaded)
        self.tokenizer = loaded.tokenizer
        self._extractor = WhisperFeatureExtractor(feature_size=loaded.model.config.num_mel_bins)

    def log_mel(self, samples: npt.NDArray[np.float32]) -> Tensor:
        """Samples (n,) at 16 kHz to (1, n_mels, frames): 3000 frames for up to 30 s, all frames of longer audio."""
        long = len(samples) > self._extractor.n_samples
        whole: dict[str, Any] = {"truncation": False, "padding": "longest"} if long else {}
        features: Tensor = self._extractor(
            samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", **whole
        ).input_features
        return features

    @torch.inference_mode()
    def states(self, mel: Tensor) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to encoder states (batch, 1500, d_model)."""
        states: Tensor = self.model.model.encoder(mel).last_hidden_state
        return states

    @torch.inference_mode()
    def detect_language(self, mel: Tensor) -> str:
        """The code of the most probable language of one log-mel window (1, n_mels, 3000)."""
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
        """Decode samples (n,) at 16 kHz greedily; beyond 30 s with transformers' own sequential windows."""
        code = None if language is None else self.tokenizer.language_code(language)
        spoken: dict[str, Any] = {"language": code, "task": task} if self.tokenizer.is_multilingual else {}
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


def transformers_model(checkpoint: Checkpoint) -> WhisperForConditionalGeneration:
    """A transformers model with the checkpoint's weights in float32, ready for `generate`."""
    config, tokenizer = checkpoint.model.config, checkpoint.tokenizer
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(WhisperConfig(**asdict(config), **transformers.token_ids(tokenizer)))
    state = {name: whole(weight) for name, weight in checkpoint.model.state_dict(keep_vars=True).items()}
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.train(False).requires_grad_(False)
    settings = transformers.generation_config(config, tokenizer, checkpoint.generation_config)
    model.generation_config = GenerationConfig(**settings)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings that `generate` gives at every call about settings it makes itself."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def normalizer() -> Callable[[str], str]:
    """Whisper's English text normalizer for word error rates, without its table of British spellings."""
    normalize: Callable[[str], str] = EnglishTextNormalizer({})
    return normalize
