"""`scripts/check_weights.py`: its K types are ggml's, within a step of the values; which rows fail."""

import importlib
from pathlib import Path

import pytest
import torch

from tilewhisper.models.checkpoint.formats.ggml_blocks import TYPES, Blocks

SCRIPTS = Path(__file__).parents[2] / "scripts"
STEPS = {"q2_K": 3, "q3_K": 7, "q4_K": 15, "q5_K": 31, "q6_K": 63}
"""Steps from a group's smallest to its largest value."""


@pytest.mark.parametrize("name", STEPS)
def test_written_blocks_are_read_back_within_their_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    k_quants = importlib.import_module("weight_check.k_quants")
    values = torch.randn(40, 256, generator=torch.Generator().manual_seed(0))
    _, number, encode = k_quants.TYPES[name]
    stored = encode(values)
    assert stored.shape == (40, TYPES[number].nbytes)
    error = (Blocks((40, 256), stored.view(-1), False, TYPES[number]).load() - values).abs()
    # Scales and minima of a few bits add to the half step of rounding.
    step = 2 * values.abs().amax(1, keepdim=True) / STEPS[name]
    assert (error <= 1.2 * step).all()
    assert error.mean() > 0.01 * step.mean()


@pytest.mark.parametrize(
    ("precision", "same_as_file", "its_rounding", "source", "passed"),
    [
        ("q4_0", 9, None, 0, True),
        ("q4_0", 8, None, 10, False),
        ("int8", 8, 9, 0, True),
        ("float16", 10, None, 8, False),
        ("float16", None, None, 9, True),
    ],
)
def test_nine_of_ten_recordings_must_have_the_same_tokens(
    monkeypatch: pytest.MonkeyPatch, precision: str, same_as_file: int, its_rounding: int, source: int, passed: bool
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    check = importlib.import_module("check_weights")
    row = check.Row("base", "ggml", precision, 1.0, 10, same_as_file, its_rounding, None, source, 1.0, 1.0)
    assert row.passed == passed


def test_noise_is_less_than_a_step_of_16_bits_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    check = importlib.import_module("check_weights")
    silence = torch.zeros(1000).numpy()
    noise = check.noisy(silence)
    assert 0 < abs(noise).max() <= 2**-16 and (noise == check.noisy(silence)).all() and noise.dtype == silence.dtype
