"""Prepare weights for backends: once for each form, stored for later starts where the backend has a form to store."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from tilewhisper.kernels.base import Backend
from tilewhisper.kernels.decoder import DecoderBackend
from tilewhisper.models.checkpoint.packed_weights import PackedWeights
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.memory import release_freed


class WeightPreparation:
    """Prepares a model's weights by name, each from the packed weights of an earlier start if it is among them."""

    def __init__(self, packed: PackedWeights | None = None) -> None:
        """`packed` is where packed weights are found and stored; None for weights that are not a checkpoint's."""
        self._packed = packed
        self.all_found = packed is not None
        """Whether no weight had to be packed so far."""
        self.nbytes = 0
        """Bytes of the prepared weights."""

    def linear(self, backend: Backend, name: str, weight: Tensor, bias: Tensor | None) -> Any:
        """`Backend.prepare` of a weight (n, k) and bias (n,)."""
        return self._prepared(backend, f"linear {name}", backend.prepare, weight, bias)

    def conv(self, backend: Backend, name: str, weight: Tensor, bias: Tensor | None) -> Any:
        """`Backend.prepare_conv` of a weight (n, channels, taps) and bias (n,)."""
        return self._prepared(backend, f"conv {name}", backend.prepare_conv, weight, bias)

    def decoder_linear(self, backend: DecoderBackend, name: str, weight: Tensor, bias: Tensor | None) -> Any:
        """`Backend.prepare` of a weight in the layout that is best for a few rows."""

        def prepare(weight: Tensor, bias: Tensor | None) -> Any:
            return backend.prepare(backend.decode_layout(weight), bias)

        return self._prepared(backend, f"linear {name}", prepare, weight, bias)

    def cross_kv(self, backend: DecoderBackend, name: str, weight: Tensor, bias: Tensor | None) -> Any:
        """`DecoderBackend.prepare_cross_kv` of a weight (n, k) and bias (n,)."""
        return self._prepared(backend, f"cross_kv {name}", backend.prepare_cross_kv, weight, bias)

    def lm_head(self, backend: DecoderBackend, name: str, weight: Tensor) -> Any:
        """`DecoderBackend.prepare_lm_head` of the output projection (n_vocab, k)."""

        def prepare(weight: Tensor, _: Tensor | None) -> Any:
            return backend.prepare_lm_head(backend.decode_layout(weight))

        return self._prepared(backend, f"lm_head {name}", prepare, weight, None)

    def save(self) -> bool:
        """Store what was packed since the model was loaded; whether a next preparation finds it."""
        return self._packed is not None and self._packed.save()

    def _prepared(
        self,
        backend: Backend,
        name: str,
        prepare: Callable[[Tensor, Tensor | None], Any],
        weight: Tensor,
        bias: Tensor | None,
    ) -> Any:
        if self._packed is None or (form := backend.packing) is None:
            self.all_found = False
            self.nbytes += weight.nbytes
            return prepare(whole(weight), bias)
        name = f"{form} {name}"
        if (found := self._packed.get(name)) is not None:
            self.nbytes += _nbytes(found)
            return backend.from_stored(found, len(weight), bias)
        self.all_found = False
        prepared = prepare(_in_memory(weight), bias)
        tensors = backend.to_stored(prepared)
        self._packed.add(name, tensors)
        release_freed()  # its float32 values, which malloc would keep between the packed ones
        self.nbytes += _nbytes(tensors)
        return prepared


def _in_memory(weight: Tensor) -> Tensor:
    """The weight in float32, without what its conversion has left: 14 MB of tiny.en's token embedding."""
    values = whole(weight)
    release_freed()
    return values


def _nbytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
