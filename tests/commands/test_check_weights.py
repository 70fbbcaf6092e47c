"""`scripts/check_weights.py`: its K types are ggml's, within a step of the values."""

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
