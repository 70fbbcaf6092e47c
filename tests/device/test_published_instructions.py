"""The encoder gives every published word, and the decoder reads every published stream.

The pairs of parameters and words come from public tests of mlir-aie, collected as numbers in the shared data.
"""

import json

import numpy as np
import pytest

from tilewhisper.kernels.xdna.instructions.descriptors import Place, descriptor_write
from tilewhisper.kernels.xdna.instructions.lowering import Choices, patch, push, transfer
from tilewhisper.kernels.xdna.instructions.operations import (
    AddressPatch,
    BlockWrite,
    Header,
    LoadConfiguration,
    MaskWrite,
    Preempt,
    Stream,
    Sync,
    Write,
)
from tilewhisper.kernels.xdna.instructions.registers import MEMORY_ROW, SHIM_ROW, Channel, Direction, tile_address
from tilewhisper.kernels.xdna.instructions.words import decode, encode
from tilewhisper.kernels.xdna.sequence import Descriptor

PAIRS = range(13)
HEADERS = {"npu1": Header(3, 4), "npu1_1col": Header(3, 1), "npu2": Header(4, 8), "npu2_1col": Header(4, 1)}
DTYPES = {"i32": "int32", "f32": "f32", "bf16": "bf16"}
ARGUMENTS = "ABC"
COMPILER = {"burst": 2, "ax_cache": 2, "valid": 1}


@pytest.fixture(scope="module")
def pairs(shared):
    file = shared / "npu" / "instruction_streams.json"
    if not file.is_file():
        pytest.skip(f"{file} is missing")
    found = json.loads(file.read_text())["pairs"]
    assert len(found) == len(PAIRS)
    return found


def number(value):
    return int(value.split()[0], 0) if isinstance(value, str) else value


def words_of(*operations, header=HEADERS["npu1"]):
    """The words of operations without the header."""
    return encode(Stream(header, operations)).tolist()[4:]


def of_transfer(given):
    """What one transfer is written as, by operation."""
    direction, channel = given["direction"], given.get("channel", 0)
    offset = given.get("offset", 0) + sum(
        start * stride for start, stride in zip(given.get("offsets", ()), given["strides"], strict=False)
    )
    item = Descriptor(
        ARGUMENTS[given["argument"]],
        given.get("column", 0),
        "from array" if direction == "S2MM" else "to array",
        offset,
        tuple(given["sizes"]),
        tuple(given["strides"]),
        given.get("id", 0),
    )
    token = given.get("issue_token") is True
    parts = transfer(
        item,
        "ABC".index(item.operand),
        DTYPES[given["element"]],
        Channel(Direction[direction], channel),
        Choices(),
        token=token,
    )
    return parts, by_operation(*parts) | {"operand": given.get("operand")}


def by_operation(written, patched, pushed):
    """The values of three operations, read from their words."""
    block, start = words_of(written), words_of(pushed)
    found = {
        "blockwrite": {"address": block[2], "words": block[4:]},
        "write32": {"address": start[2], "value": start[4]},
        "words": block[4:],
        "repeat_field": start[4] >> 16 & 0xFF,
    }
    if patched:
        word = words_of(patched)
        found["address_patch"] = {"address": word[6], "argument": word[8], "offset_bytes": word[10]}
    return found


def of_linear(given):
    size = given.get("iteration_size", 1)
    iteration = {"iteration_size": size - 1, "iteration_step": given["iteration_stride"] - 1} if size > 1 else {}
    written = descriptor_write(
        Place(given["column"], SHIM_ROW, given["id"]), COMPILER | {"length": given["linear_elements"]} | iteration
    )
    channel = Channel(Direction[given["direction"]], given["channel"])
    started = push(given["column"], channel, given["id"], repeat=1 + given.get("repeat_extra", 0))
    return by_operation(written, None, started)


def of_push(given):
    channel = Channel(Direction[given["direction"]], given["channel"])
    started = push(given["column"], channel, given["bd"], repeat=given["repeat_field"] + 1, token=given["issue_token"])
    # The test gives the address without its column.
    address = started.address - tile_address(given["column"], SHIM_ROW, 0)
    return {"write32": {"address": address, "value": started.value, "column": given["column"]}}


