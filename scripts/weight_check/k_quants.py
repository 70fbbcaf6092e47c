"""Write a whisper.cpp file's matrices in ggml's K types, which neither pip nor `tilewhisper convert` does.

Each group's step and minimum are those of the least squared error among some, weighted by the values' size: base in
q3_K had a word error rate of 376 % with those that cover all values of a group, and of 11 % with these. In q2_K it is
useless with either.
"""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tilewhisper.models.checkpoint.formats.binary import Cursor

_F16 = 1
_HEADER = "12i"
BLOCK = 256
"""Values of a block: a row must have whole blocks."""
_STEPS = tuple(0.4 + 0.05 * i for i in range(15))
"""Times the step that covers all values of a group: smaller ones cut off outliers and are finer for the others."""


def convert(source: Path, target: Path, name: str) -> None:
    """Write the file `source`, whose matrices are float16, with those in the type `name`."""
    cursor = Cursor([source], source.name)
    header = cursor.raw(struct.calcsize(_HEADER))
    mel_bins, spectrum_bins = cursor.unpack("2i")
    filters = cursor.raw(4 * mel_bins * spectrum_bins)
    (count,) = cursor.unpack("i")
    tokens = b"".join(struct.pack("<I", len(token)) + token for token in _tokens(cursor, count))
    file_type, number, encode = TYPES[name]
    with target.open("wb") as file:
        file.write(header[:-4] + struct.pack("<i", 2000 + file_type))  # 2: ggml's version of the types
        file.write(struct.pack("<2i", mel_bins, spectrum_bins) + filters + struct.pack("<i", count) + tokens)
        while not cursor.at_end:
            rank, length, kind = cursor.unpack("3i")
            shape = tuple(reversed(cursor.unpack(f"{rank}i")))
            raw = cursor.raw(length)
            stored = cursor.stored(torch.float16 if kind == _F16 else torch.float32, shape)
            quantised = rank == 2 and kind == _F16
            data = encode(stored.load().view(-1, BLOCK)) if quantised else stored.data
            file.write(struct.pack("<3i", rank, length, number if quantised else kind))
            file.write(struct.pack(f"<{rank}i", *reversed(shape)) + raw + data.numpy().tobytes())


def _tokens(cursor: Cursor, count: int) -> list[bytes]:
    return [cursor.raw(*cursor.unpack("I")) for _ in range(count)]


def _q2(blocks: Tensor) -> Tensor:
    codes, scales, minima, scale, minimum = _with_minima(blocks, 16, 3, 15)
    return torch.cat([scales | (minima << 4), _packed(codes, 2, 32), _half(scale), _half(minimum)], dim=1)


def _q3(blocks: Tensor) -> Tensor:
    codes, scales, scale = _signed(blocks, 4, 31)
    codes, scales = codes + 4, scales + 32
    groups = torch.cat([_packed(scales & 15, 4, 8), _packed(scales >> 4, 2, 4)], dim=1)
    return torch.cat([_packed(codes >> 2, 1, 32), _packed(codes & 3, 2, 32), groups, _half(scale)], dim=1)


def _q4(blocks: Tensor) -> Tensor:
    codes, scales, minima, scale, minimum = _with_minima(blocks, 32, 15, 63)
    return torch.cat([_half(scale), _half(minimum), _six_bits(scales, minima), _packed(codes, 4, 32)], dim=1)


def _q5(blocks: Tensor) -> Tensor:
    codes, scales, minima, scale, minimum = _with_minima(blocks, 32, 31, 63)
    packed = [_packed(codes >> 4, 1, 32), _packed(codes & 15, 4, 32)]
    return torch.cat([_half(scale), _half(minimum), _six_bits(scales, minima), *packed], dim=1)


def _q6(blocks: Tensor) -> Tensor:
    codes, scales, scale = _signed(blocks, 32, 127)
    codes = codes + 32
    groups = scales.to(torch.int8).view(torch.uint8)
    return torch.cat([_packed(codes & 15, 4, 64), _packed(codes >> 4, 2, 32), groups, _half(scale)], dim=1)


