"""Reading audio: unusable and damaged files are refused, and the message says why and how much is intact."""

import io
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from made_audio import SAMPLE, SAMPLE_COUNT, encode, half, silent_film, speech

from tilewhisper.models.audio.reader import check_file, decode_audio
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError

# ---- refused files


@pytest.mark.parametrize("refuse", [decode_audio, check_file])
def test_files_that_cannot_be_opened_are_refused(refuse: Callable[[object], object], tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"nowhere\.wav: no such file"):
        refuse(tmp_path / "nowhere.wav")
    with pytest.raises(AudioError, match="is a directory"):
        refuse(str(tmp_path))
    with pytest.raises(AudioError, match=r"empty\.wav: is empty"):
        refuse(tmp_path / "empty.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        refuse("nul\0.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        refuse("x" * 5000)


def test_check_file_accepts_files_and_does_not_consume_pipes() -> None:
    check_file(SAMPLE)
    reader = subprocess.Popen(["cat", str(SAMPLE)], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    with reader.stdout:
        check_file(f"/dev/fd/{reader.stdout.fileno()}")
        np.testing.assert_array_equal(decode_audio(f"/dev/fd/{reader.stdout.fileno()}"), speech())
    assert reader.wait() == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.wav"
    path.write_bytes(SAMPLE.read_bytes())
    path.chmod(0)
    with pytest.raises(AudioError, match="no permission"):
        decode_audio(path)


def test_a_permission_error_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(AudioError, match=r"sample\.flac: no permission"):
        decode_audio(SAMPLE)


def write_text(path: Path) -> None:
    path.write_text("Dear diary, this is no audio at all.\n" * 200)


def write_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(5).bytes(50_000))


def write_png(path: Path) -> None:
    with av.open(str(path), "w", format="image2") as out:
        picture = out.add_stream("png", rate=1, width=8, height=8, pix_fmt="rgb24")
        out.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), np.uint8), format="rgb24")))
        out.mux(picture.encode(None))


def write_wav(samples: np.ndarray, rate: int = SAMPLE_RATE) -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, samples, rate, format="WAV", subtype="FLOAT")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (write_text, "not audio"),
        (write_noise, "not audio"),
        (write_png, "no audio track"),
        (silent_film, "no audio track"),
        (write_wav(np.zeros(1000), 1), "sample rate of 1 Hz"),
        (write_wav(np.full(44_100, np.nan), 44_100), r"NaN or infinite sample at 0\.000 s"),
        (write_wav(np.where(np.arange(16_000) == 4_000, np.inf, 0)), r"at 0\.250 s"),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "mp3", "m4a", "raw"])
