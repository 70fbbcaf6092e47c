"""Greedy decoding of a folder of ONNX models with ONNX Runtime: one window, without timestamps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from weight_check.greedy import first_window, greedy

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
        states = self.encode(first_window(samples, self._checkpoint))
        cache: dict[str, Array] = {}

        def next_logits(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            session = self._next if cache else self._first
            outputs = _run(session, {"input_ids": np.array([tokens]), **(cache or {"encoder_hidden_states": states})})
            logits: npt.NDArray[np.float32] = outputs.pop("logits")[0, -1].astype(np.float32)
            cache.update((name.replace("present", "past_key_values"), value) for name, value in outputs.items())
            return logits

        return greedy(self._checkpoint, next_logits)


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, Array]) -> dict[str, Array]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
