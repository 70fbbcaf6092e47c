"""Reading audio: the samples that arrays, file objects and files of every rate, codec and container give."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch
from made_audio import FORMATS, SAMPLE, SAMPLE_COUNT, encode, half, needs_formats, snr, speech, tones

from tilewhisper.models.audio import containers, recording, soundfiles
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.reader import decode_audio, stream
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError

# ---- arrays and file objects


def test_a_float32_array_is_returned_without_a_copy() -> None:
    samples = speech()
    assert decode_audio(samples) is samples


def test_the_parameters_are_faster_whispers() -> None:
    assert decode_audio(input_file=str(SAMPLE), sampling_rate=16_000, split_stereo=False).shape == (SAMPLE_COUNT,)
    with pytest.raises(AudioError, match=r"^sampling_rate must be 16000, got 8000: .*resample"):
        decode_audio(SAMPLE, sampling_rate=8_000)
    with pytest.raises(AudioError, match=r"^split_stereo must be False, got True: "):
        decode_audio(SAMPLE, split_stereo=True)


def test_other_dtypes_become_float32() -> None:
    samples = speech()
    pcm = (samples * 32768).astype(np.int16)  # sample.flac holds 16 bits: exact
    for array in (pcm, pcm.astype(np.int32) << 16, samples.astype(np.float64), samples.astype(">f4")):
        loaded = decode_audio(array)
        assert loaded.dtype == np.float32 and loaded.dtype.isnative
        np.testing.assert_array_equal(loaded, samples)
    np.testing.assert_array_equal(decode_audio(np.repeat(np.uint8([0, 128, 255]), 1000))[::1000], [-1, 0, 127 / 128])
    np.testing.assert_array_equal(decode_audio(samples[::-1]), samples[::-1].copy())
    assert decode_audio(samples[::-1]).flags.c_contiguous


def test_tensors_load_like_arrays() -> None:
    samples = speech()
    np.testing.assert_array_equal(decode_audio(torch.from_numpy(samples).requires_grad_()), samples)
    assert decode_audio(torch.zeros(16_000, dtype=torch.bfloat16)).dtype == np.float32


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 16_000), np.float32), r"shape \(2, 16000\).*expected \(samples,\)"),
        (np.float32(1), r"audio of type float32 cannot be read"),
        (np.array(1.0), r"shape \(\)"),
        (np.zeros(16_000, np.int64), "has dtype int64"),
        (np.zeros(16_000, bool), "has dtype bool"),
        (np.zeros(16_000, complex), "has dtype complex128"),
        (np.where(np.arange(16_000) == 8_000, np.nan, 0), r"NaN or infinite sample at 0\.500 s"),
        (np.full(16_000, 1e300), "NaN or infinite"),
        ([0.0] * 16_000, "audio of type list"),
        (None, "audio of type NoneType"),
    ],
)
def test_unusable_arrays_are_refused(array: object, words: str) -> None:
    with pytest.raises(AudioError, match=words) as error:
        decode_audio(array)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_silence_is_valid_audio() -> None:
    assert not decode_audio(np.zeros(16_000, np.float32)).any()


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("samples", [0, 1, 100, 1_599])
def test_audio_of_any_length_is_valid(samples: int, rate: int) -> None:
    array, file = np.full(samples, 0.5, np.float32), io.BytesIO()
    soundfile.write(file, array, rate, format="WAV")
    assert len(decode_audio(array)) == samples
    assert len(decode_audio(io.BytesIO(file.getvalue()))) == pytest.approx(samples * 16_000 / rate, abs=1)


def test_a_file_object_is_read_from_its_position() -> None:
    handle = io.BytesIO(b"preamble" + SAMPLE.read_bytes())
    handle.seek(8)
    np.testing.assert_array_equal(decode_audio(handle), speech())
    with SAMPLE.open("rb") as file:
        np.testing.assert_array_equal(decode_audio(file), speech())


def test_unusable_file_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="binary mode"):
        decode_audio(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(AudioError, match="empty"):
        decode_audio(io.BytesIO())
    with SAMPLE.open("rb") as closed:
        pass
    with pytest.raises(AudioError, match=r"sample\.flac: cannot be read"):
        decode_audio(closed)


# ---- rates, channels, decoders


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("decoder", ["libsndfile", "libav"])
def test_every_rate_gives_the_same_signal(rate: int, decoder: str, tmp_path: Path) -> None:
    path = tmp_path / "tones.bin"
    if decoder == "libsndfile":
        soundfile.write(path, tones(rate), rate, format="WAV", subtype="FLOAT")
    else:
        encode(path, "pcm_f32le", tones(rate), rate, "matroska")
    loaded, expected = decode_audio(path), tones(SAMPLE_RATE)
    assert loaded.shape == expected.shape
    # The oracle is the signal's formula at 16 kHz. The ends are ignored, because the filter reaches past them. 131 to
    # 135 dB measured (soxr HQ: at least 20 bits); a shift of one sample leaves 0 dB.
    middle = slice(800, -800)
    assert snr(expected[middle], loaded[middle]) > 110


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
def test_a_tone_keeps_its_frequency_and_amplitude(rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate), rate, "FLOAT")
    spectrum = np.abs(np.fft.rfft(decode_audio(tmp_path / "tone.wav"))) / (SAMPLE_RATE / 2)
    assert len(spectrum) == 8001 and np.argmax(spectrum) == 1000
    assert spectrum[1000] == pytest.approx(0.5, rel=2e-3)


def test_frequencies_above_8_khz_are_filtered_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000), 48_000)
    assert np.abs(decode_audio(tmp_path / "tone.wav")[800:-800]).max() < 1e-4


def test_channels_are_averaged(tmp_path: Path) -> None:
    channels = np.random.default_rng(3).uniform(-1, 1, (70_000, 8)).astype(np.float32)  # more than one block
    soundfile.write(tmp_path / "eight.wav", channels, SAMPLE_RATE, subtype="FLOAT")
    np.testing.assert_allclose(
        decode_audio(tmp_path / "eight.wav"), channels.astype(np.float64).mean(axis=1), atol=1e-6
    )


@pytest.mark.parametrize(("channels", "layout"), [(1, "mono"), (2, "stereo"), (6, "5.1"), (8, "7.1")])
def test_channels_are_averaged_by_libav_too(channels: int, layout: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pcm = rng.integers(-32768, 32768, (SAMPLE_RATE, channels)).astype(np.int16)
    with av.open(str(tmp_path / "sound.mkv"), "w") as out:
        stream = out.add_stream("wavpack", rate=SAMPLE_RATE, layout=layout)  # decoded to planes
        stream.codec_context.format = "s16p"
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = SAMPLE_RATE
        fit = av.AudioResampler("s16p", layout, SAMPLE_RATE, frame_size=stream.codec_context.frame_size)
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            out.mux(stream.encode(piece))
    np.testing.assert_allclose(decode_audio(tmp_path / "sound.mkv"), pcm.mean(axis=1) / 32768, atol=1e-6)


CODECS = [
    ("aac", "ipod", 16_000),
    ("aac", "mp4", 16_000),
    ("aac", "adts", 16_000),
    ("libopus", "webm", 48_000),
    ("libopus", "ogg", 48_000),
    ("libmp3lame", "mp3", 16_000),
    ("alac", "ipod", 16_000),
]


@pytest.mark.parametrize(("codec", "container", "rate"), CODECS)
@pytest.mark.parametrize("named", [True, False])
def test_containers_load(codec: str, container: str, rate: int, named: bool, tmp_path: Path) -> None:
    source = tones(rate, 3.0)
    path = encode(tmp_path / (f"sound.{container}" if named else "sound"), codec, source, rate, container)
    loaded, expected = decode_audio(path), tones(SAMPLE_RATE, 3.0)
    assert len(loaded) == pytest.approx(len(expected), abs=0.15 * SAMPLE_RATE)  # codec frames of padding
    # Lossy codecs may delay the signal, so only its strength is compared.
    middle = slice(SAMPLE_RATE, 2 * SAMPLE_RATE)
    assert np.std(loaded[middle]) == pytest.approx(np.std(expected[middle]), rel=0.1)


def test_the_sound_of_a_video_loads(tmp_path: Path) -> None:
    path = encode(tmp_path / "film.mp4", "aac", speech(), SAMPLE_RATE, "mp4", video=True)
    assert len(decode_audio(path)) == pytest.approx(SAMPLE_COUNT, abs=0.15 * SAMPLE_RATE)


def test_audio_that_ends_before_the_video_is_not_truncated(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        picture = out.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        black = np.zeros((64, 64, 3), np.uint8)
        for frame in [*(av.VideoFrame.from_ndarray(black, format="rgb24") for _ in range(50)), None]:
            out.mux(picture.encode(frame))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, SAMPLE_RATE), np.int16), format="s16", layout="mono")
        sound.sample_rate = SAMPLE_RATE
        for piece in (sound, None):
            out.mux(stream.encode(piece))
    assert len(decode_audio(path)) == SAMPLE_RATE


# ---- shared files


PADDING = {"eight_channels.m4a": 0.015, "jfk_44100.m4a": 0.005}
"""Seconds after the stated end, which libavformat leaves out from version 63 (PyAV 19) on."""


@needs_formats
@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("1272-128104-0004-8k.wav", 29.400),
        ("1272-141231-0002.flac", 13.335),
        ("1272-141231-0002.mp3", 13.335),
        ("1272-141231-0002.wav", 13.335),
        ("eight_channels.m4a", 8.049),
        ("jfk_44100.m4a", 11.000),
        ("junk_chunk_16k.wav", 8.220),
        ("sample1.webm", 13.694),
        ("sample1_dual.ogg", 13.690),
    ],
)
def test_shared_formats_load(name: str, seconds: float) -> None:
    samples = decode_audio(FORMATS / name)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert -1e-3 <= len(samples) / SAMPLE_RATE - seconds <= PADDING.get(name, 0) + 1e-3
    assert 0.001 < np.std(samples) < 0.3 and np.abs(samples).max() <= 1.0


@needs_formats
def test_malformed_flac_is_refused() -> None:
    with pytest.raises(AudioError, match=r"malformed\.flac: not audio, or too damaged to decode"):
        decode_audio(FORMATS / "malformed.flac")


@needs_formats
def test_one_utterance_agrees_across_formats() -> None:
    wav, flac, mp3 = (decode_audio(FORMATS / f"1272-141231-0002.{kind}") for kind in ("wav", "flac", "mp3"))
    # Compared without alignment: 63 dB (flac, another rounding) and 20.6 dB (64 kbit/s mp3) measured. One sample of
    # encoder delay would leave 6.9 dB, so the bounds also ensure a lag of zero.
    assert wav.shape == flac.shape == mp3.shape
    assert snr(wav, flac) > 55
    assert snr(wav, mp3) > 17
    assert snr(wav[:-1], mp3[1:]) < 10


# ---- streams


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("container", ["wav", "ipod"])
def test_a_stream_equals_soxr_on_the_whole_audio(rate: int, container: str, tmp_path: Path) -> None:
    whole = (np.tile(tones(rate), 20) * 32768).astype(np.int16).astype(np.float32) / 32768
    path = tmp_path / "long.bin"
    if container == "wav":
        soundfile.write(path, whole, rate, format="WAV", subtype="FLOAT")
    else:
        encode(path, "alac", whole, rate, container)
        with path.open("rb") as file:
            whole = recording.join(block.samples for block in containers.blocks(file, path.name, AudioLog()))
    blocks = list(stream(path))
    assert len(blocks) > 2 and max(map(len, blocks)) < 10 * SAMPLE_RATE
    np.testing.assert_array_equal(np.concatenate(blocks), soxr.resample(whole, rate, SAMPLE_RATE, quality="HQ"))


def test_an_array_streams_the_samples_it_decodes_to() -> None:
    pcm = (np.tile(speech(), 2) * 32768).astype(np.int16)
    blocks = list(stream(pcm))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate(blocks), decode_audio(pcm))


def test_a_stream_yields_the_intact_blocks_before_it_reports_truncation(tmp_path: Path) -> None:
    path = tmp_path / "whole.wav"
    soundfile.write(path, speech(), SAMPLE_RATE, subtype="PCM_16")
    blocks = stream(half(path), strict_audio=True)
    left = len(next(blocks))
    assert left == pytest.approx(SAMPLE_COUNT // 2, abs=100)
    with pytest.raises(AudioError, match="truncated"):
        next(blocks)


def test_libav_continues_where_libsndfile_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_block_only(handle: object, log: object) -> Iterator[recording.Block]:
        yield recording.Block(speech()[:50_000], SAMPLE_RATE)
        raise soundfiles.UseLibav

    monkeypatch.setattr(soundfiles, "blocks", first_block_only)
    np.testing.assert_array_equal(decode_audio(SAMPLE), speech())


def test_an_abandoned_stream_closes_its_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "sound.m4a", "aac", np.tile(speech(), 3), SAMPLE_RATE, "ipod")
    for file in (SAMPLE, path):
        blocks: Any = stream(file)
        next(blocks)
        assert str(file) in open_files()
        blocks.close()
        assert str(file) not in open_files()


def open_files() -> set[str]:
    return {os.path.realpath(entry) for entry in Path("/proc/self/fd").iterdir()}


# ---- side effects


def test_decoders_write_nothing_to_stderr(tmp_path: Path) -> None:
    mp3 = bytearray(encode(tmp_path / "whole.mp3", "libmp3lame", speech(), SAMPLE_RATE, "mp3").read_bytes())
    (tmp_path / "half.mp3").write_bytes(mp3[: len(mp3) // 2])
    mp3[4000:5000] = np.random.default_rng(8).bytes(1000)
    (tmp_path / "hole.mp3").write_bytes(mp3)
    (tmp_path / "noise.mp3").write_bytes(b"\xff\xfb\x90\x00" + np.random.default_rng(9).bytes(20_000))
    half(encode(tmp_path / "whole.m4a", "aac", speech(), SAMPLE_RATE, "ipod"))
    script = (
        "import logging, sys\nfrom tilewhisper.models.audio.reader import AudioError, decode_audio\nlogging.disable()\n"
        "for name in sys.argv[1:]:\n    try: decode_audio(name)\n    except AudioError: pass\n"
    )
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


def test_16_khz_audio_needs_no_heavy_import() -> None:
    script = (
        "import sys\nfrom tilewhisper.models.audio.reader import decode_audio\ndecode_audio(sys.argv[1])\n"
        "print(sorted({'librosa', 'av', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, SAMPLE], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def uncompiled(*options, **more):
    """Stands in for numba's decorators."""
    return options[0] if options and callable(options[0]) else lambda function: function


@pytest.mark.parametrize("name", ["jfk.flac", "formats/1272-128104-0004-8k.wav", "formats/sample1_dual.ogg"])
def test_samples_are_bit_equal_to_librosas(name, shared, monkeypatch):
    """44.1 kHz mono, 8 kHz mono and 16 kHz stereo."""
    numba = ModuleType("numba")  # a fresh librosa compiles for 18 s, but nothing that `load` calls
    vars(numba).update(dict.fromkeys(("jit", "stencil", "vectorize", "guvectorize"), uncompiled))
    monkeypatch.setitem(sys.modules, "numba", numba)
    librosa = pytest.importorskip("librosa")
    expected, _ = librosa.load(shared / name, sr=16_000)
    assert np.array_equal(decode_audio(shared / name), expected)
