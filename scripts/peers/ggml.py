"""Write a loaded checkpoint as whisper.cpp's ggml `.bin` in q8_0 (layout: see the reader in models.checkpoint.formats).

As from whisper.cpp's own quantizer: matrices are q8_0, convolutions float16, all other tensors float32.
"""

import struct
from pathlib import Path
from typing import IO

import torch
from peers.openai_layout import sizes, tensors
from torch import Tensor

from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.mel_filters import mel_filters
from tilewhisper.models.tokenizer import vocabulary

_MAGIC = 0x67676D6C
_F32, _F16, _Q8_0 = 0, 1, 8  # tensor types
_MOSTLY_Q8_0 = 7  # file type
_BLOCK = 32


def write(checkpoint: Checkpoint, path: Path) -> None:
    """Write the file; `checkpoint` must come from a folder with a `tokenizer.json`."""
    tokens = vocabulary.text_tokens(checkpoint.source.folder / "tokenizer.json")
    filters = mel_filters(checkpoint.model.config.num_mel_bins).float().contiguous()
    with path.open("wb") as file:
        file.write(struct.pack("<I11i", _MAGIC, *sizes(checkpoint).values(), _MOSTLY_Q8_0))
        file.write(struct.pack("<2i", *filters.shape) + filters.numpy().tobytes())
        file.write(struct.pack("<i", len(tokens)))
        for token in tokens:
            file.write(struct.pack("<I", len(token)) + token)
        for name, tensor in tensors(checkpoint):
            _write_tensor(file, name, tensor)


def _write_tensor(file: IO[bytes], name: str, tensor: Tensor) -> None:
    kind = {3: _F16, 2: _Q8_0}.get(tensor.ndim, _F32)
    if name.endswith("positional_embedding"):
        kind = _F32
    elif name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        tensor = tensor[:, None]  # a column
    raw = name.encode()
    file.write(struct.pack("<3i", tensor.ndim, len(raw), kind))
    file.write(struct.pack(f"<{tensor.ndim}i", *reversed(tensor.shape)) + raw)
    file.write(_q8_0(tensor) if kind == _Q8_0 else _bytes(tensor.to(torch.float16 if kind == _F16 else torch.float32)))


def _q8_0(tensor: Tensor) -> bytes:
    """Quantize in blocks of 32: a float16 scale (largest magnitude / 127) and 32 int8 values."""
    blocks = tensor.float().reshape(-1, _BLOCK)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    codes = torch.where(scale > 0, blocks / scale, 0).round().to(torch.int8)
    return _bytes(torch.cat([scale.half().view(torch.uint8), codes.view(torch.uint8)], dim=1))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
