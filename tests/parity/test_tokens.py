"""Greedy tokens against transformers' own `generate`, over real speech."""

from pathlib import Path

import pytest
import torch
from conftest import require_weights

from tilewhisper import WhisperModel
from tilewhisper.engine.encoding.audio_context import FULL, AudioContext
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.routing.router import Counts
from tilewhisper.models.audio import reader
from tilewhisper.models.audio.log_mel import content_frames


def cross_kv(model, mel):
    """The cross-attention K/V cache of a log-mel window (1, n_mels, 3000), encoded with full context."""
    return model.runtime.project_cross_kv(Encoded(model.encode(mel)))


def clips(shared: Path) -> list[Path]:
    return sorted((shared / "librispeech").glob("*.flac"))


@pytest.mark.parametrize(("name", "step", "may_differ"), [("tiny.en", 15, 1), ("base", 30, 0)])
def test_greedy_tokens_equal_transformers(name, step, may_differ, engine, oracle, shared):
    """On four and on two of 60 clips: all take 100 and 150 s. scripts/accuracy.py runs both on all."""
    options = TranscriptionOptions(language="en", beam_size=1, temperature=0)
    different = []
    for clip in (files := clips(shared)[::step]):
        samples = reader.decode_audio(clip)
        mel = engine(name).log_mel(samples)[None]
        (window,) = engine(name).runtime.decode(
            [engine(name).runtime.project_cross_kv(Encoded(engine(name).encode(mel)))], options
        )
        if window.tokens != oracle(name).generate(samples, "en").tokens:
            different.append(clip.name)
    assert len(files) == 60 // step
    assert len(different) <= may_differ, different


@pytest.mark.parametrize("name", ["tiny.en"])
def test_tokens_without_timestamps_equal_transformers(name, engine, oracle, shared):
    options = TranscriptionOptions(language="en", beam_size=1, temperature=0, without_timestamps=True)
    for clip in clips(shared)[:2]:
        samples = reader.decode_audio(clip)
        states = engine(name).encode(engine(name).log_mel(samples)[None])
        (window,) = engine(name).runtime.decode([engine(name).runtime.project_cross_kv(Encoded(states))], options)
        assert window.tokens == oracle(name).generate(samples, "en", timestamps=False).tokens


def test_translation_equals_transformers(engine, oracle, shared):
    samples = reader.decode_audio(shared / "languages" / "es.wav")
    model = engine("base")
    states = model.encode(model.log_mel(samples)[None])
    (window,) = model.runtime.decode(
        [model.runtime.project_cross_kv(Encoded(states))],
        TranscriptionOptions("es", "translate", beam_size=1, temperature=0),
    )
    assert window.tokens == oracle("base").generate(samples, "es", "translate").tokens


@pytest.mark.parametrize("language", ["zh", "es", "de", "fr", "it", "ja", "ko", "pt"])
def test_the_language_is_detected_as_transformers_does(language, engine, oracle, shared):
    file = shared / "languages" / f"{language}.wav"
    _, info = engine("base").transcribe(file)
    assert info.language == oracle("base").detect_language(oracle("base").log_mel(reader.decode_audio(file)))
    assert info.language == language
    assert info.all_language_probs[0] == (info.language, info.language_probability)
    assert sum(probability for _, probability in info.all_language_probs) == pytest.approx(1.0, abs=1e-5)


def test_cached_steps_equal_one_pass_over_all_tokens(engine, oracle, shared):
    """The decoder alone: logits of token after token against transformers' forward over the whole sequence."""
    model, theirs = engine("tiny.en"), oracle("tiny.en")
    states = model.encode(theirs.log_mel(reader.decode_audio(shared / "jfk.flac")))
    tokens = torch.tensor([[50257, 50362, 843, 523, 616, 5891, 3399]])
    decoder = model.runtime.decoder
    state = decoder.start()
    state.add([decoder.project_cross_kv(Encoded(states))])
    steps = [tokens[:, :2], *tokens[:, 2:].split(1, dim=1)]
    ours = torch.cat([decoder.logits(decoder.step(some.tolist(), state)) for some in steps])
    with torch.inference_mode():
        (whole,) = theirs.model(encoder_outputs=(states,), decoder_input_ids=tokens).logits
    torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-3)


