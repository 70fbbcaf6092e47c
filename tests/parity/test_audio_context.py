"""Windows with an approximate tail against the same windows in full, on real weights and speech."""

import pytest
import torch

from tilewhisper.engine.encoding.audio_context import FULL, MARGIN, AudioContext, whole_positions
from tilewhisper.engine.routing.router import Counts
from tilewhisper.models.audio import reader
from tilewhisper.models.audio.log_mel import LogMel


def encode(model, samples, context):
    mel = LogMel(model.n_mels)
    mel.append(samples)
    mel.finish()
    return model.runtime.encode_window(mel.window(0)[None], mel.content_frames, context, Counts()), mel


@pytest.fixture
def clip(shared):
    return reader.decode_audio(shared / "librispeech" / "1688-142285-0002.flac")  # 2.8 s


def test_full_is_bit_equal_to_encode(engine, clip):
    model = engine("tiny.en")
    encoded, mel = encode(model, clip, FULL)
    assert torch.equal(encoded.states, model.encode(mel.window(0)[None]))
    assert encoded.bias is None and not encoded.approximate


def test_a_sparse_tail_of_every_position_equals_the_whole_window(engine, clip):
    """The stem, too, skips silence without a change."""
    model = engine("tiny.en")
    whole, sparse = (encode(model, clip, AudioContext(*how))[0].states for how in (("full",), ("sparse", 1)))
    torch.testing.assert_close(sparse, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("context", "bound"), [(("sparse", 4), 0.15), (("silent",), 0.1)])
def test_the_states_of_the_audio_stay_close(engine, clip, context, bound):
    model = engine("tiny.en")
    approximate, mel = encode(model, clip, AudioContext(*context))
    whole, _ = encode(model, clip, FULL)
    own = slice(0, whole_positions(mel.content_frames) - MARGIN)
    error = (approximate.states[:, own] - whole.states[:, own]).norm() / whole.states[:, own].norm()
    assert approximate.approximate and 0 < error < bound


def test_a_window_without_silence_is_encoded_in_full(engine, shared):
    model, samples = engine("tiny.en"), reader.decode_audio(shared / "long" / "61-52s.wav")[: 30 * 16000]
    for context in (AudioContext("sparse", 4), AudioContext("silent")):
        assert not encode(model, samples, context)[0].approximate


@pytest.mark.parametrize("context", ["sparse:4", "silent"])
def test_the_text_with_an_approximate_tail_is_the_same(engine, shared, context):
    model = engine("tiny.en")
    segments, _ = model.transcribe(shared / "jfk.flac", audio_context=context, beam_size=1)
    whole, _ = model.transcribe(shared / "jfk.flac", audio_context="full", beam_size=1)
    ours, theirs = ("".join(segment.text for segment in found).rstrip(".") for found in (segments, whole))
    assert ours == theirs
    assert segments.report().audio_context == context


def test_a_window_that_fails_the_checks_is_encoded_again_in_full(engine, shared):
    model = engine("tiny.en")
    options = {"temperature": 0, "beam_size": 1}
    segments, _ = model.transcribe(
        shared / "jfk.flac", audio_context="sparse:4", compression_ratio_threshold=0.1, **options
    )
    whole, _ = model.transcribe(shared / "jfk.flac", audio_context="full", **options)
    assert [segment.tokens for segment in segments] == [segment.tokens for segment in whole]
    report = segments.report()
    assert (report.windows, report.windows_reencoded) == (2, 1)
    assert whole.report().windows_reencoded == 0
