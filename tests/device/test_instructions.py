"""The instruction stream of a design: its words, the limit of a channel's queue, and the check of a built stream."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from tilewhisper.engine.routing.sites import encoder_sites
from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.array import Geometry, Tile
from tilewhisper.kernels.xdna.devices import DEVICES, XDNA1, XDNA2
from tilewhisper.kernels.xdna.geometries import GEOMETRIES, find_geometry
from tilewhisper.kernels.xdna.instructions.comparison import check_stream
from tilewhisper.kernels.xdna.instructions.descriptors import Place, descriptor_write, written_descriptor
from tilewhisper.kernels.xdna.instructions.fields import StreamError
from tilewhisper.kernels.xdna.instructions.listing import listing
from tilewhisper.kernels.xdna.instructions.lowering import Choices, descriptor_values, patch, push, stream_of
from tilewhisper.kernels.xdna.instructions.operations import (
    AddressPatch,
    BlockWrite,
    Header,
    LoadConfiguration,
    MaskPoll,
    MaskWrite,
    NoOperation,
    Preempt,
    Stream,
    Sync,
    Write,
)
from tilewhisper.kernels.xdna.instructions.registers import Channel, Direction, queue_at, tile_address
from tilewhisper.kernels.xdna.instructions.words import decode, encode
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan
from tilewhisper.models.checkpoint.catalog import SIZES


def cut(m: int, k: int, n: int, name: str = "whole-array", device=XDNA1) -> TilePlan:
    return plan(ProductShape(1, m, k, n), find_geometry(name, device), device)


def launches() -> list[TilePlan]:
    """The distinct launches of every official size, in every geometry of every device."""
    shapes = {(1500, size.d_model, 3 * size.d_model) for size in SIZES.values()}
    for size in SIZES.values():
        shapes |= {(site.m, site.k, site.n) for site in encoder_sites(1, size.d_model, size.heads, 4 * size.d_model)}
    found = {}
    for device in DEVICES.values():
        for geometry in (each for each in GEOMETRIES if device.name in each.devices):
            for shape in sorted(shapes):
                one = plan(ProductShape(1, *shape), geometry, device)
                found.setdefault((one.design, one.launch), one)
    return list(found.values())


ALL = launches()
every_launch = pytest.mark.parametrize("p", ALL, ids=lambda p: f"{p.device.name}-{p.geometry.name}-{p.launch}")


def bytes_of(stream: Stream) -> bytes:
    return encode(stream).tobytes()


@every_launch
def test_no_channel_has_more_than_four_pushes_outstanding(p):
    """Counted from the words: the token of a C shows that the turn's A and B are done, which were pushed after it."""
    running = defaultdict(list)
    deepest: Counter[Channel] = Counter()
    for operation in decode(bytes_of(stream_of(p))).operations:
        if isinstance(operation, Write):
            column, channel = queue_at(operation.address)
            running[column].append(channel)
            deepest[channel] = max(deepest[channel], running[column].count(channel))
        elif isinstance(operation, Sync):
            results = Channel(Direction(operation.direction), operation.channel)
            places = [i for i, channel in enumerate(running[operation.column]) if channel == results]
            del running[operation.column][: [*places, len(running[operation.column])][1]]
    assert max(deepest.values()) <= 4
    assert max(deepest.values()) == p.queued_transfers
    assert not any(running.values()), "the launch ends before its results have arrived"


def test_two_turns_of_two_row_blocks_reach_exactly_four():
    assert {p.queued_transfers for p in ALL} == {1, 2, 4}
    assert cut(1500, 512, 512).queued_transfers == 4


@every_launch
def test_a_stream_round_trips_and_is_its_own_design(p):
    stream = stream_of(p)
    assert decode(bytes_of(stream)) == stream
    check_stream(bytes_of(stream), p)


