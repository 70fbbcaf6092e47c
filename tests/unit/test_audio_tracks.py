"""Reading audio: one of several audio tracks is chosen by number or language."""

from pathlib import Path

import av
import numpy as np
import pytest
from made_audio import SAMPLE, tones

from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.audio.language_codes import same_language
from tilewhisper.models.audio.reader import decode_audio, stream
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError

LOUDNESS = {1: 0.1, 2: 0.5, 3: 0.9}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three tracks of different loudness: English, German, and English with a title."""
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:
        tracks = [out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono") for _ in LOUDNESS]
        for track, language in zip(tracks, ("eng", "ger", "eng"), strict=True):
            track.metadata["language"] = language
        tracks[2].metadata["title"] = "Commentary"
        for track, loudness in zip(tracks, LOUDNESS.values(), strict=True):
            pcm = np.full((1, SAMPLE_RATE), round(loudness * 32768), np.int16)
            frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            out.mux([*track.encode(frame), *track.encode(None)])
    return path


@pytest.mark.parametrize(
    ("wanted", "number"), [(1, 1), (2, 2), (3, 3), ("eng", 1), ("en", 1), ("de", 2), ("deu", 2), ("ger", 2), ("DE", 2)]
)
def test_a_track_is_chosen_by_number_or_language(wanted: int | str, number: int, film: Path) -> None:
    log = AudioLog()
    samples = np.concatenate(list(stream(film, log, audio_track=wanted)))
    assert samples[1000] == pytest.approx(LOUDNESS[number], abs=1e-4)
    assert log.facts().track.startswith(f"{number} (")
    np.testing.assert_array_equal(decode_audio(film, audio_track=wanted), samples)


def test_the_label_has_what_the_file_states(film: Path) -> None:
    log = AudioLog()
    list(stream(film, log, audio_track=3))
    assert log.facts().track == "3 (eng, pcm_s16le, Commentary)"


def test_bytes_of_a_title_that_are_not_utf8_are_left_out(film: Path) -> None:
    film.write_bytes(film.read_bytes().replace(b"Commentary", b"Comment\xe9ry"))
    log = AudioLog()
    list(stream(film, log, audio_track=3))
    assert log.facts().track == "3 (eng, pcm_s16le, Commentry)"


@pytest.mark.parametrize("wanted", [4, 0, -1, "fr", "klingon"])
def test_an_unknown_track_is_refused_with_a_list(wanted: int | str, film: Path) -> None:
    with pytest.raises(AudioError) as error:
        decode_audio(film, audio_track=wanted)
    assert str(error.value) == (
        f"{film}: has no audio track {wanted}; its audio tracks are: 1 (eng, pcm_s16le), 2 (ger, pcm_s16le), "
        "3 (eng, pcm_s16le, Commentary)"
    )


def test_a_file_of_one_track_has_track_1(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decode_audio(SAMPLE, audio_track=1), decode_audio(SAMPLE))
    with pytest.raises(AudioError, match=r"has no audio track 2; its audio tracks are: 1 \(flac\)"):
        decode_audio(SAMPLE, audio_track=2)
    with pytest.raises(AudioError, match="an array has one audio track"):
        decode_audio(tones(SAMPLE_RATE), audio_track=2)


@pytest.mark.parametrize(
    ("code", "other", "same"),
    [("eng", "en", True), ("en-US", "eng", True), ("fre", "fra", True), ("cmn", "zh", False), ("yue", "yue", True),
     ("", "en", False), ("und", "en", False), ("pt_BR", "por", True)],
)  # fmt: skip
def test_codes_of_one_language(code: str, other: str, same: bool) -> None:
    assert same_language(code, other) == same
