"""whisper.cpp's ggml `.bin`, with tensors in float32, float16 or a quantised type (ggml_blocks.py).

    u32 magic "ggml", 11 i32 sizes (`_Header`)
    i32 mel bins, i32 spectrum bins, float32 mel filters (mel bins, spectrum bins), not used here
    i32 count of tokens, each u32 length and that many bytes, in rank order
    to the end: i32 rank, i32 name length, i32 type, rank i32 dimensions (innermost first), name, data

All numbers are little-endian. Tensor names are OpenAI's; the convolutions' biases are columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.formats import Weights
from tilewhisper.models.checkpoint.formats.binary import MAX_NAME, Cursor, size
from tilewhisper.models.checkpoint.formats.config import dims_of, model_config
from tilewhisper.models.checkpoint.formats.ggml_blocks import TYPES, Blocks, BlockType
from tilewhisper.models.checkpoint.formats.openai_names import renamed
from tilewhisper.models.checkpoint.generation_config import derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.checkpoint.stored_tensor import Storage, parameter
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer import vocabulary

_MAGIC = 0x67676D6C
_PLAIN = {0: torch.float32, 1: torch.float16}
_SPECTRUM_BINS = 201
_MAX_TOKENS = 1 << 20


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


class _Content(NamedTuple):
    header: _Header
    tokens: list[bytes]
    state: dict[str, Tensor]


def read(source: Source) -> Weights:
    """Read a ggml `.bin`. Raises CheckpointError."""
    header, tokens, state = _content(source)
    dims = dims_of(state, header.n_audio_head, source.name)
    tokenizer = vocabulary.build(tokens, header.n_vocab)
    dims = (*dims[:-1], tokenizer.n_vocab)
    return Weights(model_config(state, dims), state, tokenizer, derive(tokenizer, dims, source.files[0].stem))


def tensors(source: Source) -> dict[str, Tensor]:
    """Only the tensors of a ggml `.bin`. Raises CheckpointError."""
    return _content(source).state


def _content(source: Source) -> _Content:
    cursor = Cursor(source.files, source.name)
    (magic,) = cursor.unpack("I")
    if magic != _MAGIC:
        raise CheckpointError(f"{source.name}: not a ggml file; pass a whisper.cpp model")
    header = _Header(*cursor.unpack("11i"))
    mel_bins, spectrum_bins = cursor.unpack("2i")
    if not 0 < header.n_vocab <= _MAX_TOKENS or (mel_bins, spectrum_bins) != (header.n_mels, _SPECTRUM_BINS):
        raise CheckpointError(
            f"{source.name}: a ggml file, but not a Whisper model: its header states {header.n_vocab} tokens, "
            f"{header.n_mels} mel bins and filters of {mel_bins} by {spectrum_bins}; pass a whisper.cpp model"
        )
    cursor.skip(4 * mel_bins * spectrum_bins)
    (n_tokens,) = cursor.unpack("i")
    if not 0 <= n_tokens <= header.n_vocab:
        raise CheckpointError(
            f"{source.name}: its vocabulary has {n_tokens} of {header.n_vocab} tokens: the file is corrupt; "
            "download it again"
        )
    tokens = [cursor.raw(min(*cursor.unpack("I"), MAX_NAME)) for _ in range(n_tokens)]
    state: dict[str, Tensor] = {}
    while not cursor.at_end:
        name, storage = _tensor(cursor, source.name)
        if name in state:
            raise CheckpointError(f"{source.name}: it has {name} twice: the file is corrupt; download it again")
        state[name] = parameter(storage)
    cursor.release()
    return _Content(header, tokens, state)


def _tensor(cursor: Cursor, file: str) -> tuple[str, Storage]:
    """A tensor with its name in transformers."""
    rank, name_length, code = cursor.unpack("3i")
    shape = tuple(reversed(cursor.unpack(f"{cursor.rank(rank)}i")))
    name = cursor.name(name_length)
    if name.endswith(".bias"):
        shape = (size(shape, file),)
    ours = renamed(name, file)
    if code in _PLAIN:
        return ours, cursor.stored(_PLAIN[code], shape)
    if code in TYPES:
        return ours, _blocks(cursor, shape, TYPES[code], f"{file}: {name}")
    known = ", ".join(["f32", "f16", *(kind.name for kind in TYPES.values())])
    raise CheckpointError(f"{file}: {name} has the unknown type number {code}: allowed are {known}; use such a file")


def _blocks(cursor: Cursor, shape: tuple[int, ...], kind: BlockType, tensor: str) -> Blocks:
    values = size(shape, tensor)
    if not shape or shape[-1] % kind.length:
        raise CheckpointError(
            f"{tensor}: rows of {kind.name} must be multiples of {kind.length}, got shape {shape}: the file is "
            "corrupt; download it again"
        )
    data, mapped = cursor.span(values // kind.length * kind.nbytes)
    return Blocks(shape, data, mapped, kind)