def test_probabilities_are_accurate_where_they_are_asked_for(oracle, shared):
    """By int8, whose output projection has 4 bits: of no speech and a likely token, at the start and in the text."""
    theirs, tokens, chosen = oracle("tiny.en"), [[50257, 50362, 843, 523, 616]], [50361, 843, 5891]
    with WhisperModel(require_weights("tiny.en"), policy="int8") as model:
        decoder = model.runtime.decoder
        states = model.encode(theirs.log_mel(reader.decode_audio(shared / "jfk.flac")))
        state = decoder.start()
        state.add([decoder.project_cross_kv(Encoded(states))])
        hidden = decoder.step(tokens, state)
        logits = decoder.logits(hidden)
        rough = logits.clone()
        decoder.make_exact(logits, hidden, chosen)
        for row, output in zip(logits, hidden.split(1), strict=True):  # which others there are does not matter
            alone = decoder.logits(output)
            decoder.make_exact(alone, output, chosen)
            assert torch.equal(alone[0], row)
    exact = hidden.double() @ theirs.model.proj_out.weight.double().T
    expected = exact.log_softmax(dim=1)[:, chosen]
    error, before = ((each.double().log_softmax(dim=1)[:, chosen] - expected).abs().max() for each in (logits, rough))
    assert (logits[:, chosen] - exact[:, chosen]).abs().max() < 1e-4
    assert error < 0.03 < before


@pytest.mark.parametrize("most", [512, 3])
def test_a_batch_of_prompts_of_any_lengths_gives_what_each_gives_alone(engine, oracle, shared, monkeypatch, most):
    monkeypatch.setattr("tilewhisper.engine.decoding.decoder.MAX_TOKENS_PER_CALL", most)
    model, theirs = engine("tiny.en"), oracle("tiny.en")
    window = model.runtime.project_cross_kv(
        Encoded(model.encode(theirs.log_mel(reader.decode_audio(shared / "jfk.flac"))))
    )
    decoder = model.runtime.decoder
    prompts, after = [[50257, 50362], [50257, 50362, 843, 523, 616]], [[843], [5891]]
    alone = []
    for prompt, token in zip(prompts, after, strict=True):
        state = decoder.start()
        state.add([window])
        alone.append([decoder.step([prompt], state), decoder.step([token], state)])
    for at_once in (True, False):
        state = decoder.start()
        state.add([window] * (1 + at_once))
        if at_once:
            first, second = decoder.step(prompts, state).split([2, 5])
        else:  # the second comes while the first goes on
            first = decoder.step(prompts[:1], state)
            state.add([window])
            step, second = decoder.step([after[0], prompts[1]], state).split([1, 5])
            torch.testing.assert_close(step, alone[0][1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(first, alone[0][0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(second, alone[1][0], rtol=1e-3, atol=1e-3)


def test_a_full_text_context_is_refused(engine, oracle, shared):
    model = engine("tiny.en")
    states = model.encode(oracle("tiny.en").log_mel(reader.decode_audio(shared / "jfk.flac")))
    state = model.runtime.decoder.start()
    state.add([model.runtime.project_cross_kv(Encoded(states))])
    model.runtime.decoder.step([[50257]], state)
    state.lengths = [model.runtime.decoder.text_context]
    with pytest.raises(IndexError, match="a row must have at most 448 tokens, got 449"):
        model.runtime.decoder.step([[843]], state)


def test_windows_decoded_together_give_what_they_give_alone(engine, shared):
    """Of different lengths and different audio, so that they leave the batch one after the other."""
    model, options = engine("tiny.en"), TranscriptionOptions(language="en", beam_size=1, temperature=0)
    windows = []
    for i, clip in enumerate(clips(shared)[:5]):
        mel, content = model.log_mel(samples := reader.decode_audio(clip)), content_frames(len(samples))
        context = FULL if i % 2 else AudioContext("sparse", 4)
        windows.append(
            model.runtime.project_cross_kv(model.runtime.encode_window(mel[None], content, context, Counts()))
        )
    alone = [model.runtime.decode([window], options)[0] for window in windows]
    together = model.runtime.decode(windows, options)
    assert len({len(window.tokens) for window in alone}) > 2
    for one, row in zip(alone, together, strict=True):
        assert row.tokens == one.tokens
        assert row.avg_logprob == pytest.approx(one.avg_logprob, abs=1e-3)
