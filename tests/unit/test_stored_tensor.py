"""Weights in their files: the values of float32 tensors to every operator, read when they are used."""

import mmap
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
    exact_rows,
    joined,
    rows_of,
    whole,
)


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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's figures of resident memory")
def test_pages_of_a_mapped_file_are_dropped_after_use(tmp_path):
    """Else the converted model's whole file would count as memory of the process."""
    path = tmp_path / "weight"
    path.write_bytes(torch.ones(32 << 20, dtype=torch.float16).view(torch.uint8).numpy().tobytes())
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    data = torch.frombuffer(mapping, dtype=torch.uint8)
    storage = Plain((32, 1 << 20), data, mapped=True, dtype=torch.float16)
    weights = [storage.part(row, row + 1) for row in range(32)]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    total = sum(float(weight.load().sum()) for weight in weights)
    assert total == 32 << 20
    assert resident() - before < 32 << 20  # of 64 MB
