"""Weights in the precision of their file, converted to float32 when they are used.

A `StoredTensor` is a float32 tensor to torch's operators: each operator that takes one reads it from the file, and
drops the values afterwards. So a model's modules cost no memory until something uses them, at the price of a conversion
for every use. What runs in every window or step is prepared by a backend once, from `whole(weight)`.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

CHUNK_BYTES = 8 << 20
"""Stored bytes that are converted at a time, so that a large tensor is not in memory in both precisions."""


class Storage(ABC):
    """How a file has one tensor of one dimension or more. Its rows are slices of the first dimension."""

    shape: tuple[int, ...]

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes in the file."""

    @abstractmethod
    def rows(self, first: int, last: int) -> Tensor:
        """The rows [first, last) as fresh float32."""

    @abstractmethod
    def pick(self, indices: Tensor) -> Tensor:
        """The rows of these indices (...), as float32 (..., *shape[1:])."""

    @abstractmethod
    def part(self, first: int, last: int) -> Storage:
        """The rows [first, last), still in the file."""

    def load(self) -> Tensor:
        """All of it as fresh float32."""
        result = torch.empty(self.shape)
        step = max(1, CHUNK_BYTES * len(result) // max(1, self.nbytes))
        for first in range(0, len(result), step):
            last = min(len(result), first + step)
            result[first:last] = self.rows(first, last)
        return result


@dataclass(frozen=True, eq=False)
class Rows(Storage):
    """A tensor whose rows have the same number of bytes each, one after the other."""

    shape: tuple[int, ...]
    data: Tensor
    """(bytes,) uint8, of any alignment."""
    mapped: bool
    """Whether `data` is a mapping of a file that nothing writes to, so that its pages may be dropped after use."""

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def table(self) -> Tensor:
        """The bytes row by row: (rows, bytes of a row)."""
        return self.data.view(self.shape[0], -1)

    def rows(self, first: int, last: int) -> Tensor:
        stored = self.table[first:last]
        values = self.values(stored.clone()).view(last - first, *self.shape[1:])
        if self.mapped:
            release(stored)
        return values

    def pick(self, indices: Tensor) -> Tensor:
        return self.values(self.table[indices.view(-1)]).view(*indices.shape, *self.shape[1:])

    def part(self, first: int, last: int) -> Rows:
        return replace(self, shape=(last - first, *self.shape[1:]), data=self.table[first:last].view(-1))

    @abstractmethod
    def values(self, stored: Tensor) -> Tensor:
        """The bytes of some rows (n, bytes of a row) as float32, of any shape with n times a row's values."""


@dataclass(frozen=True, eq=False)
class Plain(Rows):
    """Numbers of one dtype."""

    dtype: torch.dtype

    def values(self, stored: Tensor) -> Tensor:
        return stored.view(self.dtype).float()


class StoredTensor(Tensor):
    """A weight that stays in its file. Cannot be written to."""

    storage: Storage

    @staticmethod
    def __new__(cls, storage: Storage) -> StoredTensor:
        tensor: StoredTensor = Tensor._make_wrapper_subclass(cls, storage.shape, dtype=torch.float32)
        tensor.storage = storage
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredTensor:
        return self  # it cannot change

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"StoredTensor({tuple(self.shape)}, {self.storage!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return StoredTensor(args[0].storage)
        args, kwargs = tree_map_only(StoredTensor, lambda weight: weight.storage.load(), (args, kwargs or {}))
        return func(*args, **kwargs)


def parameter(storage: Storage) -> Tensor:
    """A tensor of a file as a model holds it: a matrix stays in the file, a vector is loaded as float32."""
    return StoredTensor(storage) if len(storage.shape) > 1 else storage.load()


def whole(weight: Tensor) -> Tensor:
    """A weight as an ordinary float32 tensor: fresh where it is stored in a file."""
    return weight.storage.load() if isinstance(weight, StoredTensor) else weight


def rows_of(weight: Tensor, indices: Tensor) -> Tensor:
    """The rows of a weight (n, ...) at indices (...), as float32 (..., ...)."""
    return weight.storage.pick(indices) if isinstance(weight, StoredTensor) else weight[indices]


def stored_bytes(weight: Tensor) -> int:
    """Bytes of a weight, in its file or in memory."""
    return weight.storage.nbytes if isinstance(weight, StoredTensor) else weight.nbytes


def release(stored: Tensor) -> None:
    """Drop the pages of a contiguous, read-only file mapping from this process's memory; they are read again on use."""
    if not sys.platform.startswith("linux"):
        return
    page = mmap.PAGESIZE
    first, end = stored.data_ptr() // page * page, -(-(stored.data_ptr() + stored.nbytes) // page) * page
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)