def _signed(blocks: Tensor, largest: int, scales: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes in [-largest, largest), group scales up to `scales`, and the scale of these, in groups of 16 values."""
    groups = blocks.view(len(blocks), 16, 16)
    steps = _fitted_steps(groups, largest)
    scale = (steps.amax(1, keepdim=True) / scales).half().float()
    group_scales = _quotient(steps, scale).round().clamp(0, scales)
    codes = _quotient(groups, (scale * group_scales)[..., None]).round().clamp(-largest, largest - 1)
    return codes.view(blocks.shape).to(torch.int16), group_scales.to(torch.int16), scale


def _with_minima(
    blocks: Tensor, length: int, largest: int, scales: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Codes up to `largest`, group scales and minima up to `scales`, and the scales of these two."""
    groups = blocks.view(len(blocks), -1, length)
    steps, minima = _fitted_range(groups, largest)
    scale = (steps.amax(1, keepdim=True) / scales).half().float()
    minimum = (minima.amax(1, keepdim=True) / scales).half().float()
    group_scales = _quotient(steps, scale).round().clamp(0, scales)
    group_minima = _quotient(minima, minimum).round().clamp(0, scales)
    above = groups + (minimum * group_minima)[..., None]
    codes = _quotient(above, (scale * group_scales)[..., None]).round().clamp(0, largest)
    integers = [numbers.to(torch.uint8) for numbers in (codes.view(blocks.shape), group_scales, group_minima)]
    return integers[0], integers[1], integers[2], scale, minimum


def _fitted_steps(groups: Tensor, largest: int) -> Tensor:
    """The steps of codes in [-largest, largest) for groups (blocks, count, length): (blocks, count)."""
    covering, weights = groups.abs().amax(2) / largest, groups.square()
    best, least = covering, torch.full_like(covering, torch.inf)
    for factor in _STEPS:
        codes = _quotient(groups, (factor * covering)[..., None]).round().clamp(-largest, largest - 1)
        steps = _quotient((weights * codes * groups).sum(2), (weights * codes.square()).sum(2)).clamp(min=0)
        error = (weights * (steps[..., None] * codes - groups).square()).sum(2)
        best, least = torch.where(error < least, steps, best), torch.minimum(error, least)
    return best


def _fitted_range(groups: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """The steps of codes in [0, largest] above minima that are 0 or negative, and these as positive numbers."""
    lowest = (-groups.amin(2)).clamp(min=0)
    covering, weights = (groups.amax(2) + lowest).clamp(min=0) / largest, _normalised(groups.abs())
    best, best_minima, least = covering, lowest, torch.full_like(covering, torch.inf)
    for factor in _STEPS:
        above = groups + (factor * lowest)[..., None]
        codes = _quotient(above, (factor * covering)[..., None]).round().clamp(0, largest)
        mean, mean_code = (weights * groups).sum(2), (weights * codes).sum(2)
        centred = codes - mean_code[..., None]
        steps = _quotient((weights * centred * groups).sum(2), (weights * centred.square()).sum(2)).clamp(min=0)
        minima = (steps * mean_code - mean).clamp(min=0)
        error = (weights * (steps[..., None] * codes - minima[..., None] - groups).square()).sum(2)
        better = error < least
        best, best_minima = torch.where(better, steps, best), torch.where(better, minima, best_minima)
        least = torch.minimum(error, least)
    return best, best_minima


def _normalised(weights: Tensor) -> Tensor:
    return _quotient(weights, weights.sum(2, keepdim=True))


def _quotient(values: Tensor, by: Tensor) -> Tensor:
    return torch.where(by > 0, values / by, 0.0)


def _packed(codes: Tensor, bits: int, run: int) -> Tensor:
    """Numbers of a few bits, the first `run` of them in the lowest bits of `run` bytes."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)[:, None]
    parts = codes.to(torch.uint8).view(len(codes), -1, 8 // bits, run) << shifts
    return parts.sum(2, dtype=torch.uint8).view(len(codes), -1)


def _six_bits(scales: Tensor, minima: Tensor) -> Tensor:
    """8 scales and 8 minima in 12 bytes: the upper 2 bits of the last 4 are above the first 4."""
    first = [part[:, :4] | ((part[:, 4:] >> 4) << 6) for part in (scales, minima)]
    return torch.cat([*first, (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)], dim=1)


def _half(scale: Tensor) -> Tensor:
    return scale.half().view(torch.uint8)


TYPES: Mapping[str, tuple[int, int, Callable[[Tensor], Tensor]]] = {
    "q2_K": (10, 10, _q2),
    "q3_K": (11, 11, _q3),
    "q4_K": (12, 12, _q4),
    "q5_K": (13, 13, _q5),
    "q6_K": (14, 14, _q6),
}
"""Name -> ggml's number of the type of files and of tensors, and the function from blocks (n, 256) to bytes."""