def test_the_first_transfers_of_a_product():
    """Computed by hand from the layout of the registers, for 1536 x 512 x 512 on XDNA1."""
    stream = stream_of(cut(1500, 512, 512))
    assert stream.header == Header(generation=3, columns=4)
    words = encode(stream).tolist()
    assert words[:2] == [0x06030100, 0x00000104]
    c, a, b = (stream.operations[i : i + 3] for i in (0, 3, 6))
    assert c[0].values == (0x8000, 0, 0, 0x02000000, 0x900001FF, 0x0200007F, 0x0011FFFF, 0x02000000)
    assert a[0].values == (0x4000, 0, 0, 0x02000000, 0x840000FF, 0x0200001F, 0, 0x02000000)
    assert b[0].values == (0x2000, 0, 0, 0x01000000, 0x840000FF, 0x02003FFF, 0x0030003F, 0x02000000)
    assert [part[0].address for part in (c, a, b)] == [0x1D000, 0x1D020, 0x1D040]
    assert [part[1] for part in (c, a, b)] == [
        AddressPatch(0x1D004, 2, 0),
        AddressPatch(0x1D024, 0, 0),
        AddressPatch(0x1D044, 1, 0),
    ]
    assert [part[2] for part in (c, a, b)] == [
        Write(0x1D204, 0x80010000),
        Write(0x1D214, 0x00030001),
        Write(0x1D21C, 0x00030002),
    ]
    assert stream.operations[-1] == Sync(column=3, row=0, direction=0, channel=0)


def test_a_contiguous_pattern_is_one_run():
    sizes, strides = (1, 1, 64, 64), (0, 4096, 64, 1)
    assert descriptor_values(sizes, strides, "bf16") == {"length": 2048, "burst": 2, "valid": 1}
    explicit = descriptor_values(sizes, strides, "bf16", linear=False)
    assert (explicit["d0_size"], explicit["d1_size"], explicit["d1_step"], explicit["d2_step"]) == (32, 64, 31, 0)


OPERATIONS = (
    Write(0x1D204, 1),
    BlockWrite(0x1D000, (1, 2, 3)),
    BlockWrite(0x2000000, (), column=1, row=1),
    MaskWrite(4, 5, 6),
    MaskPoll(7, 8, 9),
    NoOperation(),
    Preempt(3),
    LoadConfiguration(2, 1024, 0xABC12345678),
    Sync(1, 0, 1, 1, 2, 3),
    AddressPatch(0x1D004, 2, 2**33 + 4),
)


def test_every_operation_round_trips():
    stream = Stream(Header(4, 8), OPERATIONS)
    assert decode(bytes_of(stream)) == stream


def test_any_changed_bit_of_a_stream_is_kept_or_refused():
    """What the decoder accepts, the encoder gives back: no bit is ignored."""
    words = encode(Stream(Header(4, 8), OPERATIONS))
    kept = 0
    for i in range(len(words)):
        for bit in range(32):
            changed = words.copy()
            changed[i] ^= np.uint32(1 << bit)
            try:
                stream = decode(changed.tobytes())
            except StreamError:
                continue
            kept += 1
            assert encode(stream).tolist() == changed.tolist()
    assert kept > len(words)


def changed_words(place: int, value: int) -> bytes:
    words = encode(Stream(Header(4, 8), OPERATIONS))
    words[place] = value
    return words.tobytes()


WHOLE = bytes_of(Stream(Header(4, 8), OPERATIONS))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "at least 4 words of 4 bytes, got 0 bytes"),
        (WHOLE[:-1], "words of 4 bytes, got"),
        (WHOLE[:-4], "header states 228 bytes, and there are 224"),
        (changed_words(0, 0x06040101), "version 1.1, and this version reads 0.1"),
        (changed_words(1, 0x00010108), "header sets bits that have no meaning"),
        (changed_words(2, 9), "header states 9 operations, and there are 10"),
        (changed_words(4, 77), "operation 0, at word 4, has the code 77, which this version does not know"),
        (changed_words(5, 1), "operation 0, at word 4, sets words or bits that have no meaning"),
        (changed_words(13, 3), "operation 1, at word 10, is a block write of 3 bytes"),
        (changed_words(13, 4096), "operation 1, at word 10, has 1024 words, and 47 are left"),
    ],
)
def test_what_is_not_a_stream_is_refused_in_one_line(data, reason):
    with pytest.raises(StreamError) as error:
        decode(data)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: push(0, Channel(Direction.MM2S, 0), 3, repeat=257), "repeat is 256, and its field holds 0 to 255"),
        (lambda: push(0, Channel(Direction.MM2S, 0), 16), "descriptor is 16, and its field holds 0 to 15"),
        (lambda: patch(0x1D004, 0, 2), "starts 2 bytes into its buffer"),
        (lambda: tile_address(128, 0, 0), "column is 128, and its field holds 0 to 127"),
        (lambda: descriptor_values((1, 1, 1, 63), (0, 0, 0, 1), "bf16"), "63 elements of bf16 are not a whole number"),
        (lambda: descriptor_write(Place(0, 0, 0), {"d0_size": 1024}), "d0 size is 1,024, and its field holds 0 to 1,0"),
        (lambda: encode(Stream(Header(3, 4), (Write(0, 2**32),))), "4,294,967,296 is not a word of 32 bits"),
    ],
)
def test_a_value_too_large_for_its_field_is_refused(make, reason):
    with pytest.raises(StreamError, match=reason):
        make()


