"""CTranslate2's quantised weights, as its own converter writes them: the same integers, not a copy of them."""

import json
from pathlib import Path

import pytest
import torch
import weight_writers
from test_cache import SIZES, write

from tilewhisper.kernels.cpu import build, quantized
from tilewhisper.models.checkpoint import loader
from tilewhisper.models.checkpoint.stored_tensor import StoredTensor, rows_of, whole

specs = pytest.importorskip("ctranslate2.specs", reason="ctranslate2 is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder of random weights."""
    return write(tmp_path_factory.mktemp("small") / "model", seed=0)


def convert(folder: Path, path: Path, quantization: str) -> Path:
    """Write a checkpoint by CTranslate2's own code."""
    checkpoint = loader.load(folder)
    layers, heads = SIZES.decoder_layers, SIZES.decoder_attention_heads
    spec = specs.WhisperSpec(SIZES.encoder_layers, heads, layers, heads)
    for name, tensor in weight_writers.ctranslate2_tensors(checkpoint):
        scope, _, attribute = name.rpartition("/")
        setattr(specs.model_spec.index_spec(spec, scope), attribute, tensor)
    spec.decoder.projection.weight = spec.decoder.embeddings.weight
    spec.register_vocabulary([str(token) for token in range(SIZES.vocab_size)])
    spec.validate()
    spec.optimize(quantization)
    path.mkdir()
    spec.save(str(path))
    (path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (path / "config.json").write_text(json.dumps({}))
    return path


INT8 = ["int8", "int8_float32", "int8_float16", "int8_bfloat16"]


@pytest.mark.parametrize("quantization", [*INT8, "int16", "float32", "float16", "bfloat16"])
def test_values_are_those_of_the_file(quantization: str, small: Path, tmp_path: Path) -> None:
    found = loader.load(convert(small, tmp_path / "ct2", quantization)).model.state_dict()
    for name, values in loader.load(small).model.state_dict().items():
        value, loaded = whole(values), whole(found[name])
        if value.ndim == 1 or "embed_positions" in name or quantization.startswith(("float", "bfloat")):
            kind = {"int8": "float32", "int16": "float32"}.get(quantization, quantization.removeprefix("int8_"))
            assert torch.equal(loaded, value.to(getattr(torch, kind)).float()), name
            continue
        error = (loaded - value).abs().flatten(1)
        # CTranslate2 scales a row's largest value to 127, and a tensor's to 1024. Stacked projections are one tensor.
        largest = value.flatten(1).abs().amax(1, keepdim=True)
        step = largest / 127 if quantization in INT8 else torch.full_like(largest, 8 / 1024)
        assert (error <= step * 0.50001).all(), name
        assert error.max() > 0, name
        assert isinstance(found[name], StoredTensor)
        size = found[name].stored.nbytes / value.numel()
        assert size < (1.2 if quantization in INT8 else 2.2), name
        indices = torch.tensor([[len(value) - 1, 0]])
        assert torch.equal(rows_of(found[name], indices), loaded[indices]), name


@pytest.mark.skipif(build.why_unavailable() is not None, reason="the native kernels cannot be built")
def test_the_integers_of_int8_rows_are_used_directly(small: Path, tmp_path: Path) -> None:
    build.load()
    found = loader.load(convert(small, tmp_path / "ct2", "int8")).model.state_dict()
    matrices = [w for name, w in found.items() if w.ndim == 2 and "embed_positions" not in name]
    assert len(matrices) == 6 + 2 * 10 + 1
    for weight in matrices:
        integers = weight.stored.integers.load()
        assert integers.abs().amax(1).eq(127).all()
        for pack in (quantized.pack_quads, lambda w, bias: quantized.pack(w, bias, 8)):
            assert torch.equal(pack(whole(weight), None).panels, pack(integers, None).panels)


def test_equal_tensors_that_are_stored_once_are_all_found(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "equal"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((small / name).read_bytes())
    from safetensors.torch import load_file, save_file

    equal = {name: torch.ones_like(w) if "norm" in name or "fc2" in name else w
             for name, w in load_file(small / "model.safetensors").items()}  # fmt: skip
    save_file(equal, folder / "model.safetensors")
    found = loader.load(convert(folder, tmp_path / "ct2", "int8_float32")).model.state_dict()
    for name, values in equal.items():
        if "norm" in name or "fc2" in name:
            assert torch.equal(whole(found[name]), values), name
