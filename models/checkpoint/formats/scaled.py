"""CTranslate2's quantised weights: integers with a scale for each row, or one for the whole tensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tilewhisper.models.checkpoint.stored_tensor import RowStorage, Storage


@dataclass(frozen=True, eq=False)
class Scaled(Storage):
    """value = integer / scale of its row."""

    integers: RowStorage
    scale: Tensor
    """(rows,) float32."""

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.integers.shape

    @property
    def nbytes(self) -> int:
        return self.integers.nbytes + self.scale.nbytes

    def rows(self, first: int, last: int) -> Tensor:
        return self._divided(self.integers.rows(first, last), self.scale[first:last])

    def pick(self, indices: Tensor) -> Tensor:
        return self._divided(self.integers.pick(indices), self.scale[indices])

    def part(self, first: int, last: int) -> Scaled:
        return Scaled(self.integers.part(first, last), self.scale[first:last])

    def release(self, first: int, last: int) -> None:
        self.integers.release(first, last)

    def _divided(self, integers: Tensor, scale: Tensor) -> Tensor:
        return integers.div_(scale.view(*scale.shape, *(1,) * (len(self.shape) - 1)))
