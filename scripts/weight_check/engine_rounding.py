"""This engine with the rounding of another: float32, but for activations rounded as that engine rounds them.

Engines that multiply quantised weights round the activations too, and each in its own way, so their tokens differ where
two are about as likely. With equal rounding, what remains is how the file was read.

The order of float32 sums still differs, and rounding makes that large: where each product's inputs are changed by a
millionth, the encoder states of tiny.en in CTranslate2's int8 change by 1.7 %, which is also their distance from
CTranslate2's own (from those without rounding: 2.4 %).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from weight_check.greedy import first_window, greedy

from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.engine.runtime import Runtime
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend
from tilewhisper.models.checkpoint import cache

Round = Callable[[Tensor], Tensor]
"""Values (..., k) to the nearest that an engine can express, as float64, in which their products are exact."""


class _Weights(NamedTuple):
    weight: Tensor  # (n, k) float64
    bias: Tensor | None


class RoundingBackend(TorchBackend):
    """Linear layers of rounded weights and activations; convolutions and attention are float32."""

    def __init__(self, weights: Round, activations: Round) -> None:
        self._weights, self._activations = weights, activations

    def prepare(self, weight: Tensor, bias: Tensor | None) -> _Weights:  # type: ignore[override]
        return _Weights(self._weights(weight), bias)

    def linear(self, x: Tensor, prepared: _Weights) -> Tensor:  # type: ignore[override]
        y = (self._activations(x) @ prepared.weight.T).float()
        return y if prepared.bias is None else y + prepared.bias


def rounded_rows(values: Tensor) -> Tensor:
    """CTranslate2's int8: 127 steps for the largest magnitude of a row. It rounds int16 weights again by this rule on
    processors without Intel's MKL, and stored int8 weights are already such values."""
    largest = values.abs().amax(-1, keepdim=True)
    scale = torch.where(largest == 0, 1.0, torch.tensor(127.0) / largest)
    return (values * scale).round().double() / scale


def of(kind: str, precision: str) -> RoundingBackend | None:
    """The rounding of a format's engine, by the names of `export.FORMATS`; None in float precisions, or if unknown."""
    if kind == "ctranslate2" and precision.startswith("int"):
        return RoundingBackend(rounded_rows, rounded_rows)
    return None


def decoder(weights: Path, rounding: RoundingBackend) -> Callable[[npt.NDArray[np.float32]], list[int]]:
    """A function from up to 30 s of English, samples (n,) at 16 kHz, to text tokens with these weights."""
    checkpoint = cache.load(weights)
    runtime = Runtime(checkpoint, load_policy("torch"), lambda _: rounding)

    def decode(samples: npt.NDArray[np.float32]) -> list[int]:
        states = runtime.encode(first_window(samples, checkpoint))
        state = runtime.decoder.start()
        state.add([runtime.project_cross_kv(Encoded(states))])

        def next_logits(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            last = runtime.decoder.step([tokens], state)[-1:]
            return np.asarray(runtime.decoder.logits(last)[0].numpy())

        return greedy(checkpoint, next_logits)

    return decode