NARROW = plan(
    ProductShape(1, 200, 128, 256), Geometry("2 columns", "", (XDNA1.name,), 4, 2, (Tile(64, 64, 32),)), XDNA1
)
CHECKED = [cut(1500, 384, 384), cut(200, 64, 512, device=XDNA2), cut(64, 64, 64, "seed-64x64"), NARROW]
"""Several turns; a single push in a column without A; one core with contiguous patterns; fewer columns than rows."""


def is_detected(stream: Stream | bytes, p: TilePlan) -> bool:
    try:
        check_stream(stream if isinstance(stream, bytes) else bytes_of(stream), p)
    except StreamError as error:
        assert "\n" not in str(error)
        return True
    return False


@pytest.mark.parametrize("p", CHECKED, ids=lambda p: f"{p.device.name}-{p.geometry.name}")
def test_any_changed_bit_is_detected(p):
    words = encode(stream_of(p))
    places = range(len(words)) if len(words) < 200 else np.random.default_rng(0).choice(len(words), 60, replace=False)
    for place in places:
        for bit in range(32):
            changed = words.copy()
            changed[place] ^= np.uint32(1 << bit)
            assert is_detected(changed.tobytes(), p), (place, bit)


@pytest.mark.parametrize("p", CHECKED, ids=lambda p: f"{p.device.name}-{p.geometry.name}")
def test_operations_that_are_missing_repeated_or_exchanged_are_detected(p):
    stream = stream_of(p)
    operations = stream.operations
    for i, operation in enumerate(operations):
        assert is_detected(replace(stream, operations=operations[:i] + operations[i + 1 :]), p)
        assert is_detected(replace(stream, operations=(*operations[: i + 1], operation, *operations[i + 1 :])), p)
        if i and operations[i - 1] != operation:
            exchanged = (*operations[: i - 1], operation, operations[i - 1], *operations[i + 1 :])
            assert is_detected(replace(stream, operations=exchanged), p)


def test_every_stream_of_another_design_is_refused():
    whole = [p for p in ALL if p.geometry.name == "whole-array"]
    built = cut(1500, 512, 512)
    others = [p for p in whole if (p.design, p.launch) != (built.design, built.launch)]
    assert len(others) == len(whole) - 1
    assert all(is_detected(stream_of(other), built) for other in others)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (cut(1500, 512, 512, device=XDNA2), "it is for xdna2, 8 columns x 6 rows, and the design for xdna1, 4 columns"),
        (
            cut(1500, 384, 512),
            r"operation 3 \(column 0, shim tile, descriptor 1\) has length 12,288, d1 step 191, and the design length "
            "16,384, d1 step 255",
        ),
        (
            cut(1000, 512, 512),
            "operation 124 is 'column 0, S2MM 0: wait for a token', and the design has 'column 0,",
        ),
    ],
)
def test_the_reason_names_the_first_difference(other, reason):
    with pytest.raises(StreamError, match=reason):
        check_stream(bytes_of(stream_of(other)), cut(1500, 512, 512))


