"""The choices of how much silence is encoded, and which positions a sparse tail keeps."""

import math

import pytest
import torch

from tilewhisper.engine.encoding.audio_context import EDGE, MARGIN, AudioContext, SparseTail, parse, whole_positions
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.constants import POSITIONS


def test_the_four_ways_to_say_it():
    assert [str(parse(text)) for text in ("full", "sparse:4", "silent", "auto")] == [
        "full",
        "sparse:4",
        "silent",
        "auto",
    ]
    assert parse("sparse:16") == AudioContext("sparse", 16)


@pytest.mark.parametrize("text", ["", "sparse", "sparse:0", "sparse:-1", "sparse:1501", "sparse:x", "full:2", "none"])
def test_anything_else_is_refused_where_it_enters(text):
    with pytest.raises(OptionError, match=r"there are full, sparse:S \(e.g. sparse:4\), silent and auto"):
        TranscriptionOptions(audio_context=text)


def test_a_margin_after_the_audio_is_whole_and_a_window_has_no_more_than_its_positions():
    assert whole_positions(500) == 250 + MARGIN
    assert whole_positions(501) == 251 + MARGIN
    assert whole_positions(3000) == POSITIONS


@pytest.mark.parametrize("whole", [1, 300, 777, POSITIONS - EDGE - 1])
@pytest.mark.parametrize("step", [1, 3, 4, 8, 1000])
def test_what_is_kept_stands_for_every_position_once(whole, step):
    tail = SparseTail.after(whole, step)
    assert tail.kept[:whole].tolist() == list(range(whole))
    assert tail.kept[-EDGE:].tolist() == list(range(POSITIONS - EDGE, POSITIONS))
    assert (tail.kept.diff() > 0).all()
    assert tail.bias.exp().sum().item() == pytest.approx(POSITIONS, rel=1e-5)
    assert (tail.bias[:whole] == 0).all() and (tail.bias[-EDGE:] == 0).all()


def test_alike_positions_lose_nothing_by_standing_for_each_other():
    """Softmax over a tail of equal keys: its sparse form gives the same values."""
    tail, q = SparseTail.after(40, 4), torch.randn(5, 64)
    k, v = torch.randn(POSITIONS, 64), torch.randn(POSITIONS, 64)
    k[40 : POSITIONS - EDGE], v[40 : POSITIONS - EDGE] = k[40], v[40]
    whole = (q @ k.T / 8).softmax(dim=-1) @ v
    sparse = (q @ k[tail.kept].T / 8 + tail.bias).softmax(dim=-1) @ v[tail.kept]
    torch.testing.assert_close(sparse, whole, rtol=1e-4, atol=1e-5)
    assert math.isclose(float(tail.bias.max()), math.log(1444 / 361), rel_tol=1e-6)
