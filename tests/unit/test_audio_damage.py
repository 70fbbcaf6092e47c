"""Reading audio: of truncated and damaged files what decodes is read, and the facts say what is missing."""

import io
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_audio import SAMPLE, SAMPLE_COUNT, encode, half, piped, speech, with_hole

from tilewhisper.models.audio.facts import AudioFacts, AudioLog, Gap
from tilewhisper.models.audio.reader import decode_audio, stream
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError

SECONDS = SAMPLE_COUNT / SAMPLE_RATE  # 7.3
NOISE = np.random.default_rng(7).bytes(65_536)


def read(source: object) -> tuple[np.ndarray, AudioFacts]:
    log = AudioLog()
    samples = np.concatenate(list(stream(source, log)))  # type: ignore[arg-type]
    return samples, log.facts()


def found(samples: np.ndarray, start: float, end: float) -> float:
    """Where this part of the sample's speech is in `samples`, in seconds."""
    part = speech()[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    return float(np.argmax(np.correlate(samples, part, "valid"))) / SAMPLE_RATE


# ---- truncated files

ENCODED = [
    ("aac", "ipod", 16_000),
    ("libopus", "webm", 48_000),
    ("aac", "matroska", 16_000),
    ("aac", "flv", 16_000),
    ("libmp3lame", "mp3", 16_000),
]
"""Formats that state a length, and of which damage in the middle is found."""
SIZED = [("libmp3lame", "asf", 16_000), ("libmp3lame", "avi", 16_000)]
"""Formats that state the size of the file."""


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "W64", "AIFF", "AU", "FLAC"])
def test_the_intact_half_of_a_file_is_read(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "whole", speech(), SAMPLE_RATE, format=kind, subtype="PCM_16")
    path = half(tmp_path / "whole")
    samples, facts = read(path)
    np.testing.assert_array_equal(samples, speech()[: len(samples)])
    assert len(samples) == pytest.approx(SAMPLE_COUNT / 2, abs=0.4 * SAMPLE_RATE)
    assert facts.stated_seconds == pytest.approx(SECONDS, abs=0.01)
    assert facts.decoded_seconds == len(samples) / SAMPLE_RATE
    words = f"{path}: {facts.damage}"
    assert caplog.messages == [words] and caplog.records[0].levelno == logging.WARNING
    assert f"its header states 7.3 s, but only {facts.decoded_seconds:.1f} s could be read" in words
    with pytest.raises(AudioError, match="truncated or damaged"):
        decode_audio(path, strict_audio=True)


