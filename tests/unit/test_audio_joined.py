"""Reading audio: files joined by concatenation, whose parts differ in codec, rate or channels."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from made_audio import SAMPLE, encode, retimed, speech

from tilewhisper.models.audio import ogg
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.reader import decode_audio, stream
from tilewhisper.models.audio.sections import Part
from tilewhisper.models.constants import SAMPLE_RATE

PARTS = {
    "vorbis mono": ("VORBIS", 16_000, 1),
    "vorbis stereo": ("VORBIS", 16_000, 2),
    "vorbis 44.1 kHz": ("VORBIS", 44_100, 1),
    "opus mono": ("OPUS", 16_000, 1),
    "opus stereo": ("OPUS", 48_000, 2),
}


def part(name: str, seconds: float = 2.0) -> bytes:
    codec, rate, channels = PARTS[name]
    samples = soxr.resample(speech()[: int(seconds * SAMPLE_RATE)], SAMPLE_RATE, rate)
    out = io.BytesIO()
    soundfile.write(out, np.stack([samples] * channels, axis=1), rate, format="OGG", subtype=codec)
    return out.getvalue()


@pytest.mark.parametrize(
    "names",
    [
        ("vorbis mono", "vorbis stereo"),
        ("vorbis stereo", "vorbis 44.1 kHz"),
        ("opus stereo", "opus mono"),
        ("opus mono", "vorbis stereo", "opus stereo"),
        ("vorbis mono", "vorbis mono", "vorbis mono"),
    ],
    ids="-".join,
)
def test_all_links_of_a_chain_are_decoded(names: tuple[str, ...]) -> None:
    log = AudioLog()
    links = [part(name) for name in names]
    samples = np.concatenate(list(stream(io.BytesIO(b"".join(links)), log)))
    expected = np.concatenate([decode_audio(io.BytesIO(link)) for link in links])
    np.testing.assert_array_equal(samples, expected)
    assert len(samples) / SAMPLE_RATE == pytest.approx(2 * len(names), abs=0.01)
    assert log.facts().decoded_seconds == log.facts().stated_seconds == pytest.approx(2 * len(names), abs=0.01)
    assert log.facts().damage is None


def test_links_of_libavs_codecs_are_decoded(tmp_path: Path) -> None:
    link = retimed(SAMPLE, tmp_path / "link.ogg", "ogg", lambda time: time).read_bytes()
    samples = decode_audio(io.BytesIO(link + part("opus stereo") + link))
    assert len(samples) / SAMPLE_RATE == pytest.approx(2 * len(speech()) / SAMPLE_RATE + 2, abs=0.1)


def test_a_link_that_cannot_be_decoded_is_named() -> None:
    bad = bytearray(part("vorbis mono"))
    last, first = bad.rindex(b"OggS"), bad.index(b"vorbis")
    del bad[bad.index(b"OggS", 1) : last]  # without its headers
    assert first < last
    log = AudioLog()
    samples = np.concatenate(list(stream(io.BytesIO(part("opus mono") + bad + part("vorbis stereo")), log)))
    assert len(samples) / SAMPLE_RATE == pytest.approx(4, abs=0.01)
    assert "part 2 of 3 could not be decoded" in str(log.facts().damage)


def test_a_missing_page_is_a_gap() -> None:
    data = part("vorbis mono", 7)
    pages = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    middle = len(pages) // 2
    log = AudioLog()
    samples = np.concatenate(list(stream(io.BytesIO(data[: pages[middle]] + data[pages[middle + 1] :]), log)))
    facts = log.facts()
    assert len(samples) / SAMPLE_RATE == pytest.approx(7, abs=0.01)
    (gap,) = facts.gaps
    assert not samples[round((gap.start + 0.1) * SAMPLE_RATE) : round((gap.end - 0.1) * SAMPLE_RATE)].any()
    assert facts.decoded_seconds == pytest.approx(7 - gap.seconds, abs=0.01)
    assert str(facts.damage).startswith("damaged: its header states 7.0 s, but only ")
    assert str(gap) in str(facts.damage)


def test_pages_are_checked() -> None:
    whole = part("vorbis mono", 7)
    assert ogg.links(io.BytesIO(whole)) == [Part(0, len(whole), damaged=False, cut_off=False)]
    assert ogg.links(io.BytesIO(whole[:-10])) == [Part(0, len(whole) - 10, damaged=False, cut_off=True)]
    assert ogg.links(io.BytesIO(whole + bytes(5000))) == [Part(0, len(whole) + 5000, False, False)]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    assert ogg.links(io.BytesIO(flipped)) == [Part(0, len(whole), damaged=True, cut_off=False)]
    first, second = ogg.links(io.BytesIO(whole[:-10] + whole))
    assert first == Part(0, len(whole) - 10, damaged=False, cut_off=True)
    assert second == Part(len(whole) - 10, 2 * len(whole) - 10, damaged=False, cut_off=False)


def test_joined_flac_files_are_decoded() -> None:
    files = []
    for rate, channels in ((44_100, 2), (16_000, 1), (16_000, 1)):
        out = io.BytesIO()
        samples = soxr.resample(speech(), SAMPLE_RATE, rate)
        soundfile.write(out, np.stack([samples] * channels, axis=1), rate, format="FLAC")
        files.append(out.getvalue())
    samples = decode_audio(io.BytesIO(b"".join(files)))
    np.testing.assert_array_equal(samples, np.concatenate([decode_audio(io.BytesIO(file)) for file in files]))


@pytest.mark.parametrize(("codec", "container"), [("libmp3lame", "mp3"), ("aac", "adts")])
def test_the_rate_may_change_midway(codec: str, container: str, tmp_path: Path) -> None:
    rates = (44_100, 48_000, 16_000)
    files = [tmp_path / str(rate) for rate in rates]
    for file, rate in zip(files, rates, strict=True):
        encode(file, codec, soxr.resample(speech(), SAMPLE_RATE, rate), rate, container)
    log = AudioLog()
    joined = io.BytesIO(b"".join(file.read_bytes() for file in files))
    samples = np.concatenate(list(stream(joined, log)))
    expected = sum(len(decode_audio(file)) for file in files)
    assert len(samples) == pytest.approx(expected, abs=0.2 * SAMPLE_RATE)  # padding at the joins
    third = speech()[3 * SAMPLE_RATE : 5 * SAMPLE_RATE]
    found = np.argmax(np.correlate(samples[-len(speech()) :], third, "valid")) / SAMPLE_RATE
    assert found == pytest.approx(3, abs=0.1)
    assert log.facts().damage is None


def test_the_channels_may_change_midway(tmp_path: Path) -> None:
    mono = encode(tmp_path / "mono.mp3", "libmp3lame", speech(), SAMPLE_RATE, "mp3").read_bytes()
    out = io.BytesIO()
    soundfile.write(out, np.stack([speech()] * 2, axis=1), SAMPLE_RATE, format="MP3")
    samples = decode_audio(io.BytesIO(mono + out.getvalue()))
    assert len(samples) == pytest.approx(2 * len(speech()), abs=0.2 * SAMPLE_RATE)
    assert np.std(samples[-len(speech()) :]) == pytest.approx(np.std(speech()), rel=0.1)
