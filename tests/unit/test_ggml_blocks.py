"""ggml's blocks against the decoder of the package gguf, bit for bit."""

import numpy as np
import pytest
import torch

from tilewhisper.models.checkpoint.formats.ggml_blocks import TYPES, Blocks, BlockType

HALVES = {
    "q4_0": (0,),
    "q4_1": (0, 2),
    "q5_0": (0,),
    "q5_1": (0, 2),
    "q8_0": (0,),
    "q2_K": (80, 82),
    "q3_K": (108,),
    "q4_K": (0, 2),
    "q5_K": (0, 2),
    "q6_K": (208,),
}
"""Where the float16 scales of a block are, which random bytes would make infinite; the rest may be any bytes."""


def random_blocks(kind: BlockType, count: int) -> torch.Tensor:
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (count, kind.nbytes), dtype=np.uint8)
    for place in HALVES[kind.name]:
        scales = generator.normal(size=(count, 1)).astype(np.float16)
        blocks[:, place : place + 2] = scales.view(np.uint8)
    return torch.from_numpy(blocks)


@pytest.mark.parametrize("number", TYPES, ids=lambda number: TYPES[number].name)
def test_values_are_those_of_ggml(number: int) -> None:
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    kind = TYPES[number]
    blocks = random_blocks(kind, 64)
    stored = Blocks((16, 4 * kind.length), blocks.view(-1), False, kind)
    expected = gguf.dequantize(blocks.numpy().reshape(16, -1), gguf.GGMLQuantizationType(number))
    assert torch.equal(stored.load(), torch.from_numpy(expected))
    assert torch.equal(stored.pick(torch.tensor([[15, 2]])), torch.from_numpy(expected[[[15, 2]]]))
    assert stored.pick(torch.empty(2, 0, dtype=torch.long)).shape == (2, 0, 4 * kind.length)
    assert torch.equal(stored.part(3, 9).load(), torch.from_numpy(expected[3:9]))
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(number)] == (kind.length, kind.nbytes)
