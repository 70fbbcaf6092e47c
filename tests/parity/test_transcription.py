"""`WhisperModel` from Python: faster-whisper's shapes, lazy segments, and long files held against transformers."""

import io
from dataclasses import replace
from itertools import pairwise

import jiwer
import numpy as np
import pytest
import torch
from conftest import require_weights

from tilewhisper import WhisperModel
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.audio import reader
from tilewhisper.models.errors import LanguageError

# Both go through the file by the timestamps of the window before, with the same token rules on the same weights; what
# follows the end of the audio differs, silence there and zeros here, so a few words of a hundred are let pass.
LARGEST_WER = 0.05
GREEDY = {"beam_size": 1, "temperature": 0}


def plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c in " '").split())


def tokens_of(segments) -> list[int]:
    return [token for segment in segments for token in segment.tokens]


@pytest.fixture
def long_file(shared):
    """43 s: two windows."""
    return shared / "long" / "61-52s.wav"


def test_segments_come_before_the_last_window_is_encoded(engine, long_file):
    segments, _ = engine("tiny.en").transcribe(long_file, **GREEDY)
    assert segments.report().windows == 0
    first = next(segments)
    assert first.start == 0
    assert segments.report().windows == 1
    rest = list(segments)
    assert segments.report().windows == 2
    assert rest[-1].seek > 0


def test_info_is_there_before_any_segment(engine, long_file):
    _, info = engine("tiny.en").transcribe(long_file, without_timestamps=False, max_initial_timestamp=0.5)
    assert (info.language, info.language_probability, info.all_language_probs) == ("en", 1.0, None)
    assert info.duration == info.duration_after_vad == pytest.approx(42.996)
    assert info.transcription_options.max_initial_timestamp == 0.5
    assert info.transcription_options.language == "en"


def test_the_fields_of_a_segment(engine, shared):
    model = engine("tiny.en")
    segments, info = model.transcribe(shared / "jfk.flac", beam_size=1)
    tokenizer = model.checkpoint.tokenizer
    for number, segment in enumerate(segments):
        assert segment.id == number
        assert segment.text == tokenizer.decode(segment.tokens)
        assert segment.start == pytest.approx((segment.tokens[0] - tokenizer.timestamp_begin) * 0.02)
        assert 0 <= segment.start < segment.end <= info.duration
        assert -1 < segment.avg_logprob < 0
        assert 0 <= segment.no_speech_prob < 0.6
        assert 0.5 < segment.compression_ratio < 2.4
        assert (segment.temperature, segment.words) == (0.0, None)


@pytest.fixture(scope="module")
def tokens_of_the_path(engine, shared):
    return tokens_of(engine("tiny.en").transcribe(shared / "jfk.flac", beam_size=1)[0])


@pytest.mark.parametrize("source", ["str", "array", "double", "file object", "file", "bytes of wav"])
def test_every_kind_of_input_gives_the_tokens_of_the_path(engine, shared, source, tokens_of_the_path):
    import soundfile

    path = shared / "jfk.flac"
    samples = reader.decode_audio(path)
    wave = io.BytesIO()
    soundfile.write(wave, samples, 16000, format="WAV", subtype="FLOAT")
    wave.seek(0)
    with path.open("rb") as file:
        given = {
            "str": str(path),
            "array": samples,
            "double": samples.astype(np.float64),
            "file object": io.BytesIO(path.read_bytes()),
            "file": file,
            "bytes of wav": wave,
        }[source]
        ours = tokens_of(engine("tiny.en").transcribe(given, beam_size=1)[0])
    assert ours == tokens_of_the_path
    assert len(ours) > 20


def test_progress_goes_up_to_the_duration(engine, long_file):
    calls: list[tuple[float, float]] = []
    segments, info = engine("tiny.en").transcribe(long_file, beam_size=1, progress=lambda *call: calls.append(call))
    assert calls == []
    list(segments)
    assert {total for _, total in calls} == {info.duration}
    assert all(a < b for (a, _), (b, _) in pairwise(calls))
    assert calls[-1][0] == info.duration
    assert len(calls) == segments.report().windows == 2


@pytest.mark.parametrize(("name", "file"), [("tiny.en", "61-52s.wav"), ("tiny.en", "kennedy.wav")])
def test_long_files(engine, oracle, shared, name, file):
    """Every word that transformers' own long-form path hears, at times that never run backwards or beyond the end."""
    path = shared / "long" / file
    greedy = {"beam_size": 1, "temperature": 0, "condition_on_previous_text": False}
    segments, info = engine(name).transcribe(path, "en", **greedy)
    found = list(segments)
    assert all(0 <= segment.start < segment.end <= info.duration for segment in found)
    assert all(a.end <= b.start + 1e-9 and a.seek <= b.seek for a, b in pairwise(found))
    assert [segment.id for segment in found] == list(range(len(found)))
    theirs = plain(oracle(name).generate(reader.decode_audio(path), "en").text)
    ours = plain("".join(segment.text for segment in found))
    assert len(theirs.split()) > 50
    assert jiwer.wer(theirs, ours) <= LARGEST_WER


def test_a_second_run_gives_the_same(engine, long_file):
    first, second = (list(engine("tiny.en").transcribe(long_file, **GREEDY)[0]) for _ in range(2))
    assert first == second


