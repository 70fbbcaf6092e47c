"""Language detection: the probabilities of the language tokens right after start-of-transcript."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from tilewhisper.engine.decoding.decoder import CrossKV, Decoder
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class DetectedLanguage:
    """The language of one window, and how sure the model is of it."""

    probabilities: Mapping[str, float]
    """By code, most probable first."""
    no_speech_prob: float
    """Probability of the no-speech token, out of all tokens."""

    @property
    def code(self) -> str:
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        return self.probabilities[self.code]


@torch.inference_mode()
def detect_language(decoder: Decoder, windows: Sequence[CrossKV], tokenizer: Tokenizer) -> list[DetectedLanguage]:
    """Each window's language."""
    state = decoder.start()
    state.add(windows)
    codes, ids = list(tokenizer.languages), list(tokenizer.languages.values())
    hidden = decoder.step([[tokenizer.sot]] * len(windows), state)
    logits = decoder.logits(hidden)
    decoder.make_exact(logits, hidden, [*ids, tokenizer.no_speech])
    no_speech = logits.softmax(dim=-1)[:, tokenizer.no_speech].tolist()
    probabilities = logits[:, ids].softmax(dim=-1)
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    return [
        DetectedLanguage({codes[i]: float(row[i]) for i in places}, silent)
        for row, places, silent in zip(probabilities, order.tolist(), no_speech, strict=True)
    ]
