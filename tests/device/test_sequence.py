"""The runtime sequence against the figures of a published design and an enumeration of every element."""

from dataclasses import replace

import numpy as np
import pytest

from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.array import Geometry, Tile
from tilewhisper.kernels.xdna.devices import XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.sequence import (
    Descriptor,
    Wait,
    a_column,
    a_rows,
    decode,
    encode,
    runtime_sequence,
)
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan


def cut(m: int, k: int, n: int, name: str = "whole-array", device=XDNA1) -> TilePlan:
    return plan(ProductShape(1, m, k, n), find_geometry(name, device), device)


def narrow(columns: int) -> TilePlan:
    """Fewer columns than rows: a column sends the A of several rows."""
    geometry = Geometry(f"{columns} columns", "", (XDNA1.name,), 4, columns, (Tile(64, 64, 32),))
    return plan(ProductShape(1, 700 if columns > 1 else 200, 128, 256), geometry, XDNA1)


PLANS = [
    cut(1500, 384, 384),
    cut(1500, 384, 1152),
    cut(1500, 1280, 5120),  # one row block per turn
    cut(300, 128, 256),
    cut(100, 64, 128),  # a single turn
    cut(1500, 384, 384, device=XDNA2),
    cut(1500, 512, 2048, device=XDNA2),
    *(cut(1500, 384, 384, name) for name in ("seed-64x64", "seed-64x512", "seed-128x512")),
    narrow(1),
    narrow(2),
]


def name_of(p: TilePlan) -> str:
    return f"{p.device.name} {p.geometry.name} {p.launch}"


every_plan = pytest.mark.parametrize("p", PLANS, ids=name_of)


def addresses(d: Descriptor) -> np.ndarray:
    index = np.indices(d.sizes).reshape(4, -1)
    return d.offset + (index * np.array(d.strides)[:, None]).sum(axis=0)


def last_address(d: Descriptor) -> int:
    return d.offset + sum((size - 1) * stride for size, stride in zip(d.sizes, d.strides, strict=True))


def test_a_whole_array_launch_has_the_published_descriptors():
    p = cut(1500, 384, 1152)
    sequence = runtime_sequence(p)
    column_2 = [item for item in sequence if item.column == 2]
    M, K, N = 1536, 384, 1152
    assert column_2[:5] == [
        Descriptor("C", 2, "from array", 2 * 32, (2, N // 128, 256, 32), (256 * N, 128, N, 1), 0),
        Descriptor("A", 2, "to array", 2 * 64 * K, (N // 128, K // 64, 64, 64), (0, 64, K, 1), 1),
        Descriptor("B", 2, "to array", 2 * 32, (N // 128, K // 64, 64, 32), (128, 64 * N, N, 1), 2),
        Descriptor("A", 2, "to array", (4 + 2) * 64 * K, (N // 128, K // 64, 64, 64), (0, 64, K, 1), 3),
        Descriptor("B", 2, "to array", 2 * 32, (N // 128, K // 64, 64, 32), (128, 64 * N, N, 1), 4),
    ]
    assert [item.id for item in column_2[5:10]] == [8, 9, 10, 11, 12]
    assert column_2[10] == Wait(2, "C")
    assert column_2[11].id == 0
    assert column_2[11].offset == 4 * 256 * N + 2 * 32
    assert sum(isinstance(item, Wait) for item in column_2) == M // 256 // 2


@every_plan
def test_every_result_is_written_once(p):
    written = np.zeros(p.launch.m * p.launch.n, int)
    for item in runtime_sequence(p):
        if isinstance(item, Descriptor) and item.operand == "C":
            np.add.at(written, addresses(item), 1)
    assert (written == 1).all()


@every_plan
def test_a_and_b_are_read_as_often_as_planned(p):
    read = {"A": 0, "B": 0}
    for item in runtime_sequence(p):
        if isinstance(item, Descriptor) and item.operand in read:
            read[item.operand] += int(np.prod(item.sizes))
            assert last_address(item) < {"A": p.launch.m, "B": p.launch.n}[item.operand] * p.launch.k
    assert (2 * read["A"] * p.calls, 2 * read["B"] * p.calls) == (p.bytes_a, p.bytes_b)


@every_plan
def test_a_descriptor_is_reused_only_after_the_wait_that_frees_it(p):
    running: dict[int, list[list[int]]] = {column: [] for column in range(p.geometry.columns)}
    busiest = 0
    for item in runtime_sequence(p):
        turns = running[item.column]
        if isinstance(item, Wait):
            turns.pop(0)
            continue
        if item.operand == "C":
            turns.append([])
        taken = [number for turn in turns for number in turn]
        assert item.id not in taken
        assert item.id < p.device.shim_descriptors
        turns[-1].append(item.id)
        busiest = max(busiest, len(taken) + 1)
    assert not any(running.values()), "the launch ends before its results have arrived"
    assert busiest <= p.shim_descriptors


def test_a_row_of_cores_gets_a_through_one_column():
    for device, columns in ((XDNA1, [0, 1, 2, 3]), (XDNA2, [0, 2, 4, 6])):
        geometry = find_geometry("whole-array", device)
        assert [a_column(row, geometry) for row in range(4)] == columns
    assert [a_rows(column, narrow(2).geometry) for column in range(2)] == [range(2), range(2, 4)]
    assert a_rows(1, find_geometry("whole-array", XDNA2)) == range(0)


@every_plan
def test_a_stream_round_trips(p):
    sequence = runtime_sequence(p)
    words = encode(sequence)
    assert words.dtype == np.dtype("<u4")
    assert decode(np.frombuffer(words.tobytes(), "<u4")) == sequence


WORDS = encode(runtime_sequence(PLANS[0]))


def changed(place: int, value: int) -> np.ndarray:
    words = WORDS.copy()
    words[place] = value
    return words


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (WORDS[:-1], "truncated"),
        (WORDS[1:], "not an instruction stream"),
        (changed(4, 9), "instruction 0 is unknown"),
        (changed(7, 3), "unknown operand"),
        (changed(3, WORDS[3] - 1), "instructions and holds"),
    ],
    ids=["truncated", "no header", "opcode", "operand", "count"],
)
def test_an_invalid_stream_raises(words, reason):
    with pytest.raises(ValueError, match=reason):
        decode(words)


def test_a_field_of_more_than_32_bits_raises():
    with pytest.raises(OverflowError):
        encode([replace(runtime_sequence(PLANS[0])[0], offset=2**32)])
