"""Audio that arrives through a pipe, and what is refused because it never ends or is not a file."""

import gc
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_audio import SAMPLE, encode, speech

from tilewhisper.models.audio import pipes, spill
from tilewhisper.models.audio.reader import check_file, decode_audio
from tilewhisper.models.errors import AudioError


def through_a_pipe(content: bytes, read: Callable[[io.BufferedReader], object]) -> object:
    """What `read` makes of a pipe into which `content` is written."""
    end, start = os.pipe()

    def feed() -> None:
        with os.fdopen(start, "wb") as writer:
            writer.write(content)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        with os.fdopen(end, "rb") as reader:
            return read(reader)
    finally:
        feeder.join(timeout=10)


def recording(folder: Path, kind: str) -> Path:
    path = folder / f"speech.{kind}"
    if kind in ("wav", "flac", "ogg"):
        soundfile.write(path, speech(), 16_000)
        return path
    codec, container = {"mp3": ("libmp3lame", "mp3"), "mkv": ("aac", "matroska"), "mp4": ("aac", "mp4")}[kind]
    return encode(path, codec, speech(), 16_000, container)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "mkv", "mp4"])
def test_a_pipe_gives_the_samples_of_the_file(kind: str, tmp_path: Path) -> None:
    path = recording(tmp_path, kind)
    expected, content = decode_audio(path), path.read_bytes()
    np.testing.assert_array_equal(through_a_pipe(content, decode_audio), expected)
    named = through_a_pipe(content, lambda reader: decode_audio(f"/dev/fd/{reader.fileno()}"))
    np.testing.assert_array_equal(named, expected)


def test_a_large_pipe_waits_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "MEMORY_BYTES", 1000)
    np.testing.assert_array_equal(through_a_pipe(SAMPLE.read_bytes(), decode_audio), decode_audio(SAMPLE))


def test_a_pipe_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            self.taken += size
            assert self.taken <= 6 << 20
            return bytes(size)

    monkeypatch.setattr(pipes, "MAX_BYTES", 5 << 20)
    with pytest.raises(AudioError, match=r"^the file object: is still not at its end after 0\.0048\S* GiB; save"):
        decode_audio(Endless())  # type: ignore[arg-type]


def test_a_full_disk_behind_a_pipe_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipes, "MEMORY_BYTES", 1000)
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(AudioError, match=r"No space left on device\); free some space there, or set TMPDIR"):
        decode_audio(io.BytesIO(SAMPLE.read_bytes()))


def test_a_full_disk_is_found_when_rows_are_appended(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr(spill, "MEMORY_BYTES", 1)
    full = Path("/dev/full").open("r+b", buffering=1 << 20)  # noqa: SIM115 (closed with the buffer)
    monkeypatch.setattr(spill.tempfile, "SpooledTemporaryFile", lambda max_size: full)
    buffer = spill.SpillBuffer()
    with pytest.raises(AudioError, match="No space left on device"):
        buffer.append(np.zeros(10, np.float32))
    assert len(buffer) == 0
    del buffer  # what was not written must not be reported again, which would fail the test
    gc.collect()  # the error's frames, which have it, may be a cycle
    assert full.closed


@pytest.mark.parametrize("refuse", [decode_audio, check_file])
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null"])
def test_devices_are_refused(refuse: Callable[[object], object], device: str) -> None:
    with pytest.raises(AudioError, match=rf"^{device}: is a device; expected an audio file, or a pipe"):
        refuse(device)
    with Path(device).open("rb") as opened, pytest.raises(AudioError, match=f"^{device}: is a device"):
        decode_audio(opened)


@pytest.mark.parametrize("refuse", [decode_audio, check_file])
def test_urls_are_not_fetched(refuse: Callable[[object], object]) -> None:
    url = "https://example.com/a.mp3?x=1&y=2"
    with pytest.raises(AudioError) as refused:
        refuse(url)
    assert str(refused.value) == (
        f"{url}: URLs are not fetched; download the file first, or pipe it: curl -L '{url}' | tilewhisper transcribe -"
    )
    with pytest.raises(AudioError, match=r"^rtsp:/camera/1: URLs are not fetched"):
        refuse(Path("rtsp://camera/1"))


def test_a_dash_is_explained_in_python() -> None:
    with pytest.raises(AudioError, match=r"^-: no such file; standard input is sys\.stdin\.buffer in Python"):
        decode_audio("-")
