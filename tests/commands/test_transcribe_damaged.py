"""`tilewhisper transcribe` on damaged, joined and multi-track files: text, warnings, report and exit status."""

import json

import av
import pytest
import soundfile
from conftest import SAMPLE, SAMPLE_WORDS, SHARED, require_weights

from tilewhisper import WhisperModel

SOME_WORDS = "Thank you for coming to the meeting"
FIELD = SHARED / "field"
GREEDY = ("--model", "tiny.en", "--beam_size", "1", "--temperature_increment_on_fallback", "None")


@pytest.fixture(scope="module", autouse=True)
def _weights():
    require_weights("tiny.en")


@pytest.fixture
def cut(tmp_path):
    whole = SAMPLE.read_bytes()
    (tmp_path / "cut.flac").write_bytes(whole[: int(0.7 * len(whole))])
    return tmp_path / "cut.flac"


def test_a_truncated_file_is_transcribed_with_a_warning(tilewhisper, cut, tmp_path):
    finished = tilewhisper("transcribe", *GREEDY, cut, "--report", tmp_path / "r.json")
    assert finished.status == 3
    assert SOME_WORDS in finished.out and SAMPLE_WORDS not in finished.out
    (run,) = json.loads((tmp_path / "r.json").read_text())["runs"]
    audio = run["audio"]
    assert audio["stated_seconds"] == pytest.approx(7.28, abs=0.01)
    assert 3 < audio["decoded_seconds"] < 7 and audio["decoded_seconds"] == run["audio_seconds"]
    words = f"its header states 7.3 s, but only {audio['decoded_seconds']:.1f} s could be read"
    assert audio["damage"] == f"truncated or damaged: {words}"
    assert f"tilewhisper: warning: {cut}: truncated or damaged: {words}" in finished.err.splitlines()
    assert f"tilewhisper: damaged, transcribed in part: {cut}" in finished.err.splitlines()


def test_strict_audio_refuses_it(tilewhisper, cut):
    finished = tilewhisper("transcribe", *GREEDY, cut, "--strict_audio", "True")
    assert (finished.status, finished.out) == (2, "")
    (error,) = finished.errors
    assert error.startswith(f"tilewhisper: error: {cut}: truncated or damaged: ")
    assert error.endswith("copy or export the file again")


@pytest.mark.parametrize("together", ["1", "2"])
def test_of_several_files_the_others_are_transcribed(tilewhisper, cut, together):
    finished = tilewhisper("transcribe", *GREEDY, cut, SAMPLE, "--batch_size", together)
    assert finished.status == 3
    assert SAMPLE_WORDS in finished.out
    assert finished.err.count("warning: ") == 1
    strict = tilewhisper("transcribe", *GREEDY, cut, SAMPLE, "--batch_size", together, "--strict_audio")
    assert strict.status == 3
    assert SAMPLE_WORDS in strict.out and len(strict.errors) == 1


def test_nothing_is_damaged_without_damage(tilewhisper):
    finished = tilewhisper("transcribe", *GREEDY, SAMPLE)
    assert finished.status == 0
    assert "warning" not in finished.err and "damaged" not in finished.err


def test_in_python_info_and_report_have_the_facts(cut, caplog):
    with WhisperModel("tiny.en") as model:
        segments, info = model.transcribe(cut)
        assert info.audio == segments.report().audio
        assert "truncated" in info.audio.damage
        assert len(caplog.messages) == 1
        (transcript,) = model.transcribe_many([cut], strict_audio=True)
        assert "truncated" in str(transcript.error)


def test_the_track_is_chosen_and_reported(tilewhisper, tmp_path):
    film = tmp_path / "film.mkv"
    pcm, rate = soundfile.read(SAMPLE, dtype="int16")
    with av.open(str(film), "w") as out:
        tracks = [out.add_stream("pcm_s16le", rate=rate, layout="mono") for _ in range(2)]
        for track, language in zip(tracks, ("ger", "eng"), strict=True):
            track.metadata["language"] = language
        for track, samples in zip(tracks, (0 * pcm, pcm), strict=True):
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = rate
            out.mux([*track.encode(frame), *track.encode(None)])
    for wanted in ("2", "en"):
        finished = tilewhisper("transcribe", *GREEDY, film, "--audio_track", wanted, "--report", tmp_path / "r.json")
        assert finished.status == 0 and SAMPLE_WORDS in finished.out
        assert json.loads((tmp_path / "r.json").read_text())["runs"][0]["audio"]["track"] == "2 (eng, pcm_s16le)"
        assert "audio track 2 (eng, pcm_s16le), " in finished.err
    refused = tilewhisper("transcribe", *GREEDY, film, "--audio_track", "fr")
    assert refused.status == 2
    assert refused.errors == [
        f"tilewhisper: error: {film}: has no audio track fr; its audio tracks are: 1 (ger, pcm_s16le), "
        "2 (eng, pcm_s16le)"
    ]


@pytest.mark.skipif(not FIELD.is_dir(), reason="the shared data (field/) is missing")
@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("audio_offset/delayed.mp4", 0, "[00:05."),
        ("audio_offset/gapped.mkv", 0, "[00:30."),
        ("chained_ogg/mono_then_stereo.ogg", 0, "ask what you can do for your country"),
        ("chained_ogg/stereo_then_mono.opus", 0, "ask what you can do for your country"),
        ("chained_ogg/stereo48_then_mono16.opus", 0, "ask what you can do for your country"),
        ("mixed_rate/mixed.mp3", 0, "ask what you can do for your country"),
        ("mixed_rate/mixed.aac", 0, "ask what you can do for your country"),
        ("truncated/cut.mp3", 3, "my fellow Americans"),
        ("truncated/cut.mp4", 3, "my fellow Americans"),
        ("truncated/cut.ogg", 3, "my fellow Americans"),
        ("truncated/cut.wav", 3, "my fellow Americans"),
        ("truncated/cut.webm", 3, "my fellow Americans"),
        ("truncated/wrong_header.mp3", 0, "ask what you can do for your country"),
    ],
)
def test_recordings_from_the_field(tilewhisper, name, status, words):
    finished = tilewhisper("transcribe", *GREEDY, FIELD / name, "--verbose", "True")
    assert finished.status == status
    assert words.lower() in finished.out.lower()
    assert ("warning: " in finished.err) == (status == 3)