def of_named(name, given):
    """One operation of a whole stream."""
    values = {key: number(value) for key, value in given.items() if not isinstance(value, list)}
    address = values.get("address", 0)
    if "column" in values and name != "sync":
        address = tile_address(values["column"], values["row"], address & 0xFFFFF)
    match name:
        case "write32":
            return Write(address, values["value"])
        case "blockwrite":
            return BlockWrite(address, tuple(given["data"]), values.get("column", 0), values.get("row", 0))
        case "maskwrite32":
            return MaskWrite(address, values["value"], values["mask"])
        case "sync":
            keys = ("column", "row", "direction", "channel", "column_num", "row_num")
            return Sync(*(values[key] for key in keys))
        case "load_pdi":
            return LoadConfiguration(values["id"], values["size"], values["address"])
        case "preempt":
            return Preempt(values["level"])
    raise ValueError(name)


def of_memory_tile(given):
    values = {
        "length": given["buffer_length"],
        "address": given["buffer_offset"],
        "next_descriptor": given["next_bd"],
        "use_next": given["use_next_bd"],
        "valid": given["valid_bd"],
        "d0_size": given["d0"]["size"],
        "d0_step": given["d0"]["stride_field"],
        "d1_size": given["d1"]["size"],
        "d1_step": given["d1"]["stride_field"],
        "d2_step": given["d2"]["stride_field"],
        "iteration_current": given["iteration"]["current"],
        "iteration_size": given["iteration"]["size_field"],
        "iteration_step": given["iteration"]["stride_field"],
        "acquire_enable": given["lock"]["acquire_enable"],
        "acquire_lock": given["lock"]["acquire_id"],
        "acquire_value": given["lock"]["acquire_value"],
        "release_lock": given["lock"]["release_id"],
        "release_value": given["lock"]["release_value"],
    }
    write = descriptor_write(Place(given["column"], MEMORY_ROW, given["bd_id"]), values)
    # "As above": of the stream of single operations.
    return write, Write(tile_address(3, 4, 0xDEF), 0x42), Sync(3, 4, 1, 5, 1, 2)


def of_patch(given):
    register = given.get("address", 0x1D004)
    translated = patch(register, given["argument"], given["offset"]) if given.get("fold") else None
    word = words_of(translated or AddressPatch(register, given["argument"], given["offset"]))
    return {"words_6_to_11": word[6:12], "words_8_to_10": word[8:11]}


KINDS = {
    "sizes": lambda given: of_transfer(given)[1],
    "linear_elements": of_linear,
    "bd": of_push,
    "offset": of_patch,
}
"""A key that only this kind of input has -> what makes its words."""


def made(pairs, pair):
    """What the encoder gives for a pair, in the form of its published side."""
    given, header = pair["in"], HEADERS.get(pair["device"].partition(" ")[0])
    if given == "pair 1":
        operations, _ = of_transfer(pairs[0]["in"])
        return whole(header, operations)
    if isinstance(given, dict):
        return of_transfer(given)[1] if "sizes" in given else whole(header, of_memory_tile(given))
    if "words" in pair["out"]:
        return whole(header, tuple(of_named(each["op"], each["in"]) for each in given))
    return [next(make for key, make in KINDS.items() if key in each)(each) for each in given]


def whole(header, operations):
    stream = Stream(header, operations)
    words = encode(stream)
    assert decode(words.tobytes()) == stream
    return {"words": words.tolist(), "bytes": words.nbytes}


def numbers(value):
    """The published side with its words as numbers."""
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [numbers(each) for each in value]
    return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value


def assert_published(found, published):
    """Everything that is published is the same in what was found."""
    if isinstance(published, dict):
        for key, value in published.items():
            assert_published(found[key], value)
    elif isinstance(published, list) and not all(isinstance(each, int) for each in published):
        for ours, theirs in zip(found, published, strict=True):
            assert_published(ours, theirs)
    else:
        assert found == published


@pytest.mark.parametrize("index", PAIRS)
def test_every_published_word_is_reproduced(pairs, index):
    assert_published(made(pairs, pairs[index]), numbers(pairs[index]["out"]))


def test_a_published_stream_is_read_and_written_without_change(pairs):
    streams = [pair["out"]["words"] for pair in pairs if isinstance(pair["out"], dict) and "words" in pair["out"]]
    assert len(streams) == 5
    for words in map(numbers, streams):
        assert encode(decode(np.array(words, "<u4").tobytes())).tolist() == words
