"""Packed weights in the cache: mapped as they were packed, shared by policies, never of another form."""

import logging
from collections import Counter
from pathlib import Path

import pytest
import torch
from test_cache import SIZES
from test_cache import cache_folder as cache_folder
from test_cache import folder as folder

from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.engine.runtime import Runtime
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.kernels import registry
from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.quantized import Int8Backend
from tilewhisper.models.checkpoint import cache
from tilewhisper.models.checkpoint.loader import Checkpoint

pytestmark = pytest.mark.skipif(
    build.why_unavailable() is not None, reason="packed weights belong to the native kernels, which cannot be compiled"
)


def run(checkpoint: Checkpoint, policy: str) -> Runtime:
    return Runtime(checkpoint, load_policy(policy), registry.create)


def packed_files(cache_folder: Path) -> list[Path]:
    return sorted(cache_folder.glob("*/packed-*.safetensors"))


@pytest.fixture
def mel() -> torch.Tensor:
    return torch.randn(
        1, SIZES.num_mel_bins, 2 * SIZES.max_source_positions, generator=torch.Generator().manual_seed(1)
    )


def results(runtime: Runtime, mel: torch.Tensor) -> list[torch.Tensor]:
    """Encoder states and the logits of two tokens."""
    from tilewhisper.engine.encoding.states import Encoded

    states = runtime.encode(mel)
    state = runtime.decoder.start()
    state.add([runtime.decoder.project_cross_kv(Encoded(states))])
    hidden = runtime.decoder.step([[5, 6]], state)
    logits = runtime.decoder.logits(hidden)
    runtime.decoder.rescore(logits, hidden, SIZES.vocab_size // 2)
    return [states, hidden, logits]


@pytest.mark.parametrize("policy", ["cpu", "int8"])
def test_a_later_start_maps_what_the_first_packed(policy, cache_folder, folder, mel):
    first = run(cache.load(folder), policy)
    (file,) = packed_files(cache_folder)
    written = file.stat().st_ctime_ns, file.read_bytes()
    later = run(cache.load(folder), policy)
    assert (first.mapped, later.mapped) == (False, True)
    assert first.weight_bytes == later.weight_bytes > 0
    assert all(map(torch.equal, results(first, mel), results(later, mel)))
    assert packed_files(cache_folder) == [file]
    assert file.read_bytes() == written[1]


def test_the_first_start_maps_what_it_packed_and_creates_no_backend_twice(cache_folder, folder, monkeypatch):
    created, original = [], registry.create
    monkeypatch.setattr(registry, "create", lambda name, settings: created.append(name) or original(name, settings))
    with WhisperModel(folder, policy="int8") as model:
        assert model.runtime.mapped
    assert created and max(Counter(created).values()) == 1


def test_policies_share_what_is_equal(cache_folder, folder):
    """The only encoder layer of this model is int16 in both; the decoder's weights differ."""
    run(cache.load(folder), "cpu")
    (first,) = packed_files(cache_folder)
    run(cache.load(folder), "int8")
    second = next(file for file in packed_files(cache_folder) if file != first)
    from safetensors import safe_open

    names = {file: set(safe_open(file, framework="pt").keys()) for file in (first, second)}
    assert not names[first] & names[second]
    assert any("layers.0.fc1" in name and "decoder" not in name for name in names[first])
    assert not any("layers.0.fc1" in name and "decoder" not in name for name in names[second])
    assert run(cache.load(folder), "int8").mapped


def test_weights_of_another_version_of_the_kernels_are_not_used(cache_folder, folder, monkeypatch):
    run(cache.load(folder), "int8")
    monkeypatch.setattr(Int8Backend, "packing", "int8-another")
    assert not run(cache.load(folder), "int8").mapped
    assert run(cache.load(folder), "int8").mapped


def test_nothing_is_stored_for_float32(cache_folder, folder):
    assert not run(cache.load(folder), "torch").mapped
    assert packed_files(cache_folder) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "noise"])
def test_a_damaged_file_is_replaced_with_a_warning(damage, cache_folder, folder, mel, caplog):
    expected = results(run(cache.load(folder), "int8"), mel)
    (file,) = packed_files(cache_folder)
    content = file.read_bytes()
    file.write_bytes({"truncated": content[:-5], "empty": b"", "noise": b"\xff" * 1000}[damage])
    with caplog.at_level(logging.WARNING):
        repaired = run(cache.load(folder), "int8")
    assert f"{file} is damaged and will be replaced" in caplog.text
    assert all(map(torch.equal, expected, results(repaired, mel)))
    assert file.read_bytes() == content
    assert run(cache.load(folder), "int8").mapped


def test_panels_begin_at_cache_lines(cache_folder, folder):
    from safetensors import safe_open

    run(cache.load(folder), "int8")
    (file,) = packed_files(cache_folder)
    with safe_open(file, framework="pt") as opened:
        panels = [opened.get_tensor(name) for name in opened.keys() if name.endswith("panels")]  # noqa: SIM118
    assert panels
    assert {tensor.data_ptr() % 64 for tensor in panels} == {0}
