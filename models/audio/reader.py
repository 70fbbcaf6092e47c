"""A file, file object or array in; 16 kHz mono float32 out, as Whisper wants it: block by block, or all at once.

Files are read at their own rate by libsndfile (`soundfiles`) or else by libav (`containers`), channels are averaged,
and other rates are resampled by soxr's high-quality filter. Nothing is normalised, trimmed or padded, and
silence is audio. Everything that is no usable audio ends as `AudioError`.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import numpy as np
import numpy.typing as npt
import soxr

from tilewhisper.models.audio import containers, soundfiles
from tilewhisper.models.audio.recording import Block, Samples, join, to_float32
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError

MIN_SECONDS = 0.1  # below that there is no word to hear
MIN_RATE = 4_000  # Hz; telephone speech has 8000, and a header gone wrong would be blown up without bound
BLOCK_SAMPLES = 65_536  # at the file's own rate; libav's packets of 20 ms are gathered to that

ARRAY = "the array"

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

Source = Union[str, os.PathLike[str], BinaryIO, npt.NDArray[Any], "torch.Tensor"]


def decode_audio(source: Source) -> Samples:
    """Audio as float32, (samples,), 16 kHz mono, full scale at ±1.

    `source` is a path; a binary file object, read from its current position to its end; or a one-dimensional array or
    tensor that is 16 kHz mono already: floats are taken as they are (contiguous float32 without a copy), int8, int16,
    int32 and uint8 are scaled by their full scale. Arrays with more dimensions are refused, since which one is the
    channels cannot be told.

    Raises `AudioError`: the file cannot be opened, is empty or no audio, has no audio track, states clearly more audio
    than it holds, is shorter than `MIN_SECONDS`; the array has the wrong shape or type; a sample is NaN or infinite.
    """
    if isinstance(source, np.ndarray) or _is_tensor(source):
        samples = _scaled(_from_array(source))
        for _ in _usable(_sliced(samples), ARRAY):
            pass
        return samples
    return join(stream(source))


def stream(source: Source) -> Iterator[Samples]:
    """Yield the samples of `decode_audio`, bit for bit, in blocks of some seconds, so that memory stays flat.

    Raises the errors of `decode_audio` when it reaches them: a truncated file is noticed at its end. The file is closed
    after the last block, or with the iterator. File objects and pipes are buffered, since they can be read only once.
    """
    if isinstance(source, np.ndarray) or _is_tensor(source):
        name, blocks = ARRAY, _sliced(_from_array(source))
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        blocks = _from_path(name)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        blocks = _from_file_object(source, name)
    else:
        raise AudioError(
            f"audio of type {type(source).__name__} cannot be read; pass a path, a binary file object, "
            "or a one-dimensional array at 16 kHz"
        )
    yield from _resampled(_usable(blocks, name))


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse what need not be decoded to be refused: a file that is missing, unreadable, empty, or a directory.

    Raises `AudioError` with the message of `decode_audio`. Pipes and devices pass: they can be read only once.
    """
    name = os.fspath(path)
    with _opening(name):
        if not (Path(name).is_fifo() or Path(name).is_char_device()):
            with Path(name).open("rb") as file:
                _refuse_empty(file, name)


def _is_tensor(source: object) -> "TypeIs[torch.Tensor]":
    # Torch takes 2 s to import, and reading files does without; where there is a tensor, it has been imported.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _from_array(array: "npt.NDArray[Any] | torch.Tensor") -> npt.NDArray[Any]:
    if not isinstance(array, np.ndarray):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.ndim != 1:
        raise AudioError(
            f"the array has shape {array.shape}; expected (samples,), 16 kHz mono: "
            "average or pick the channels first, for example array.mean(axis=0)"
        )
    return array


def _scaled(array: npt.NDArray[Any]) -> Samples:
    try:
        return to_float32(array)
    except TypeError:
        raise AudioError(
            f"the array holds {array.dtype}; expected floats within ±1, or int16, int32, int8 or uint8 PCM samples"
        ) from None


def _sliced(array: npt.NDArray[Any]) -> Iterator[Block]:
    for first in range(0, len(array), BLOCK_SAMPLES):
        yield Block(_scaled(array[first : first + BLOCK_SAMPLES]), SAMPLE_RATE)


def _from_path(name: str) -> Iterator[Block]:
    with _opening(name), Path(name).open("rb") as file:
        yield from _decode(file if file.seekable() else io.BytesIO(file.read()), name)


@contextmanager
def _opening(name: str) -> Iterator[None]:
    """The operating system's refusals as `AudioError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name}: is a directory; expected an audio file") from error
    except PermissionError as error:
        raise AudioError(f"{name}: no permission to read it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise AudioError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _from_file_object(file: BinaryIO, name: str) -> Iterator[Block]:
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: closed, or text that does not decode
        raise AudioError(f"{name}: cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise AudioError(f"{name}: yields {type(data).__name__}, not bytes; open it in binary mode")
    return _decode(io.BytesIO(data), name)


def _decode(handle: BinaryIO, name: str) -> Iterator[Block]:
    _refuse_empty(handle, name)
    taken = 0
    try:
        for block in soundfiles.blocks(handle, name):
            taken += len(block.samples)
            yield block
    except soundfiles.LeftToLibav:
        pass
    else:
        return
    yield from _gathered(_after(taken, containers.blocks(handle, name)))


def _after(taken: int, blocks: Iterator[Block]) -> Iterator[Block]:
    """`blocks` without their first `taken` samples."""
    for block in blocks:
        yield Block(block.samples[taken:], block.rate)
        taken = max(0, taken - len(block.samples))


def _gathered(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same samples in blocks of `BLOCK_SAMPLES` or somewhat more, the last one apart."""
    parts: list[Samples] = []
    rate = gathered = 0
    for block in blocks:
        parts.append(block.samples)
        rate, gathered = block.rate, gathered + len(block.samples)
        if gathered >= BLOCK_SAMPLES:
            yield Block(join(parts), rate)
            parts, gathered = [], 0
    if gathered:
        yield Block(join(parts), rate)


def _refuse_empty(handle: BinaryIO, name: str) -> None:
    if handle.seek(0, os.SEEK_END) == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected an audio file")


def _usable(blocks: Iterator[Block], name: str) -> Iterator[Block]:
    """The same blocks; raises where one is unusable, and at the end where all of them are too little."""
    samples, rate = 0, SAMPLE_RATE
    for block in blocks:
        rate = block.rate
        if rate < MIN_RATE:
            raise AudioError(f"{name}: has a sample rate of {rate} Hz; expected at least {MIN_RATE}")
        finite = np.isfinite(block.samples)
        if not finite.all():
            seconds = (samples + int(np.argmin(finite))) / rate
            raise AudioError(f"{name}: holds a NaN or infinite sample at {seconds:.3f} s; expected finite samples")
        samples += len(block.samples)
        yield block
    if not samples:
        raise AudioError(f"{name}: holds no audio (0 samples)")
    if (seconds := samples / rate) < MIN_SECONDS:
        raise AudioError(f"{name}: is too short, {seconds:.3f} s; expected at least {MIN_SECONDS} s")


def _resampled(blocks: Iterator[Block]) -> Iterator[Samples]:
    # Bit for bit what soxr.resample, and so librosa.resample, makes of the whole at once.
    resampler = None
    for block in blocks:
        if block.rate == SAMPLE_RATE:
            yield block.samples
            continue
        resampler = resampler or soxr.ResampleStream(block.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        yield resampler.resample_chunk(block.samples)
    if resampler:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