def test_a_stream_that_ends_early_or_late_is_refused():
    p = CHECKED[0]
    stream = stream_of(p)
    with pytest.raises(StreamError, match="it ends before the design's operation 'column 3, S2MM 0: wait for a token'"):
        check_stream(bytes_of(replace(stream, operations=stream.operations[:-1])), p)
    with pytest.raises(StreamError, match=r"operation \d+ 'NoOperation\(\)' comes after the design's last one"):
        check_stream(bytes_of(replace(stream, operations=(*stream.operations, NoOperation()))), p)


SWAPPED = {("A", True): 1, ("B", True): 0, ("B", False): 1, ("C", True): 1, ("C", False): 1}


@pytest.mark.parametrize("p", CHECKED, ids=lambda p: f"{p.device.name}-{p.geometry.name}")
@pytest.mark.parametrize(
    "choices",
    [Choices(channels=SWAPPED), Choices(ax_cache=0), Choices(linear=False)],
    ids=["channels", "cache", "linear"],
)
def test_what_a_compiler_may_choose_is_accepted(p, choices):
    check_stream(bytes_of(stream_of(p, choices)), p)


def test_a_channel_that_two_operands_share_is_refused():
    p = CHECKED[0]
    shared = Choices(channels=Choices().channels | {("A", True): 1})
    with pytest.raises(StreamError, match="A and B share the channel MM2S 1"):
        check_stream(bytes_of(stream_of(p, shared)), p)


def with_polls(p: TilePlan, poll: MaskPoll, choices: Choices | None = None) -> Stream:
    """A poll before every push."""
    stream = stream_of(p, choices)
    polled = [each for operation in stream.operations for each in (poll, operation)[not isinstance(operation, Write) :]]
    return replace(stream, operations=tuple(polled))


def test_waits_for_room_in_a_queue_are_accepted_and_other_polls_refused():
    p = CHECKED[0]
    room = MaskPoll(tile_address(1, 0, 0x1D228), 0, 1 << 22)
    check_stream(bytes_of(with_polls(p, room)), p)
    check_stream(bytes_of(with_polls(p, room, Choices(channels=SWAPPED))), p)
    for poll in (
        replace(room, value=1),
        replace(room, mask=1 << 21),
        replace(room, address=tile_address(1, 0, 0x1D230)),
        replace(room, address=tile_address(4, 0, 0x1D228)),
    ):
        assert is_detected(with_polls(p, poll), p)


def test_the_listing_says_what_each_operation_does():
    lines = list(listing(stream_of(cut(1500, 512, 512))))
    assert lines[0].startswith("xdna1, 4 columns x 6 rows: ")
    assert [line.strip() for line in lines[4:7]] == [
        "3  column 0, shim tile, descriptor 1: write 16,384 words as 8 x 64 x 32 with steps 32, 256, 1 "
        "(burst 2, ax cache 2, valid 1)",
        "4  column 0, shim tile, descriptor 1, word 1: patch the address of A + 0 bytes",
        "5  column 0, MM2S 0: push descriptor 1, 4 times",
    ]
    assert "as 8 x 64 x 16 with steps 16,384, 256, 1, 4 times, each 64 words later (" in lines[7]
    assert lines[-1].strip().endswith("column 3, S2MM 0: wait for a token")
    assert len(lines) == 1 + len(stream_of(cut(1500, 512, 512)).operations)


def test_the_listing_shows_operations_that_no_design_has():
    lines = list(listing(Stream(Header(9, 4), (*OPERATIONS, MaskPoll(0x1D228, 0, 1 << 22)))))
    assert lines[0].startswith("generation 9, 4 columns x 6 rows: 11 operations, ")
    assert lines[-1].endswith("column 0, MM2S 0: wait until the queue has room")
    assert lines[2].endswith("write 3 words at column 0, shim tile, descriptor 0, word 0")
    memory_tile = descriptor_write(Place(3, 1, 6), {"length": 1, "valid": 1})
    assert written_descriptor(memory_tile)[0] == Place(3, 1, 6)
    _, line = listing(Stream(Header(3, 4), (memory_tile,)))
    assert line == "0  column 3, memory tile, descriptor 6: write 1 words (valid 1)"
