"""Read a file, file object or array as 16 kHz mono float32, Whisper's input: block by block, or all at once.

Files are decoded at their own rate by libsndfile (`soundfiles`) or else by libav (`containers`), channels are averaged,
and other rates are resampled with soxr's high-quality filter. Nothing is normalised, trimmed or padded, and silence is
valid audio. Unusable audio raises `AudioError`.
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
from tilewhisper.models.option_fields import shown

MIN_RATE = 4_000  # Hz; telephone speech has 8000, and a corrupt header must not blow the audio up without bound
BLOCK_SAMPLES = 65_536  # at the file's own rate; libav's packets of 20 ms are merged into blocks of this size

ARRAY = "the array"  # the name of arrays and tensors in messages

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

Source = Union[str, os.PathLike[str], BinaryIO, npt.NDArray[Any], "torch.Tensor"]


def decode_audio(input_file: Source, sampling_rate: int = SAMPLE_RATE, split_stereo: bool = False) -> Samples:
    """Decode audio to float32, (samples,), 16 kHz mono, full scale at ±1. The parameters are faster-whisper's.

    `input_file` is a path; a binary file object, read from its current position to its end; or a one-dimensional array
    or tensor that is 16 kHz mono already: floats are used unscaled (contiguous float32 without a copy), int8, int16,
    int32 and uint8 are divided by their full scale. Arrays with more dimensions are refused, because it is ambiguous
    which dimension is the channels. `sampling_rate` must be 16000 and `split_stereo` False.

    Raises `AudioError` if another rate or split channels are requested; if the file cannot be opened, is empty or not
    audio, has no audio track, or states clearly more audio than it holds; if the array has the wrong shape or type; or
    if a sample is NaN or infinite. Audio of no samples is valid.
    """
    if not _equal(sampling_rate, SAMPLE_RATE):
        raise AudioError(
            f"sampling_rate must be {SAMPLE_RATE}, got {shown(sampling_rate)}: "
            "decode at that rate, then resample, for example with soxr.resample"
        )
    if not _equal(split_stereo, False):
        raise AudioError(
            f"split_stereo must be False, got {shown(split_stereo)}: channels are averaged; "
            "to transcribe them separately, pass each as a one-dimensional array at 16 kHz"
        )
    if isinstance(input_file, np.ndarray) or _is_tensor(input_file):
        samples = _scaled(_from_array(input_file))
        for _ in _checked(_sliced(samples), ARRAY):
            pass
        return samples
    return join(stream(input_file))


def _equal(value: object, allowed: int) -> bool:
    """Whether a value is the one that is allowed; an array never is."""
    return not isinstance(value, np.ndarray) and value == allowed


def stream(source: Source) -> Iterator[Samples]:
    """Yield the samples of `decode_audio`, bit for bit, in blocks of a few seconds, so that memory stays constant.

    Raises the errors of `decode_audio` when it reaches them: a truncated file is detected at its end. The file is
    closed after the last block, or with the iterator. File objects and pipes are read into memory first, because they
    can be read only once.
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
    yield from _resampled(_checked(blocks, name))


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `AudioError` for a file that is missing, unreadable, empty, or a directory, without decoding it.

    The message is that of `decode_audio`. Pipes and devices are not opened, because they can be read only once.
    """
    name = os.fspath(path)
    with _opening(name):
        if not (Path(name).is_fifo() or Path(name).is_char_device()):
            with Path(name).open("rb") as file:
                _refuse_empty(file, name)


def _is_tensor(source: object) -> "TypeIs[torch.Tensor]":
    # Reading files does not need torch, which takes 2 s to import; whoever passes a tensor has imported it already.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _from_array(array: "npt.NDArray[Any] | torch.Tensor") -> npt.NDArray[Any]:
    if not isinstance(array, np.ndarray):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.ndim != 1:
        raise AudioError(
            f"the array has shape {array.shape}; expected (samples,), 16 kHz mono: "
            "average the channels or select one first, for example with array.mean(axis=0)"
        )
    return array


def _scaled(array: npt.NDArray[Any]) -> Samples:
    try:
        return to_float32(array)
    except TypeError:
        raise AudioError(
            f"the array has dtype {array.dtype}; expected floats within ±1, or int16, int32, int8 or uint8 PCM samples"
        ) from None


def _sliced(array: npt.NDArray[Any]) -> Iterator[Block]:
    for first in range(0, len(array), BLOCK_SAMPLES):
        yield Block(_scaled(array[first : first + BLOCK_SAMPLES]), SAMPLE_RATE)


def _from_path(name: str) -> Iterator[Block]:
    with _opening(name), Path(name).open("rb") as file:
        yield from _decode(file if file.seekable() else io.BytesIO(file.read()), name)


@contextmanager
def _opening(name: str) -> Iterator[None]:
    """Turn the operating system's errors into `AudioError`."""
    try:
        yield
    except FileNotFoundError as error:
        raise AudioError(f"{name}: no such file; expected the path of an audio file") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name}: is a directory; expected an audio file") from error
    except PermissionError as error:
        raise AudioError(f"{name}: no permission to read the file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise AudioError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _from_file_object(file: BinaryIO, name: str) -> Iterator[Block]:
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: closed, or text that does not decode
        raise AudioError(f"{name}: cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise AudioError(f"{name}: its read() returns {type(data).__name__}, not bytes; open it in binary mode")
    return _decode(io.BytesIO(data), name)


def _decode(handle: BinaryIO, name: str) -> Iterator[Block]:
    _refuse_empty(handle, name)
    done = 0
    try:
        for block in soundfiles.blocks(handle, name):
            done += len(block.samples)
            yield block
    except soundfiles.UseLibav:
        pass
    else:
        return
    yield from _merged(_without_first(done, containers.blocks(handle, name)))


def _without_first(count: int, blocks: Iterator[Block]) -> Iterator[Block]:
    """Drop the first `count` samples of `blocks`."""
    for block in blocks:
        yield Block(block.samples[count:], block.rate)
        count = max(0, count - len(block.samples))


def _merged(blocks: Iterator[Block]) -> Iterator[Block]:
    """Merge small blocks until each has at least `BLOCK_SAMPLES`, except the last."""
    parts: list[Samples] = []
    rate = merged = 0
    for block in blocks:
        parts.append(block.samples)
        rate, merged = block.rate, merged + len(block.samples)
        if merged >= BLOCK_SAMPLES:
            yield Block(join(parts), rate)
            parts, merged = [], 0
    if merged:
        yield Block(join(parts), rate)


def _refuse_empty(handle: BinaryIO, name: str) -> None:
    if handle.seek(0, os.SEEK_END) == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected an audio file")


def _checked(blocks: Iterator[Block], name: str) -> Iterator[Block]:
    """Pass the blocks on; raise for an unusable block."""
    samples = 0
    for block in blocks:
        rate = block.rate
        if rate < MIN_RATE:
            raise AudioError(f"{name}: has a sample rate of {rate} Hz; expected at least {MIN_RATE} Hz")
        finite = np.isfinite(block.samples)
        if not finite.all():
            seconds = (samples + int(np.argmin(finite))) / rate
            raise AudioError(f"{name}: has a NaN or infinite sample at {seconds:.3f} s; expected finite samples")
        samples += len(block.samples)
        yield block


def _resampled(blocks: Iterator[Block]) -> Iterator[Samples]:
    # Bit-equal to soxr.resample, and so to librosa.resample, of the whole audio at once.
    resampler = None
    for block in blocks:
        if block.rate == SAMPLE_RATE:
            yield block.samples
            continue
        resampler = resampler or soxr.ResampleStream(block.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        yield resampler.resample_chunk(block.samples)
    if resampler:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
