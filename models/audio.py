"""A file, file object or array in; 16 kHz mono float32 out, as Whisper wants it.

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

from tilewhisper.models import containers, soundfiles
from tilewhisper.models.errors import AudioError
from tilewhisper.models.recording import Recording, Samples, to_float32

SAMPLE_RATE = 16_000  # Hz, of every Whisper model
MIN_SECONDS = 0.1  # below that there is no word to hear
MIN_RATE = 4_000  # Hz; telephone speech has 8000, and a header gone wrong would be blown up without bound

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

Source = Union[str, os.PathLike[str], BinaryIO, npt.NDArray[Any], "torch.Tensor"]


def load(source: Source) -> Samples:
    """Audio as float32, (samples,), 16 kHz mono, full scale at ±1.

    `source` is a path; a binary file object, read from its current position to its end; or a one-dimensional array or
    tensor that is 16 kHz mono already: floats are taken as they are (contiguous float32 without a copy), int8, int16,
    int32 and uint8 are scaled by their full scale. Arrays with more dimensions are refused, since which one is the
    channels cannot be told.

    Raises `AudioError`: the file cannot be opened, is empty or no audio, has no audio track, states clearly more audio
    than it holds, is shorter than `MIN_SECONDS`; the array has the wrong shape or type; a sample is NaN or infinite.
    """
    if isinstance(source, np.ndarray) or _is_tensor(source):
        name, recording = "the array", Recording(_from_array(source), SAMPLE_RATE)
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        recording = _from_path(name)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        recording = _from_file_object(source, name)
    else:
        raise AudioError(
            f"audio of type {type(source).__name__} cannot be read; pass a path, a binary file object, "
            "or a one-dimensional array at 16 kHz"
        )
    _refuse_unusable(recording, name)
    return _resampled(recording)


def check_file(path: str | os.PathLike[str]) -> None:
    """Refuse what need not be decoded to be refused: a file that is missing, unreadable, empty, or a directory.

    Raises `AudioError` with the words `load` would use. Pipes and devices pass: they can be read only once.
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


def _from_array(array: "npt.NDArray[Any] | torch.Tensor") -> Samples:
    if not isinstance(array, np.ndarray):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.ndim != 1:
        raise AudioError(
            f"the array has shape {array.shape}; expected (samples,), 16 kHz mono: "
            "average or pick the channels first, for example array.mean(axis=0)"
        )
    try:
        return to_float32(array)
    except TypeError:
        raise AudioError(
            f"the array holds {array.dtype}; expected floats within ±1, or int16, int32, int8 or uint8 PCM samples"
        ) from None


def _from_path(name: str) -> Recording:
    with _opening(name), Path(name).open("rb") as file:
        return _decode(file if file.seekable() else io.BytesIO(file.read()), name)


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


def _from_file_object(file: BinaryIO, name: str) -> Recording:
    try:
        data = file.read()
    except (OSError, ValueError) as error:  # ValueError: closed, or text that does not decode
        raise AudioError(f"{name}: cannot be read: {error}") from error
    if not isinstance(data, bytes):
        raise AudioError(f"{name}: yields {type(data).__name__}, not bytes; open it in binary mode")
    return _decode(io.BytesIO(data), name)


def _decode(handle: BinaryIO, name: str) -> Recording:
    _refuse_empty(handle, name)
    return soundfiles.read(handle, name) or containers.read(handle, name)


def _refuse_empty(handle: BinaryIO, name: str) -> None:
    if handle.seek(0, os.SEEK_END) == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected an audio file")


def _refuse_unusable(recording: Recording, name: str) -> None:
    samples, rate = recording.samples, recording.rate
    if not len(samples):
        raise AudioError(f"{name}: holds no audio (0 samples)")
    if rate < MIN_RATE:
        raise AudioError(f"{name}: has a sample rate of {rate} Hz; expected at least {MIN_RATE}")
    if (seconds := len(samples) / rate) < MIN_SECONDS:
        raise AudioError(f"{name}: is too short, {seconds:.3f} s; expected at least {MIN_SECONDS} s")
    finite = np.isfinite(samples)
    if not finite.all():
        seconds = int(np.argmin(finite)) / rate
        raise AudioError(f"{name}: holds a NaN or infinite sample at {seconds:.3f} s; expected finite samples")


def _resampled(recording: Recording) -> Samples:
    if recording.rate == SAMPLE_RATE:
        return recording.samples
    # What librosa.resample calls, bit for bit, without the 1.2 s that importing librosa takes.
    resampled: Samples = soxr.resample(recording.samples, recording.rate, SAMPLE_RATE, quality="HQ")
    return resampled
