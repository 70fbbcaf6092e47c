"""Greedy decoding of one window of English without timestamps, whatever computes the logits."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from tilewhisper.models.audio.log_mel import LogMel
from tilewhisper.models.checkpoint.loader import Checkpoint


def greedy(checkpoint: Checkpoint, next_logits: Callable[[Sequence[int]], npt.NDArray[np.float32]]) -> list[int]:
    """Text tokens; `next_logits` appends tokens to the text and returns the logits (n_vocab,) of the one after it."""
    tokenizer, settings = checkpoint.tokenizer, checkpoint.generation_config
    prompt = tokenizer.prompt("en" if tokenizer.is_multilingual else None, "transcribe", timestamps=False)
    never = [*settings.suppress_tokens, *range(tokenizer.no_timestamps, tokenizer.n_vocab)]
    tokens: list[int] = []
    new: Sequence[int] = prompt
    while len(prompt) + len(tokens) < checkpoint.model.config.max_target_positions:
        logits = next_logits(new)
        logits[[*never, *(() if tokens else settings.begin_suppress_tokens)]] = -np.inf
        if (token := int(logits.argmax())) == tokenizer.eot:
            break
        tokens.append(token)
        new = [token]
    return tokens


def first_window(samples: npt.NDArray[np.float32], checkpoint: Checkpoint) -> torch.Tensor:
    """The log-mel (1, n_mels, 3000) of up to 30 s, padded as in this engine's transcriptions."""
    mel = LogMel(checkpoint.model.config.num_mel_bins)
    mel.append(samples)
    mel.finish()
    return mel.window(0)[None]
