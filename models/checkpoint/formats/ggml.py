"""whisper.cpp's ggml `.bin`, with tensors in float32, float16 or q8_0.

    u32 magic "ggml", 11 i32 sizes (`_Header`)
    i32 mel bins, i32 spectrum bins, float32 mel filters (mel bins, spectrum bins), not used here
    i32 count of tokens, each u32 length and that many bytes, in rank order
    to the end: i32 rank, i32 name length, i32 type, rank i32 dimensions (innermost first), name, data

All numbers are little-endian. A q8_0 tensor is blocks of 32 values: a float16 scale and 32 int8, value = scale * int8.
Tensor names are OpenAI's; the convolutions' biases are columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from tilewhisper.models.checkpoint.formats import Weights
from tilewhisper.models.checkpoint.formats.binary import Cursor, contents
from tilewhisper.models.checkpoint.formats.config import dims_of, model_config
from tilewhisper.models.checkpoint.formats.openai_names import renamed
from tilewhisper.models.checkpoint.generation_config import derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer import vocabulary

_MAGIC = 0x67676D6C
_Q8_0, _BLOCK = 8, 32
_PLAIN = {0: torch.float32, 1: torch.float16}
_OTHER_TYPES = {
    2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 9: "q8_1", 10: "q2_K", 11: "q3_K", 12: "q4_K", 13: "q5_K", 14: "q6_K",
}  # fmt: skip


class _Header(NamedTuple):
    n_vocab: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int
    n_text_ctx: int
    n_text_state: int
    n_text_head: int
    n_text_layer: int
    n_mels: int
    file_type: int


def read(source: Source) -> Weights:
    """Read a ggml `.bin`. Raises CheckpointError."""
    (path,) = source.files
    cursor = Cursor(contents(source.files), source.name)
    (magic,) = cursor.unpack("I")
    if magic != _MAGIC:
        raise CheckpointError(f"{source.name}: not a ggml file; pass a whisper.cpp model")
    header = _Header(*cursor.unpack("11i"))
    mel_bins, spectrum_bins = cursor.unpack("2i")
    cursor.skip(4 * _count(mel_bins, source.name) * _count(spectrum_bins, source.name))
    (n_tokens,) = cursor.unpack("i")
    tokens = [cursor.raw(*cursor.unpack("I")) for _ in range(_count(n_tokens, source.name))]
    tensors: dict[str, torch.Tensor] = {}
    while not cursor.at_end:
        name, tensor = _tensor(cursor, source.name)
        tensors[name] = tensor
    state = renamed(tensors, source.name)
    dims = dims_of(state, header.n_audio_head, source.name)
    tokenizer = vocabulary.build(tokens, header.n_vocab)
    return Weights(model_config(state, dims), state, tokenizer, derive(tokenizer, dims, path.stem))


def _count(number: int, file: str) -> int:
    if number < 0:
        raise CheckpointError(f"{file}: it states a size of {number}: the file is corrupt; download it again")
    return number


def _tensor(cursor: Cursor, file: str) -> tuple[str, torch.Tensor]:
    rank, name_length, code = cursor.unpack("3i")
    shape = tuple(_count(length, file) for length in reversed(cursor.unpack(f"{_count(rank, file)}i")))
    name = cursor.name(_count(name_length, file))
    if code == _Q8_0:
        tensor = _q8_0(cursor, shape, f"{file}: {name}")
    elif code in _PLAIN:
        tensor = cursor.tensor(_PLAIN[code], shape).to(torch.float32)
    else:
        kind = _OTHER_TYPES.get(code, f"number {code}")
        raise CheckpointError(f"{file}: {name} has type {kind}: only f32, f16 and q8_0 are supported; use such a file")
    return name, tensor.reshape(-1) if name.endswith(".bias") else tensor


def _q8_0(cursor: Cursor, shape: tuple[int, ...], tensor: str) -> torch.Tensor:
    if not shape or shape[-1] % _BLOCK:
        raise CheckpointError(
            f"{tensor}: rows of q8_0 must be multiples of {_BLOCK}, got shape {shape}: the file is corrupt; "
            "download it again"
        )
    rows = 1
    for length in shape:
        rows *= length
    blocks = cursor.tensor(torch.uint8, (rows // _BLOCK, 2 + _BLOCK))
    scales = blocks[:, :2].contiguous().view(torch.float16).to(torch.float32)
    return (scales * blocks[:, 2:].view(torch.int8).to(torch.float32)).reshape(shape)