def test_two_transcriptions_of_one_model_can_be_taken_in_turn(engine, shared, long_file):
    model = engine("tiny.en")
    alone = [tokens_of(model.transcribe(path, **GREEDY)[0]) for path in (long_file, shared / "jfk.flac")]
    one, _ = model.transcribe(long_file, **GREEDY)
    begun = [next(one)]
    other, _ = model.transcribe(shared / "jfk.flac", **GREEDY)
    assert tokens_of(other) == alone[1]
    assert tokens_of([*begun, *one]) == alone[0]
    assert (one.report().windows, other.report().windows) == (2, 1)
    assert {site.calls for site in one.report().sites} == {2}
    assert {site.calls for site in other.report().sites} == {1}


def test_a_report_can_be_asked_for_at_any_time(engine, shared):
    segments, info = engine("tiny.en").transcribe(shared / "jfk.flac", beam_size=1)
    before = segments.report()
    assert (before.windows, before.tokens, before.tokens_per_second) == (0, 0, None)
    assert {site.calls for site in before.sites} == {0}
    list(segments)
    after = segments.report()
    assert after.audio_seconds == info.duration == 11
    assert after.rtf == after.total.wall_seconds / 11
    assert after.total.wall_seconds > before.total.wall_seconds
    assert next(segments, None) is None


def test_what_cannot_be_done_is_said_at_the_call(engine, shared):
    model = engine("tiny.en")
    with pytest.raises(LanguageError, match="English-only"):
        model.transcribe(shared / "jfk.flac", "de")
    with pytest.raises(LanguageError, match="cannot translate"):
        model.transcribe(shared / "jfk.flac", task="translate")
    with pytest.raises(OptionError, match="suppress_tokens must hold token ids"):
        model.transcribe(shared / "jfk.flac", suppress_tokens=[10**6])
    with pytest.raises(TypeError, match="beam"):
        model.transcribe(shared / "jfk.flac", beam=5)


def test_a_given_language_is_not_detected(engine, shared):
    _, info = engine("base").transcribe(shared / "jfk.flac", "English")
    assert (info.language, info.language_probability, info.all_language_probs) == ("en", 1.0, None)


def test_suppressed_tokens_do_not_come(engine, shared):
    model = engine("tiny.en")
    country = model.checkpoint.tokenizer.encode(" country")
    assert len(country) == 1
    plainly = tokens_of(model.transcribe(shared / "jfk.flac", beam_size=1)[0])
    without = tokens_of(model.transcribe(shared / "jfk.flac", beam_size=1, suppress_tokens=[-1, *country])[0])
    assert country[0] in plainly
    assert country[0] not in without


def test_the_most_tokens_of_a_window(engine, shared):
    segments, _ = engine("tiny.en").transcribe(shared / "jfk.flac", beam_size=1, max_new_tokens=6)
    list(segments)
    assert segments.report().tokens == 6


def test_the_checkpoints_limit_of_the_first_timestamp_is_used_unless_the_caller_gives_one(engine, monkeypatch):
    runtime = engine("tiny.en").runtime
    config = replace(runtime.generation_config, max_initial_timestamp_index=3)
    monkeypatch.setattr(runtime, "generation_config", config)

    def limit(**options):
        attempt = runtime.attempt(None, (), 0.0, TranscriptionOptions(language="en", **options))
        return attempt.processor.max_initial_timestamp_index

    assert limit() == 3
    assert limit(max_initial_timestamp=0.5) == 25


def test_each_token_has_its_log_probability(engine, oracle, shared):
    """Held against transformers' decoder on the same tokens, without the suppressed ones."""
    model, peer = engine("tiny.en"), oracle("tiny.en")
    tokenizer = model.checkpoint.tokenizer
    segments, _ = model.transcribe(shared / "jfk.flac", beam_size=1, audio_context="full")
    found = list(segments)
    tokens, logprobs = zip(*segments.token_logprobs(), strict=True)
    assert list(tokens) == tokens_of(found)
    prompt = tokenizer.prompt("en", "transcribe", True)
    samples = reader.decode_audio(shared / "jfk.flac")
    mel = model.log_mel(samples)[None, :, :3000].clone()
    mel[:, :, len(samples) // 160 :] = 0  # as openai-whisper pads a window
    with torch.no_grad():
        output = peer.model(mel, decoder_input_ids=torch.tensor([[*prompt, *tokens]]))
    logits = output.logits[0, len(prompt) - 1 : -1]
    logits[:, model.checkpoint.generation_config.suppress_tokens] = -torch.inf
    expected = logits.log_softmax(-1)[range(len(tokens)), tokens].tolist()
    words = [i for i, token in enumerate(tokens) if token < tokenizer.eot]
    # The rules also forbid some timestamps, which have little probability between words.
    assert all(expected[i] - 1e-3 <= logprobs[i] <= expected[i] + 0.02 for i in words)


def test_token_log_probabilities_of_several_windows_are_those_of_the_segments(engine, long_file):
    segments, _ = engine("tiny.en").transcribe(long_file, beam_size=1)
    found = list(segments)
    assert [token for token, _ in segments.token_logprobs()] == tokens_of(found)


def test_what_on_read_raises_ends_the_call(engine, long_file):
    read = []

    def refuse(seconds):
        read.append(seconds)
        if seconds > 5:
            raise TimeoutError("too long")

    with pytest.raises(TimeoutError, match="too long"):
        engine("tiny.en").transcribe(long_file, on_read=refuse)
    assert 5 < read[-1] < 42


def test_a_model_with_a_loop_of_its_own_gives_the_same(shared):
    with WhisperModel(require_weights("tiny.en"), policy="torch") as model:
        text = [segment.text for segment in model.transcribe(shared / "jfk.flac")[0]]
        model.start_loop()
        assert [segment.text for segment in model.transcribe(shared / "jfk.flac")[0]] == text
