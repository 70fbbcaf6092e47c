"""Weights in the precision of their file, converted to float32 when they are used.

A `StoredTensor` is a float32 tensor to torch's operators: each operator that takes one reads it from the file, and
drops the values afterwards. So a model's modules cost no memory until something uses them, at the price of a conversion
for every use. What runs in every window or step is prepared by a backend once, from `whole(weight)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from tilewhisper.models.mapped_file import MappedFile, file_of
from tilewhisper.models.memory import release_pages

CHUNK_BYTES = 1 << 20
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
            self.release(first, last)
        self.release(0, len(result))  # the system maps pages around those that are read, so some came back
        return result

    @abstractmethod
    def release(self, first: int, last: int) -> None:
        """Drop the file's pages of the rows [first, last) from this process's memory; they are read again on use."""


@dataclass(frozen=True, eq=False)
class RowStorage(Storage):
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
        return self.values(self.table[first:last].clone()).view(last - first, *self.shape[1:])

    def release(self, first: int, last: int) -> None:
        if self.mapped:
            release_pages(self.table[first:last])

    @cached_property
    def file(self) -> MappedFile | None:
        """The file for reading single rows, where pages that are read through `data` would stay in memory."""
        return file_of(self.data) if self.mapped else None

    def pick(self, indices: Tensor) -> Tensor:
        flat, table = indices.reshape(-1), self.table
        stored = self.file.rows(flat.tolist(), *table.shape) if self.file else table[flat]
        return self.values(stored).view(*indices.shape, *self.shape[1:])

    def part(self, first: int, last: int) -> RowStorage:
        return replace(self, shape=(last - first, *self.shape[1:]), data=self.table[first:last].view(-1))

    @abstractmethod
    def values(self, stored: Tensor) -> Tensor:
        """The bytes of some rows (n, bytes of a row) as float32, of any shape with n times a row's values."""


@dataclass(frozen=True, eq=False)
class Plain(RowStorage):
    """Numbers of one dtype."""

    dtype: torch.dtype

    def values(self, stored: Tensor) -> Tensor:
        return stored.view(self.dtype).float()


@dataclass(frozen=True, eq=False)
class Joined(Storage):
    """Several tensors as one, the rows of the first before those of the second."""

    parts: Sequence[Storage]

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:])

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def rows(self, first: int, last: int) -> Tensor:
        return torch.cat([part.rows(*span) for part, span in self._spans(first, last)])

    def pick(self, indices: Tensor) -> Tensor:
        result = torch.empty(*indices.shape, *self.shape[1:])
        row = 0
        for part in self.parts:
            inside = (indices >= row) & (indices < row + part.shape[0])
            result[inside] = part.pick(indices[inside] - row)
            row += part.shape[0]
        return result

    def part(self, first: int, last: int) -> Storage:
        return Joined([part.part(*span) for part, span in self._spans(first, last)])

    def release(self, first: int, last: int) -> None:
        for part, span in self._spans(first, last):
            part.release(*span)

    def _spans(self, first: int, last: int) -> list[tuple[Storage, tuple[int, int]]]:
        """The parts in which rows [first, last) are, and the rows in each."""
        spans, row = [], 0
        for part in self.parts:
            span = max(first - row, 0), min(last - row, part.shape[0])
            if span[0] < span[1]:
                spans.append((part, span))
            row += part.shape[0]
        return spans


@dataclass(frozen=True, eq=False)
class Deferred(Storage):
    """A tensor whose file is opened on first use."""

    shape: tuple[int, ...]
    open: Callable[[], Storage]

    @cached_property
    def opened(self) -> Storage:
        """The tensor in its file. Raises CheckpointError, as do all methods on first use."""
        return self.open()

    @property
    def nbytes(self) -> int:
        return self.opened.nbytes

    def rows(self, first: int, last: int) -> Tensor:
        return self.opened.rows(first, last)

    def pick(self, indices: Tensor) -> Tensor:
        return self.opened.pick(indices)

    def part(self, first: int, last: int) -> Storage:
        return self.opened.part(first, last)

    def release(self, first: int, last: int) -> None:
        self.opened.release(first, last)


class StoredTensor(Tensor):
    """A weight that stays in its file, and cannot be written to."""

    stored: Storage
    _is_param = True
    """It is an `nn.Parameter` as it is: to make one of it would import torch.distributed, 40 MB and 0.3 s."""

    @staticmethod
    def __new__(cls, storage: Storage) -> StoredTensor:
        tensor: StoredTensor = Tensor._make_wrapper_subclass(cls, storage.shape, dtype=torch.float32)
        tensor.stored = storage
        return tensor

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredTensor:
        return self  # it cannot change

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"StoredTensor({tuple(self.shape)}, {self.stored!r})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten.detach.default:
            return StoredTensor(args[0].stored)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if isinstance(value, StoredTensor) and argument.alias_info and argument.alias_info.is_write:
                raise RuntimeError(f"{func} would write to a weight in its file; take a copy by `whole` first")
        args, kwargs = tree_map_only(StoredTensor, lambda weight: weight.stored.load(), (args, kwargs or {}))
        return func(*args, **kwargs)


def parameter(storage: Storage) -> Tensor:
    """A tensor of a file as a model holds it: a matrix stays in the file, a vector is loaded as float32."""
    return StoredTensor(storage) if len(storage.shape) > 1 else storage.load()


def whole(weight: Tensor) -> Tensor:
    """A weight as an ordinary float32 tensor: fresh where it is stored in a file."""
    return weight.stored.load() if isinstance(weight, StoredTensor) else weight


def joined(weights: Sequence[Tensor]) -> Tensor:
    """Weights (n, k) as one (sum of n, k), which stays in the files if all of them do."""
    stored = [weight.stored for weight in weights if isinstance(weight, StoredTensor)]
    if len(stored) == len(weights):
        return StoredTensor(Joined(stored))
    return torch.cat([whole(weight).detach() for weight in weights])


def rows_of(weight: Tensor, indices: Tensor) -> Tensor:
    """The rows of a weight (n, ...) at indices (...), as float32 (..., ...)."""
    return weight.stored.pick(indices) if isinstance(weight, StoredTensor) else weight[indices]


class TableInFile(NamedTuple):
    """A table (n, k) of float32, float16 or bfloat16, whose rows are to be read from its file one at a time."""

    mapped: Tensor
    """Perhaps not aligned to its numbers."""
    file: MappedFile


def exact_rows(weight: Tensor) -> Tensor | TableInFile | Storage:
    """A weight (n, k) for reading single rows: a table of float32, float16 or bfloat16, perhaps not aligned to its
    numbers, in memory or in its file, or else a storage to `pick` them from."""
    if not isinstance(weight, StoredTensor):
        return weight
    storage = weight.stored.opened if isinstance(weight.stored, Deferred) else weight.stored
    if not isinstance(storage, Plain):
        return storage
    table = storage.table.view(storage.dtype)
    return TableInFile(table, storage.file) if storage.file else table
