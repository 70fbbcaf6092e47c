"""Speech and no speech with real weights: the language is detected in speech, and noise has no text."""

import threading

import numpy as np
import pytest
from conftest import GERMAN, SAMPLE

from tilewhisper.models.audio.reader import decode_audio
from tilewhisper.models.constants import SAMPLE_RATE

GERMAN_WORDS = "Wir beginnen mit einem kurzen Bericht"
LEAD_SECONDS = 40


def noise(seconds, amplitude, seed=0):
    samples = np.random.default_rng(seed).standard_normal(seconds * SAMPLE_RATE)
    return (amplitude * samples).astype(np.float32)


def music(seconds, seed=0):
    """Chords of decaying harmonics, two a second."""
    rng = np.random.default_rng(seed)
    samples = np.zeros((seconds + 1) * SAMPLE_RATE)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for start in range(0, seconds * SAMPLE_RATE, SAMPLE_RATE // 2):
        for frequency in 220 * 2 ** (rng.integers(0, 25, 3) / 12):
            harmonics = sum(np.sin(2 * np.pi * frequency * n * time) / n for n in (1, 2, 3, 4))
            samples[start : start + SAMPLE_RATE] += 0.15 * np.exp(-3 * time) * harmonics
    return samples[: seconds * SAMPLE_RATE].astype(np.float32)


LEADS = {
    "silence": lambda: np.zeros(LEAD_SECONDS * SAMPLE_RATE, np.float32),
    "faint noise": lambda: noise(LEAD_SECONDS, 0.001),
    "noise": lambda: noise(LEAD_SECONDS, 0.05),
    "loud noise": lambda: noise(LEAD_SECONDS, 0.3),
    "music": lambda: music(LEAD_SECONDS),
}


@pytest.fixture(scope="module")
def german():
    return decode_audio(GERMAN)


@pytest.mark.parametrize("lead", LEADS)
def test_the_language_is_that_of_the_speech_after_a_lead(engine, german, lead):
    _, info = engine("base").transcribe(np.concatenate([LEADS[lead](), german]))
    assert info.language == "de" and info.language_probability > 0.9
    assert info.all_language_probs[0] == ("de", info.language_probability)


def test_the_text_after_a_lead_is_in_its_language(engine, german):
    segments, _ = engine("base").transcribe(np.concatenate([LEADS["silence"](), german]), beam_size=1)
    (spoken,) = [segment for segment in segments if GERMAN_WORDS in segment.text]
    assert spoken.start > LEAD_SECONDS - 12  # the first timestamp of a window may lie in the silence before it


@pytest.mark.parametrize("options", [{"batch_size": 2}, {"vad_filter": True}, {"clip_timestamps": "5,20,35"}])
def test_clips_batches_and_vad_detect_in_speech_too(engine, german, options):
    pytest.importorskip("silero_vad")
    segments, info = engine("base").transcribe(
        np.concatenate([LEADS["silence"](), german]), beam_size=1, temperature=0, **options
    )
    text = "".join(segment.text for segment in segments)
    assert info.language == "de" and GERMAN_WORDS in text


def test_a_window_without_speech_has_the_files_language(engine, german):
    """With `multilingual`, noise between speech does not switch the language to that of noise, Nynorsk."""
    english = decode_audio(SAMPLE)
    pad = np.zeros(30 * SAMPLE_RATE - len(german), np.float32)
    samples = np.concatenate([german, pad, noise(30, 0.05), english])
    model = engine("base")
    languages = []
    original = model.runtime.tokenizer.prompt
    try:
        model.runtime.tokenizer.prompt = lambda language, *rest: languages.append(language) or original(language, *rest)
        text = "".join(
            segment.text for segment in model.transcribe(samples, multilingual=True, beam_size=1, temperature=0)[0]
        )
    finally:
        del model.runtime.tokenizer.prompt
    assert {language for language in languages if language} == {"de", "en"}
    assert GERMAN_WORDS in text and "we will take your questions" in text


def test_detection_encodes_no_window_twice_where_speech_starts_at_once(engine, german):
    segments, _ = engine("base").transcribe(german, beam_size=1, temperature=0)
    list(segments)
    report = segments.report()
    assert report.windows - report.windows_reencoded == 1
    assert next(stage.calls for stage in report.stages if stage.name == "detect language") == 1


def test_begin_reads_the_audio_and_waits_for_no_model(engine, german):
    model, busy, free, freed = engine("base"), threading.Event(), threading.Event(), []

    def occupy():
        busy.set()
        freed.append(free.wait(20))

    other = threading.Thread(target=model._scheduler.call, args=(occupy,))
    other.start()
    assert busy.wait(60)
    seconds = []
    transcription = model.begin(german, beam_size=1, temperature=0, on_read=seconds.append)
    assert seconds[-1] == len(german) / SAMPLE_RATE
    free.set()
    other.join()
    assert freed == [True]
    assert GERMAN_WORDS in "".join(segment.text for segment in transcription)
    assert transcription.info.language == "de"


def test_a_guess_is_called_one(engine):
    from tilewhisper.engine.commands.tables import setting_line

    segments, info = engine("base").transcribe(LEADS["noise"](), beam_size=1, temperature=0)
    report = segments.report()
    assert report.language_no_speech_prob > 0.6 and report.language_is_guess
    assert f"({info.language_probability:.0%} sure, a guess: no window holds speech)" in setting_line(report)


def test_speech_is_no_guess(engine, german):
    from tilewhisper.engine.commands.tables import setting_line

    segments, info = engine("base").transcribe(german)
    report = segments.report()
    assert report.language_probability == info.language_probability
    assert not report.language_is_guess
    assert f"language de ({info.language_probability:.0%} sure)" in setting_line(report)


@pytest.mark.parametrize(("amplitude", "language"), [(0.05, None)])
def test_noise_has_no_text(engine, amplitude, language):
    """The model is sure of "1 tbc 1 tbc 1 tbc 1 tbc", as it would be in silence."""
    segments, _ = engine("base").transcribe(noise(30, amplitude), language=language, temperature=0)
    assert [segment.text for segment in segments] == []
    assert any(stage.name == "compare with silence" for stage in segments.report().stages)


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_speech_keeps_its_text_however_probable_no_speech_is(engine, name):
    """With a threshold of 0, no-speech counts as probable everywhere; silence would not give these words."""
    segments, _ = engine(name).transcribe(SAMPLE, language="en", beam_size=1, no_speech_threshold=0.0)
    assert "we will take your questions" in "".join(segment.text for segment in segments)
    assert any(stage.name == "compare with silence" for stage in segments.report().stages)