@pytest.mark.parametrize(("codec", "container", "rate"), [*ENCODED, *SIZED])
def test_the_intact_half_of_a_container_is_read(codec: str, container: str, rate: int, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole", codec, np.repeat(speech(), rate // SAMPLE_RATE), rate, container)
    samples, facts = read(half(whole))
    assert found(samples, 1, 2.5) == pytest.approx(1, abs=0.1)
    assert facts.decoded_seconds == pytest.approx(SECONDS / 2, abs=1.0)
    assert facts.stated_seconds == pytest.approx(SECONDS, abs=1.0)  # from the size in bytes where that is stated
    assert str(facts.damage).startswith(f"truncated or damaged: its header states {facts.stated_seconds:.1f} s, but ")


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_an_ogg_file_that_ends_within_a_page_is_truncated(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "whole.ogg"
    soundfile.write(path, speech(), SAMPLE_RATE, format="OGG", subtype=codec)
    assert read(path)[1].damage is None
    samples, facts = read(half(path))
    assert f"it ends within an Ogg page, after {len(samples) / SAMPLE_RATE:.1f} s" in str(facts.damage)
    with pytest.raises(AudioError, match="ends within an Ogg page"):
        decode_audio(half(path), strict_audio=True)


# ---- damage in the middle

DAMAGED = [*ENCODED, ("aac", "adts", 16_000), ("ac3", "ac3", 48_000), ("aac", "mpegts", 16_000)]


@pytest.mark.parametrize("content", [b"\0", NOISE], ids=["zeros", "noise"])
@pytest.mark.parametrize(("codec", "container", "rate"), DAMAGED)
def test_audio_after_damage_keeps_its_time(
    codec: str, container: str, rate: int, content: bytes, tmp_path: Path
) -> None:
    path = encode(tmp_path / "hole", codec, np.repeat(np.tile(speech(), 4), rate // SAMPLE_RATE), rate, container)
    samples, facts = read(with_hole(path, 0.4, 0.1, content))
    assert len(samples) / SAMPLE_RATE == pytest.approx(4 * SECONDS, abs=0.3)
    assert found(samples[-SAMPLE_COUNT:], 3, 5) == pytest.approx(3, abs=0.3)
    assert sum(gap.seconds for gap in facts.gaps) == pytest.approx(0.1 * 4 * SECONDS, abs=6)  # a cluster lasts 5 s
    for gap in facts.gaps:
        assert 0.3 * 4 * SECONDS < gap.start < gap.end < 0.75 * 4 * SECONDS
    assert facts.decoded_seconds == pytest.approx(4 * SECONDS - sum(gap.seconds for gap in facts.gaps), abs=0.3)
    assert "silence stands in for " in str(facts.damage)


@pytest.mark.parametrize("content", [b"\0", NOISE], ids=["zeros", "noise"])
def test_a_flac_file_keeps_its_times_after_damage(content: bytes, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hole.flac", np.tile(speech(), 8), SAMPLE_RATE)
    samples, facts = read(with_hole(tmp_path / "hole.flac", 0.4, 0.1, content))
    assert len(samples) == 8 * SAMPLE_COUNT
    np.testing.assert_array_equal(samples[-3 * SAMPLE_COUNT :], np.tile(speech(), 3))
    np.testing.assert_array_equal(samples[: 3 * SAMPLE_COUNT], np.tile(speech(), 3))
    assert sum(gap.seconds for gap in facts.gaps) == pytest.approx(0.8 * SECONDS, abs=1)


def test_gaps_that_touch_are_one() -> None:
    log = AudioLog(seconds=10, stated_seconds=10)
    for start in (1.0, 2.0, 5.0):
        log.add_gap(start, 1.0)
    assert log.gaps == [Gap(1, 3), Gap(5, 6)]
    assert log.facts().damage == (
        "damaged: its header states 10.0 s, but only 7.0 s could be read; silence stands in for 1.0-3.0 s, 5.0-6.0 s"
    )


def test_short_losses_are_no_damage() -> None:
    log = AudioLog(seconds=10)
    log.add_gap(1, 0.2)
    log.compare(stated=10.2, reached=10.0)
    assert log.facts().damage is None


# ---- headers that are wrong


@pytest.mark.parametrize(
    ("codec", "container", "rate"),
    [
        *ENCODED,
        *SIZED,
        ("pcm_s16le", "avi", 16_000),
        ("pcm_s16le", "w64", 16_000),
        ("pcm_s16le", "wav", 16_000),
        ("pcm_s16be", "aiff", 16_000),
        ("pcm_s16be", "caf", 16_000),
        ("pcm_s16be", "au", 16_000),
        ("libopus", "ogg", 48_000),
    ],
)
def test_a_header_that_was_never_finished_is_no_damage(codec: str, container: str, rate: int) -> None:
    if container == "ipod":
        pytest.skip("mp4 is written into a file only")
    data = piped(codec, np.repeat(speech(), rate // SAMPLE_RATE), rate, container)
    samples, facts = read(io.BytesIO(data))
    assert len(samples) == pytest.approx(SAMPLE_COUNT, abs=0.15 * SAMPLE_RATE)
    assert facts.damage is None


def wav() -> bytearray:
    buffer = io.BytesIO()
    soundfile.write(buffer, speech(), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return bytearray(buffer.getvalue())


@pytest.mark.parametrize("size", [0, 1, 999, 100_000, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_file_is_read_to_its_end_whatever_its_size_says(size: int) -> None:
    data = wav()
    position = data.index(b"data") + 4
    data[position : position + 4] = struct.pack("<I", size)
    samples, facts = read(io.BytesIO(data))
    np.testing.assert_array_equal(samples, speech())
    assert facts.damage is None


def test_chunks_behind_the_samples_are_no_samples() -> None:
    data = wav() + b"LIST" + struct.pack("<I", 40_000) + NOISE[:40_000]
    np.testing.assert_array_equal(read(io.BytesIO(data))[0], speech())
    np.testing.assert_array_equal(read(io.BytesIO(wav() + NOISE[:3000]))[0], speech())


@pytest.mark.parametrize("content", ["wav", "flac"])
def test_an_id3_tag_may_come_first(content: str) -> None:
    tag = b"ID3\4\0\0\0\0\2\0" + bytes(256)
    samples, facts = read(io.BytesIO(tag + (wav() if content == "wav" else SAMPLE.read_bytes())))
    np.testing.assert_array_equal(samples, speech())
    assert facts.damage is None


@pytest.mark.parametrize("frames", [1, 100_000])
def test_the_frames_of_a_xing_header_do_not_matter_when_all_bytes_are_there(frames: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "sound.mp3", "libmp3lame", speech(), SAMPLE_RATE, "mp3")
    data = bytearray(path.read_bytes())
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    data[tag + 8 : tag + 12] = struct.pack(">I", frames)
    samples, facts = read(io.BytesIO(data))
    assert len(samples) == pytest.approx(SAMPLE_COUNT, abs=0.15 * SAMPLE_RATE)
    assert facts.damage is None
    assert read(io.BytesIO(data[: len(data) // 2]))[1].damage if frames > 1 else True


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("aac", "adts")])
def test_junk_around_the_frames_is_no_damage(codec: str, container: str, tmp_path: Path) -> None:
    data = encode(tmp_path / "sound", codec, speech(), SAMPLE_RATE, container).read_bytes()
    samples, facts = read(io.BytesIO(NOISE[:3000] + data + NOISE[:3000]))
    assert len(samples) == pytest.approx(SAMPLE_COUNT, abs=0.3 * SAMPLE_RATE)
    assert facts.damage is None and not facts.silence_seconds
