"""Read a file, file object or array as 16 kHz mono float32, Whisper's input: block by block, or all at once.

Files are decoded at their own rates (`file_decoder`), channels are averaged, and other rates are resampled with soxr's
high-quality filter. Nothing is normalised or trimmed, and silence is valid audio. Unusable audio raises `AudioError`.
"""

import logging
import os
import re
import shlex
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Union

import numpy as np
import numpy.typing as npt
import soxr

from tilewhisper.models.audio import file_decoder, pipes
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.recording import Block, Samples, join, to_float32
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError
from tilewhisper.models.option_fields import shown

MIN_RATE = 4_000  # Hz; telephone speech has 8000, and a corrupt header must not blow the audio up without bound
BLOCK_SAMPLES = 65_536  # of an array

ARRAY = "the array"  # the name of arrays and tensors in messages

_URL = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # one slash, because pathlib removes the second

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs

Source = Union[str, os.PathLike[str], BinaryIO, npt.NDArray[Any], "torch.Tensor"]


def decode_audio(
    input_file: Source,
    sampling_rate: int = SAMPLE_RATE,
    split_stereo: bool = False,
    *,
    strict_audio: bool = False,
    audio_track: int | str | None = None,
) -> Samples:
    """Decode audio to float32, (samples,), 16 kHz mono, full scale at ±1. The first parameters are faster-whisper's.

    `input_file` is a path; a binary file object, read from its current position to its end; or a one-dimensional array
    or tensor that is 16 kHz mono already: floats are used unscaled (contiguous float32 without a copy), int8, int16,
    int32 and uint8 are divided by their full scale. Arrays with more dimensions are refused, because it is ambiguous
    which dimension is the channels. `sampling_rate` must be 16000 and `split_stereo` False.

    Times are those of the file: silence stands in where a track starts late, has a gap, or cannot be decoded. Of a
    truncated or damaged file, what can be decoded is returned, and a warning says what is missing; with `strict_audio`
    such a file is refused. `audio_track` chooses among a file's audio tracks, by number from 1 on or by language.

    Raises `AudioError` if another rate or split channels are requested; if the file cannot be opened, is empty or not
    audio, or has no audio track or not the wanted one; if the array has the wrong shape or type; or if a sample is NaN
    or infinite. Audio of no samples is valid.
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
        _refuse_track(audio_track)
        samples = _scaled(_from_array(input_file))
        for _ in _checked(_sliced(samples), ARRAY):
            pass
        return samples
    return join(stream(input_file, strict_audio=strict_audio, audio_track=audio_track))


def _equal(value: object, allowed: int) -> bool:
    """Whether a value is the one that is allowed; an array never is."""
    return not isinstance(value, np.ndarray) and value == allowed


def stream(
    source: Source, log: AudioLog | None = None, *, strict_audio: bool = False, audio_track: int | str | None = None
) -> Iterator[Samples]:
    """Yield the samples of `decode_audio`, bit for bit, in blocks of a few seconds, so that memory stays constant.

    `log` collects the facts about the file. Raises the errors of `decode_audio` when it reaches them: a truncated file
    is detected at its end. The file is closed after the last block, or with the iterator. File objects and pipes are
    read to their end first, because they can be read only once; large ones wait in a temporary file.
    """
    log = AudioLog() if log is None else log
    if isinstance(source, np.ndarray) or _is_tensor(source):
        _refuse_track(audio_track)
        name, blocks = ARRAY, _counted(_sliced(_from_array(source)), log)
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        blocks = _from_path(name, log, audio_track)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "the file object"))
        blocks = _from_file_object(source, name, log, audio_track)
    else:
        raise AudioError(
            f"audio of type {type(source).__name__} cannot be read; pass a path, a binary file object, "
            "or a one-dimensional array at 16 kHz"
        )
    yield from _resampled(_checked(blocks, name))
    if damage := log.facts().damage:
        if strict_audio:
            raise AudioError(f"{name}: {damage}; copy or export the file again")
        _log.warning("%s: %s", name, damage)


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise `AudioError` for a file that is missing, unreadable, empty, a folder or a device, without decoding it.

    The message is that of `decode_audio`. Pipes are not opened, because they can be read only once.
    """
    name = os.fspath(path)
    with _opening(name):
        mode = Path(name).stat().st_mode
        pipes.refuse_device(mode, name)
        if not stat.S_ISFIFO(mode):
            with Path(name).open("rb") as file:
                file_decoder.refuse_empty(file, name)


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


def _refuse_track(track: int | str | None) -> None:
    if track not in (None, 1):
        raise AudioError(f"an array has one audio track, got audio_track {track!r}; expected None or 1")


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


def _from_path(name: str, log: AudioLog, track: int | str | None) -> Iterator[Block]:
    with _opening(name):
        pipes.refuse_device(Path(name).stat().st_mode, name)
        with Path(name).open("rb") as file:
            if file.seekable():
                yield from file_decoder.blocks(file, name, log, track)
            else:
                yield from _from_file_object(file, name, log, track)


@contextmanager
def _opening(name: str) -> Iterator[None]:
    """Turn the operating system's errors into `AudioError`."""
    try:
        yield
    except FileNotFoundError as error:
        if _URL.match(name):
            raise AudioError(
                f"{name}: URLs are not fetched; download the file first, or pipe it: "
                f"curl -L {shlex.quote(name)} | tilewhisper transcribe -"
            ) from error
        if name == "-":
            raise AudioError(
                "-: no such file; standard input is sys.stdin.buffer in Python, and - for tilewhisper transcribe only"
            ) from error
        raise AudioError(f"{name}: no such file; expected the path of an audio file") from error
    except IsADirectoryError as error:
        raise AudioError(f"{name}: is a directory; expected an audio file") from error
    except PermissionError as error:
        raise AudioError(f"{name}: no permission to read the file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise AudioError(f"{name}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def _from_file_object(file: BinaryIO, name: str, log: AudioLog, track: int | str | None) -> Iterator[Block]:
    with pipes.copied(file, name) as copy:
        yield from file_decoder.blocks(copy, name, log, track)


def _counted(blocks: Iterator[Block], log: AudioLog) -> Iterator[Block]:
    for block in blocks:
        log.seconds += block.seconds
        yield block


def _checked(blocks: Iterator[Block], name: str) -> Iterator[Block]:
    """Pass the blocks on; raise for an unusable block."""
    seconds = 0.0
    for block in blocks:
        if block.rate < MIN_RATE:
            raise AudioError(f"{name}: has a sample rate of {block.rate} Hz; expected at least {MIN_RATE} Hz")
        finite = np.isfinite(block.samples)
        if not finite.all():
            seconds += int(np.argmin(finite)) / block.rate
            raise AudioError(f"{name}: has a NaN or infinite sample at {seconds:.3f} s; expected finite samples")
        seconds += block.seconds
        yield block


def _resampled(blocks: Iterator[Block]) -> Iterator[Samples]:
    # Bit-equal to soxr.resample, and so to librosa.resample, of all consecutive audio of one rate at once.
    for rate, same in groupby(blocks, key=lambda block: block.rate):
        if rate == SAMPLE_RATE:
            yield from (block.samples for block in same)
            continue
        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for block in same:
            yield resampler.resample_chunk(block.samples)
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)
