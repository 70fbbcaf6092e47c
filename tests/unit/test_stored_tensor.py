"""Weights in their files: the values of float32 tensors to every operator, read when they are used."""

import gc
import math
import mmap
import os
import re
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from tilewhisper.models.checkpoint.stored_tensor import (
    Deferred,
    Joined,
    Plain,
    Storage,
    StoredTensor,
    TableInFile,
    exact_rows,
    joined,
    rows_of,
    whole,
)
from tilewhisper.models.errors import CheckpointError


def plain(values: torch.Tensor, offset: int = 0) -> Plain:
    """Values in the bytes of a file, from an offset that need not fit their size."""
    raw = bytearray(offset) + values.view(torch.uint8).numpy().tobytes()
    data = torch.frombuffer(raw, dtype=torch.uint8, offset=offset)
    return Plain(tuple(values.shape), data, mapped=False, dtype=values.dtype)


@pytest.fixture
def values() -> torch.Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


STORAGES = {
    "plain": lambda values: plain(values, offset=3),
    "joined": lambda values: Joined([plain(values[:2].clone()), plain(values[2:3].clone()), plain(values[3:].clone())]),
    "deferred": lambda values: Deferred(tuple(values.shape), lambda: plain(values)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", STORAGES)
def test_all_ways_to_read_give_the_files_values(kind, dtype, values):
    stored = values.to(dtype)
    storage: Storage = STORAGES[kind](stored)
    expected, weight = stored.float(), StoredTensor(storage)
    assert torch.equal(whole(weight), expected)
    assert torch.equal(storage.rows(1, 4), expected[1:4])
    indices = torch.tensor([[6, 0, 2], [3, 3, 1]])
    assert torch.equal(rows_of(weight, indices), expected[indices])
    none = rows_of(weight, torch.empty(0, 2, dtype=torch.long))
    assert (none.shape, none.dtype) == ((0, 2, 5), torch.float32)
    part = storage.part(2, 6)
    assert (part.shape, torch.equal(part.load(), expected[2:6])) == ((4, 5), True)
    assert torch.equal(part.pick(torch.tensor([3, 0])), expected[[5, 2]])
    assert storage.nbytes == stored.nbytes
    row = exact_rows(weight)
    assert torch.equal(row[3].float() if isinstance(row, torch.Tensor) else row.pick(torch.tensor([3]))[0], expected[3])


def test_operators_and_modules_take_a_weight_in_its_file(values):
    linear = nn.Linear(5, 7, device="meta")
    weight = StoredTensor(plain(values.half()))
    linear.load_state_dict({"weight": weight, "bias": torch.ones(7)}, assign=True)
    x = torch.randn(3, 5)
    assert isinstance(linear.weight, StoredTensor)
    assert isinstance(linear.state_dict()["weight"], StoredTensor)
    assert torch.equal(linear(x), nn.functional.linear(x, values.half().float(), torch.ones(7)))
    assert torch.equal(whole(joined([weight, weight])), torch.cat([values, values]).half().float())
    assert torch.equal(joined([weight, values]), torch.cat([values.half().float(), values]))


@pytest.mark.parametrize("write", [torch.Tensor.zero_, lambda t: t.add_(1), lambda t: t.copy_(torch.ones(7, 5))])
def test_a_write_is_refused(write, values):
    weight = StoredTensor(plain(values))
    with pytest.raises(RuntimeError, match="would write to a weight in its file"):
        write(weight)
    assert torch.equal(torch.zeros(7, 5).copy_(weight), values)


MAPS = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux, which tells what is mapped")


def mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype = torch.float16, offset: int = 0) -> Plain:
    """The values of a file from an offset on, mapped as the readers of weights do it."""
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    data = torch.frombuffer(mapping, dtype=torch.uint8, offset=offset, count=math.prod(shape) * dtype.itemsize)
    return Plain(shape, data, mapped=True, dtype=dtype)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@MAPS
def test_pages_of_a_mapped_file_are_dropped_after_use(tmp_path):
    """Else the converted model's whole file would count as memory of the process."""
    path = tmp_path / "weight"
    path.write_bytes(torch.ones(32 << 20, dtype=torch.float16).view(torch.uint8).numpy().tobytes())
    storage = mapped(path, (32, 1 << 20))
    weights = [storage.part(row, row + 1) for row in range(32)]
    before = resident()
    total = sum(float(weight.load().sum()) for weight in weights)
    assert total == 32 << 20
    assert resident() - before < 32 << 20  # of 64 MB


@MAPS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_single_rows_of_a_mapped_file_are_the_files(dtype, tmp_path):
    path, values = tmp_path / "a file's (name)", torch.randn(3000, 5).to(dtype)
    path.write_bytes(bytes(4099) + values.view(torch.uint8).numpy().tobytes())
    storage = mapped(path, (3000, 5), dtype, offset=4099)
    indices = torch.tensor([[2999, 0], [7, 2000]])
    weights = [StoredTensor(storage), StoredTensor(storage.part(0, 3000))]
    assert isinstance(exact_rows(weights[0]), TableInFile)
    path.unlink()  # the file that is open stays
    for weight in weights:
        assert torch.equal(rows_of(weight, indices), values[indices].float())
        assert rows_of(weight, indices[:0]).shape == (0, 2, 5)
    for outside in (-1, 3000):
        with pytest.raises(IndexError):
            rows_of(weights[0], torch.tensor([outside]))


@MAPS
def test_single_rows_take_no_memory(tmp_path):
    """Each would bring 64 KB of its surroundings: 53 MB of an hour's rows (base)."""
    path = tmp_path / "weight"
    path.write_bytes(torch.ones(16 << 20, dtype=torch.float16).view(torch.uint8).numpy().tobytes())
    weight = StoredTensor(mapped(path, (16 << 10, 1 << 10)))
    before = resident()
    assert float(rows_of(weight, torch.arange(0, 16 << 10, 32)).sum()) == 1 << 19
    assert resident() - before < 16 << 20  # of 32 MB


@MAPS
def test_a_fork_reads_the_same_file(tmp_path):
    path = tmp_path / "weight"
    path.write_bytes(torch.arange(64.0).view(torch.uint8).numpy().tobytes())
    storage = mapped(path, (64, 1), torch.float32)
    assert storage.file
    if not (child := os.fork()):
        os._exit(int(storage.file.rows([40], 64, 4).view(torch.float32)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 40
    assert float(rows_of(StoredTensor(storage), torch.tensor([41]))) == 41


@MAPS
def test_a_file_that_becomes_shorter_is_a_clear_error(tmp_path):
    path = tmp_path / "weight"
    path.write_bytes(bytes(1 << 20))
    weight = StoredTensor(mapped(path, (1 << 18, 1), torch.float32))
    assert float(rows_of(weight, torch.tensor([1 << 17]))) == 0
    os.truncate(path, 1000)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))}: it changed .* load it again"):
        rows_of(weight, torch.tensor([1 << 17]))


@MAPS
def test_another_file_of_the_same_name_is_not_read(tmp_path):
    """A checkpoint may be replaced while it is loaded; its mapping still has the old values."""
    path = tmp_path / "weight"
    path.write_bytes(torch.full((64,), 3.0).view(torch.uint8).numpy().tobytes())
    storage = mapped(path, (64, 1), torch.float32)
    (tmp_path / "other").write_bytes(bytes(256))
    (tmp_path / "other").replace(path)
    assert float(rows_of(StoredTensor(storage), torch.tensor([1]))) == 3
    assert isinstance(exact_rows(StoredTensor(storage)), torch.Tensor)


@MAPS
def test_a_file_is_closed_with_its_weight(tmp_path):
    path = tmp_path / "weight"
    path.write_bytes(bytes(256))
    storage = mapped(path, (64, 1), torch.float32)
    assert storage.file
    descriptor = storage.file.descriptor
    assert os.fstat(descriptor).st_ino == path.stat().st_ino
    del storage
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(descriptor)