def test_unusable_files_are_refused(write: Callable[[Path], object], words: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad.{suffix}"
    write(path)
    with pytest.raises(AudioError, match=words) as error:
        decode_audio(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize("head", ["#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:7.2,\n", "ffconcat version 1.0\nfile "])
@pytest.mark.parametrize("suffix", ["m3u8", "ffconcat", "txt"])
def test_playlists_do_not_open_other_files(
    head: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "other.mp3", "libmp3lame", speech(), SAMPLE_RATE, "mp3")
    playlist = tmp_path / f"list.{suffix}"
    playlist.write_text(f"{head}other.mp3\n" + ("#EXT-X-ENDLIST\n" if "EXT" in head else ""))
    with pytest.raises(AudioError):
        decode_audio(playlist)


# ---- truncated files


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAV", "IMA_ADPCM"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AU", "PCM_16"),
        ("FLAC", "PCM_16"),
    ],
)
def test_the_error_for_a_truncated_file_states_how_much_is_intact(kind: str, subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    soundfile.write(path, speech(), SAMPLE_RATE, format=kind, subtype=subtype)
    assert len(decode_audio(path)) == pytest.approx(SAMPLE_COUNT, abs=2048)  # ADPCM fills its last block
    words = r"truncated or damaged: its header states 7\.[234] s, but only [34]\.\d s could be read"
    with pytest.raises(AudioError, match=words):
        decode_audio(half(path), strict_audio=True)


@pytest.mark.parametrize(
    ("codec", "container", "rate", "video"),
    [
        ("aac", "ipod", 16_000, False),
        ("aac", "mp4", 16_000, True),
        ("libopus", "webm", 48_000, False),
        ("aac", "matroska", 16_000, True),
        ("libmp3lame", "mp3", 16_000, False),
    ],
)
def test_the_error_for_a_truncated_container_states_how_much_is_intact(
    codec: str, container: str, rate: int, video: bool, tmp_path: Path
) -> None:
    samples = np.tile(speech(), rate // SAMPLE_RATE)
    path = encode(tmp_path / "whole", codec, samples, rate, container, video)
    assert len(decode_audio(path)) == pytest.approx(SAMPLE_COUNT, abs=0.15 * SAMPLE_RATE)
    words = r"truncated or damaged: its header states 7\.\d s, but only \d\.\d s could be read"
    with pytest.raises(AudioError, match=words):
        decode_audio(half(path), strict_audio=True)


def test_an_m4a_without_its_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.m4a"
    with av.open(str(path), "w", format="ipod") as out:  # no faststart: the index is at the end
        stream = out.add_stream("alac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, SAMPLE_RATE), np.int16), format="s16p", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        fit = av.AudioResampler("s16p", "mono", SAMPLE_RATE, frame_size=stream.codec_context.frame_size)
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            out.mux(stream.encode(piece))
    with pytest.raises(AudioError, match="not audio, or too damaged to decode"):
        decode_audio(half(path))


@pytest.mark.parametrize(("codec", "container", "rate"), [("libopus", "ogg", 48_000), ("aac", "adts", 16_000)])
def test_truncated_containers_without_a_stated_length_load(
    codec: str, container: str, rate: int, tmp_path: Path
) -> None:
    path = encode(tmp_path / "whole", codec, np.tile(speech(), rate // SAMPLE_RATE), rate, container)
    assert 0.25 * SAMPLE_COUNT < len(decode_audio(half(path))) < 0.75 * SAMPLE_COUNT


def test_the_length_of_an_mp3_is_not_guessed_from_its_bit_rate(tmp_path: Path) -> None:
    # Half silence, half noise at a variable bit rate: libav's estimate from the first frames is far off.
    noise = np.random.default_rng(6).normal(0, 0.2, 5 * SAMPLE_RATE).astype(np.float32)
    path = tmp_path / "vbr.mp3"
    soundfile.write(
        path,
        np.concatenate([noise * 0, noise]),
        SAMPLE_RATE,
        format="MP3",
        bitrate_mode="VARIABLE",
        compression_level=0.3,
    )
    data = path.read_bytes()
    tag = max(data.find(b"Xing"), data.find(b"Info"))
    second_frame = data.index(data[:2], tag)
    path.write_bytes(data[second_frame:])
    assert len(decode_audio(path)) == pytest.approx(10 * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)


def test_damage_inside_a_flac_is_refused(tmp_path: Path) -> None:
    data = bytearray(SAMPLE.read_bytes())
    data[30_000:60_000] = np.random.default_rng(7).bytes(30_000)
    (tmp_path / "hole.flac").write_bytes(data)
    with pytest.raises(AudioError, match="damaged"):
        decode_audio(tmp_path / "hole.flac", strict_audio=True)


def test_damage_inside_an_m4a_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "hole.m4a", "aac", speech(), SAMPLE_RATE, "ipod")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = np.random.default_rng(10).bytes(20_000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"damaged: its header states 7\.\d s, but only [3-6]\.\d s could be read"):
        decode_audio(path, strict_audio=True)


def test_damage_is_detected_without_a_stated_length(tmp_path: Path) -> None:
    path = encode(tmp_path / "hole.aac", "aac", speech(), SAMPLE_RATE, "adts")
    data, rng, position = bytearray(path.read_bytes()), np.random.default_rng(11), 0
    while position < len(data):  # the frames' headers stay intact, so that libav still finds every frame
        length = (data[position + 3] & 3) << 11 | data[position + 4] << 3 | data[position + 5] >> 5
        if position > len(data) // 2:
            data[position + 7 : position + length] = rng.bytes(length - 7)
        position += length
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"damaged: \d\.\d s of its audio could not be decoded"):
        decode_audio(path, strict_audio=True)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x80000000, 0xFFFFFFFF])
def test_a_streamed_wav_of_unknown_size_loads(size: int) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, speech(), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    data = bytearray(buffer.getvalue())
    data[4:8] = struct.pack("<I", size)
    position = data.index(b"data") + 4
    data[position : position + 4] = struct.pack("<I", size)
    np.testing.assert_array_equal(decode_audio(io.BytesIO(data)), speech())


def test_a_streamed_flac_of_unknown_length_loads() -> None:
    data = bytearray(SAMPLE.read_bytes())
    data[21] &= 0xF0  # STREAMINFO's total samples: 36 bits, 0 is unknown
    data[22:26] = bytes(4)
    np.testing.assert_array_equal(decode_audio(io.BytesIO(data)), speech())
