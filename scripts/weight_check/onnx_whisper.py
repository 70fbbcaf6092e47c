"""Greedy decoding of a folder of ONNX models with ONNX Runtime: one window, without timestamps."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch

from tilewhisper.models.audio.log_mel import LogMel
from tilewhisper.models.checkpoint.loader import Checkpoint

Array = npt.NDArray[Any]


class OnnxWhisper:
    """The encoder and both decoders, with the settings of the checkpoint that they were written from."""

    def __init__(self, folder: Path, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        names = ("encoder_model", "decoder_model", "decoder_with_past_model")
        self._encoder, self._first, self._next = (
            onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"]) for name in names
        )
        self._dtype = np.float16 if self._encoder.get_inputs()[0].type == "tensor(float16)" else np.float32

    def encode(self, mel: torch.Tensor) -> Array:
        """Log-mel (batch, n_mels, 3000) to states (batch, 1500, width)."""
        (states,) = self._encoder.run(None, {"input_features": mel.numpy().astype(self._dtype)})
        return np.asarray(states)

    def decode(self, samples: npt.NDArray[np.float32]) -> list[int]:
        """English samples (n,) at 16 kHz, up to 30 s, to text tokens."""
        checkpoint = self._checkpoint
        tokenizer, settings = checkpoint.tokenizer, checkpoint.generation_config
        prompt = tokenizer.prompt("en" if tokenizer.is_multilingual else None, "transcribe", timestamps=False)
        states = self.encode(first_window(samples, checkpoint))
        outputs = _run(self._first, {"input_ids": np.array([prompt]), "encoder_hidden_states": states})
        never = [*settings.suppress_tokens, *range(tokenizer.no_timestamps, tokenizer.n_vocab)]
        cache: dict[str, Array] = {}
        tokens: list[int] = []
        while len(prompt) + len(tokens) < checkpoint.model.config.max_target_positions:
            logits = outputs.pop("logits")[0, -1].astype(np.float32)
            logits[[*never, *(() if tokens else settings.begin_suppress_tokens)]] = -np.inf
            if (token := int(logits.argmax())) == tokenizer.eot:
                break
            tokens.append(token)
            cache |= {name.replace("present", "past_key_values"): value for name, value in outputs.items()}
            outputs = _run(self._next, {"input_ids": np.array([[token]]), **cache})
        return tokens


def first_window(samples: npt.NDArray[np.float32], checkpoint: Checkpoint) -> torch.Tensor:
    """The log-mel (1, n_mels, 3000) of up to 30 s, padded as in this engine's transcriptions."""
    mel = LogMel(checkpoint.model.config.num_mel_bins)
    mel.append(samples)
    mel.finish()
    return mel.window(0)[None]


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
