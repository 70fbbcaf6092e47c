"""The modes of the audio context, parsed without torch, and the positions of a sparse tail."""

import math
import subprocess
import sys

import pytest
import torch

from tilewhisper.engine.encoding.audio_context import EDGE, MARGIN, AudioContext, parse, whole_positions
from tilewhisper.engine.encoding.states import SparseTail
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.constants import POSITIONS


def test_the_four_modes():
    assert [str(parse(text)) for text in ("full", "sparse:4", "silent", "auto")] == [
        "full",
        "sparse:4",
        "silent",
        "auto",
    ]
    assert parse("sparse:16") == AudioContext("sparse", 16)


@pytest.mark.parametrize(
    "text", ["", "sparse", "sparse:S", "sparse:0", "sparse:-1", "sparse:1501", "sparse:x", "full:", "full:2", "none"]
)
def test_any_other_mode_is_an_error(text):
    with pytest.raises(
        OptionError, match=r"must be full, sparse:S \(S from 1 to 1500, e.g. sparse:4\), silent or auto, got"
    ):
        TranscriptionOptions(audio_context=text)


def test_parsing_needs_no_torch():
    code = "import sys; from tilewhisper.engine.encoding.audio_context import parse; parse('sparse:4')"
    code += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_margin_after_the_audio_is_encoded_in_full_up_to_the_end_of_the_window():
    assert whole_positions(500) == 250 + MARGIN
    assert whole_positions(501) == 251 + MARGIN
    assert whole_positions(3000) == POSITIONS


@pytest.mark.parametrize("whole", [1, 300, 777, POSITIONS - EDGE - 1])
@pytest.mark.parametrize("step", [1, 3, 4, 8, 1000])
def test_the_positions_of_a_sparse_tail_represent_every_position_once(whole, step):
    tail = SparseTail.after(whole, step)
    assert tail.positions[:whole].tolist() == list(range(whole))
    assert tail.positions[-EDGE:].tolist() == list(range(POSITIONS - EDGE, POSITIONS))
    assert (tail.positions.diff() > 0).all()
    assert tail.bias.exp().sum().item() == pytest.approx(POSITIONS, rel=1e-5)
    assert (tail.bias[:whole] == 0).all() and (tail.bias[-EDGE:] == 0).all()


def test_equal_positions_lose_nothing_in_a_sparse_tail():
    """Softmax over a tail of equal keys: its sparse form gives the same values."""
    tail, q = SparseTail.after(40, 4), torch.randn(5, 64)
    k, v = torch.randn(POSITIONS, 64), torch.randn(POSITIONS, 64)
    k[40 : POSITIONS - EDGE], v[40 : POSITIONS - EDGE] = k[40], v[40]
    whole = (q @ k.T / 8).softmax(dim=-1) @ v
    sparse = (q @ k[tail.positions].T / 8 + tail.bias).softmax(dim=-1) @ v[tail.positions]
    torch.testing.assert_close(sparse, whole, rtol=1e-4, atol=1e-5)
    assert math.isclose(float(tail.bias.max()), math.log(1444 / 361), rel_tol=1e-6)
