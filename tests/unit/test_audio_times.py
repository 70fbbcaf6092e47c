"""Reading audio: samples are at the times of their file, whatever is missing of it."""

from pathlib import Path

import numpy as np
import pytest
from made_audio import SAMPLE, SAMPLE_COUNT, encode, retimed, speech, tones

from tilewhisper.models.audio.facts import AudioFacts, AudioLog
from tilewhisper.models.audio.reader import decode_audio, stream
from tilewhisper.models.audio.track_clock import TrackClock
from tilewhisper.models.constants import SAMPLE_RATE

SECONDS = SAMPLE_COUNT / SAMPLE_RATE  # 7.3


def read(path: Path, **options: object) -> tuple[np.ndarray, AudioFacts]:
    log = AudioLog()
    samples = np.concatenate(list(stream(path, log, **options)))  # type: ignore[arg-type]
    return samples, log.facts()


def starts_at(samples: np.ndarray, part: np.ndarray) -> float:
    """Where `part` is in `samples`, in seconds."""
    return float(np.argmax(np.correlate(samples, part, "valid"))) / SAMPLE_RATE


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "mov"])
def test_the_sound_of_a_video_keeps_its_delay(container: str, tmp_path: Path) -> None:
    film = encode(tmp_path / "film.mkv", "aac", speech(), SAMPLE_RATE, "matroska", video=True)
    samples, facts = read(retimed(film, tmp_path / "late", container, lambda time: time + 5))
    assert len(samples) / SAMPLE_RATE == pytest.approx(SECONDS + 5, abs=0.2)
    assert not samples[: round(4.8 * SAMPLE_RATE)].any()
    assert starts_at(samples, speech()[16_000:32_000]) == pytest.approx(6.0, abs=0.1)
    assert facts.silence_seconds == pytest.approx(5, abs=0.1)
    assert facts.decoded_seconds == pytest.approx(SECONDS, abs=0.2)
    assert facts.damage is None and not facts.gaps


@pytest.mark.parametrize(("codec", "rate"), [("aac", 16_000), ("libopus", 48_000), ("pcm_s16le", 16_000)])
def test_what_follows_a_gap_keeps_its_time(codec: str, rate: int, tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", codec, np.repeat(speech(), rate // SAMPLE_RATE), rate, "matroska")
    gapped = retimed(whole, tmp_path / "gapped", "matroska", lambda time: time if time < 3 else time + 18)
    samples, facts = read(gapped)
    assert starts_at(samples, speech()[4 * SAMPLE_RATE : 6 * SAMPLE_RATE]) == pytest.approx(22, abs=0.1)
    assert len(samples) / SAMPLE_RATE == pytest.approx(SECONDS + 18, abs=0.2)
    assert facts.silence_seconds == pytest.approx(18, abs=0.1)
    assert facts.damage is None


def test_a_long_gap_is_read_in_blocks(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", "aac", speech(), SAMPLE_RATE, "matroska")
    gapped = retimed(whole, tmp_path / "gapped", "matroska", lambda time: time if time < 3 else time + 1000)
    blocks = [len(block) for block in stream(gapped)]
    assert max(blocks) < 10 * SAMPLE_RATE
    assert sum(blocks) / SAMPLE_RATE == pytest.approx(SECONDS + 1000, abs=0.2)


def test_timestamps_that_jump_by_hours_are_not_followed(tmp_path: Path) -> None:
    wrong = retimed(SAMPLE, tmp_path / "wrong", "matroska", lambda time: time if time < 3 else time + 1e6)
    samples, facts = read(wrong)
    np.testing.assert_array_equal(samples, speech())
    assert facts.timestamp_jumps == 1 and facts.silence_seconds == 0


@pytest.mark.parametrize(
    ("times", "silence", "jumps"),
    [
        ([0, 1, 2, 3], [0, 0, 0, 0], 0),
        ([0, 1, 5, 6], [0, 0, 3, 0], 0),
        ([2, 3, 4, 5], [2, 0, 0, 0], 0),
        ([0, 1.09, 2, 3.05], [0, 0, 0, 0], 0),  # jitters
        ([0, 1, 1.5, 2.5, 4], [0, 0, 0, 0, 0], 0),  # overlaps, and returns to the time of the file
        ([0, 1, 1.5, 2.5, 5], [0, 0, 0, 0, 1], 0),  # then has a gap
        ([20, 21, 0, 1, 3], [20, 0, 0, 0, 1], 1),  # starts anew, then has a gap
        ([0, 1e6, 2, 3], [0, 0, 0, 0], 2),  # one wrong timestamp
        ([0, None, None, 3, 5], [0, 0, 0, 0, 1], 0),  # some without
    ],
)
def test_only_audio_that_is_late_is_moved(times: list[float | None], silence: list[float], jumps: int) -> None:
    log = AudioLog()
    clock = TrackClock(log, timestamped=True, sequential=False, gapless=False)
    put = []
    for time in times:
        put.append(clock.silence_before(time))
        clock.advance(1.0)
    assert put == silence
    assert log.timestamp_jumps == jumps and log.silence_seconds == sum(silence)


def test_many_gaps_add_up(tmp_path: Path) -> None:
    stretched = retimed(SAMPLE, tmp_path / "gaps", "matroska", lambda time: time * 1.5)  # each shorter than the jitter
    assert len(decode_audio(stretched)) / SAMPLE_RATE == pytest.approx(SECONDS * 1.5, abs=0.2)


@pytest.mark.parametrize(
    ("codec", "container", "rate"),
    [("aac", "mp4", 44_100), ("aac", "mpegts", 48_000), ("libopus", "webm", 48_000), ("libmp3lame", "mp3", 44_100)],
)
def test_encoder_delay_moves_nothing(codec: str, container: str, rate: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "sound", codec, tones(rate, 3.0), rate, container)
    _, facts = read(path)
    assert facts.silence_seconds == 0 and facts.timestamp_jumps == 0 and facts.damage is None
