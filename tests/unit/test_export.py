"""Writing checkpoints in other formats: they read back the same, and what cannot be written is refused in one line."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import require_weights

from tilewhisper.models.checkpoint import export, loader, modules
from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.export import ctranslate2, ggml_blocks, safetensors
from tilewhisper.models.checkpoint.export.model import ExportedModel
from tilewhisper.models.checkpoint.generation_config import derive
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.checkpoint.locate import locate
from tilewhisper.models.checkpoint.stored_tensor import Storage, StoredTensor
from tilewhisper.models.errors import ExportError
from tilewhisper.models.tokenizer import vocabulary
from tilewhisper.models.tokenizer.tokenizer import Tokenizer

FLOATS = [
    (kind, precision)
    for kind, form in export.FORMATS.items()
    for precision in form.precisions
    if precision in ("float32", "float16", "bfloat16", "f16") and kind not in ("onnx", "openvino")  # which are not read
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return vocabulary.from_file(locate(require_weights("tiny.en")).folder / "tokenizer.json", 51864)


@pytest.fixture(scope="module")
def small(tokenizer) -> Checkpoint:
    return checkpoint(tokenizer)


def checkpoint(tokenizer: Tokenizer, **sizes: int) -> Checkpoint:
    """Random values that float16 represents: two encoder layers, three of the decoder, width 64."""
    config = replace(ModelConfig(tokenizer.n_vocab, 80, 64, 2, 3, 2, 2, 256, 256, 20, 12), **sizes)
    generator = torch.Generator().manual_seed(0)
    shapes = {name: tensor.shape for name, tensor in modules.Whisper(config).state_dict().items()}
    state = {name: (torch.randn(shape, generator=generator) / 8).half().float() for name, shape in shapes.items()}
    model = modules.build(config, state, "small")
    return Checkpoint(
        "small", replace(locate("tiny.en"), name="small"), model, tokenizer, derive(tokenizer, config.dims)
    )


def written(model: Checkpoint, folder: Path, kind: str, precision: str | None = None) -> Checkpoint:
    """The model as its reader finds it after `export.write`."""
    files = export.write(model, kind, folder, precision)
    return loader.load(files[0] if kind in ("ggml", "openai") else folder)


@pytest.mark.parametrize(("kind", "precision"), FLOATS)
def test_every_float_precision_reads_back_the_same(small, tmp_path, kind, precision):
    found = written(small, tmp_path / "new" / "model", kind, precision)
    rounded = torch.bfloat16 if precision == "bfloat16" else torch.float16
    expected, state = small.model.state_dict(), found.model.state_dict()
    assert expected.keys() == state.keys()
    assert [name for name in expected if not torch.equal(state[name], expected[name].to(rounded).float())] == []
    assert found.model.config == small.model.config
    assert found.generation_config == small.generation_config


def test_the_tokenizer_is_written_from_a_source_without_one(small, tmp_path):
    """A ggml file has only the text tokens; the folder written from it has a whole tokenizer."""
    bare = written(small, tmp_path / "ggml", "ggml")
    text = " It's the same text, in all of them: ♪ 日本 therefore"
    for kind in ("ctranslate2", "transformers"):
        found = written(bare, tmp_path / kind, kind)
        assert found.tokenizer.encode(text) == small.tokenizer.encode(text)
    tokens = json.loads((tmp_path / "ctranslate2" / "vocabulary.json").read_text("utf-8"))
    assert len(tokens) == 51864
    assert tokens[small.tokenizer.timestamp_begin] == "<|0.00|>"
    assert tokens[-1] == "<|30.00|>"


@pytest.mark.parametrize("kind", ["q8_0", "q5_0", "q5_1", "q4_0", "q4_1"])
def test_ggml_blocks_hold_the_nearest_codes_of_their_grid(kind):
    values = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    values[0], values[1, 5] = 0, 9.5
    found = decoded(ggml_blocks.encode(values, kind), kind).view(values.shape)
    blocks = values.view(-1, 32)
    steps = {"q8_0": 127, "q5_0": 16, "q5_1": 31, "q4_0": 8, "q4_1": 15}[kind]
    extent = blocks.amax(1) - blocks.amin(1) if kind.endswith("_1") else blocks.abs().amax(1)
    step = (extent / steps)[:, None].expand_as(blocks).reshape(values.shape)
    # q4_0 and q5_0 lack the code of a value as large as the extreme and of the other sign: a whole step is lost.
    allowed = step * (1 if kind in ("q4_0", "q5_0") else 0.5) + 0.1 * step  # float16 scales
    assert bool(((found - values).abs() <= allowed).all())
    again = ggml_blocks.encode(found, kind)
    assert torch.equal(decoded(again, kind).view(values.shape), found)


def decoded(blocks: torch.Tensor, kind: str) -> torch.Tensor:
    """Blocks of ggml's layout as values (blocks, 32), one at a time as ggml's documentation states them."""
    rows = []
    for block in blocks:
        scale, rest = block[:2].view(torch.float16).item(), block[2:]
        if kind == "q8_0":
            rows.append([scale * code for code in rest.view(torch.int8).tolist()])
            continue
        lowest = -8 if kind == "q4_0" else -16
        offset = lowest * scale
        if kind.endswith("_1"):
            offset, rest = rest[:2].clone().view(torch.float16).item(), rest[2:]
        fifth = 0
        if kind[1] == "5":
            fifth, rest = int.from_bytes(bytes(rest[:4].tolist()), "little"), rest[4:]
        low = [byte & 15 for byte in rest.tolist()] + [byte >> 4 for byte in rest.tolist()]
        rows.append([scale * (code + 16 * (fifth >> i & 1)) + offset for i, code in enumerate(low)])
    return torch.tensor(rows)


def test_int8_rows_have_a_scale_each_and_int16_matrices_one():
    values = torch.randn(6, 10, generator=torch.Generator().manual_seed(2))
    values[2] = 0
    codes, scale = ctranslate2._int8(values)
    assert codes.dtype == torch.int8
    assert bool(((codes / scale[:, None] - values).abs() <= 0.5001 / scale[:, None]).all())
    assert codes[3].abs().max() == 127
    codes, scale = ctranslate2._int16(values)
    assert (codes.dtype, scale.shape) == (torch.int16, ())
    assert codes.abs().max() == 1024
    assert bool(((codes / scale - values).abs() <= 0.5001 / scale).all())


def test_large_transformers_models_are_sharded(small, tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "SHARD_BYTES", 8_000_000)
    found = written(small, tmp_path / "model", "transformers", "float32")
    assert len(list((tmp_path / "model").glob("model-*-of-*.safetensors"))) > 1
    expected = small.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.model.state_dict().items())


class Counted(Storage):
    """Counts the bytes of all tensors that it has given and that are still in use."""

    in_use = most = 0

    def __init__(self, values: torch.Tensor) -> None:
        self.values, self.shape = values, tuple(values.shape)

    nbytes = property(lambda self: self.values.nbytes)

    def rows(self, first, last):
        raise NotImplementedError

    pick = part = release = rows

    def load(self):
        import weakref

        values, size = self.values.clone(), self.values.nbytes
        Counted.in_use += size
        Counted.most = max(Counted.most, Counted.in_use)
        weakref.finalize(values, lambda: setattr(Counted, "in_use", Counted.in_use - size))
        return values


@pytest.mark.parametrize("kind", [kind for kind in export.FORMATS if kind != "openvino"])  # which reads ONNX models
def test_parameters_are_in_memory_one_at_a_time(small, tmp_path, kind):
    state = {n: StoredTensor(Counted(t)) if t.ndim > 1 else t for n, t in small.model.state_dict().items()}
    Counted.in_use = Counted.most = 0
    model = replace(small, model=modules.build(small.model.config, state, "small"))
    steps: list[tuple[int, int]] = []
    export.write(model, kind, tmp_path / "model", on_read=lambda done, total: steps.append((done, total)))
    embedding = max(tensor.numel() for tensor in state.values()) * 4
    # The next tensor is read while the last one is still named: at most the embedding and a smaller one.
    assert embedding <= Counted.most <= 1.1 * embedding
    assert Counted.in_use == 0
    assert steps[-1] == (steps[-1][1],) * 2
    assert steps == sorted(steps)


def refused(*arguments, **named) -> str:
    with pytest.raises(ExportError) as error:
        export.write(*arguments, **named)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_requests_name_what_is_allowed(small, tmp_path):
    assert "ctranslate2, ggml, openai, transformers" in refused(small, "gguf", tmp_path / "a")
    assert "its precisions are f16, q8_0" in refused(small, "ggml", tmp_path / "a", "int8")
    (tmp_path / "file").touch()
    assert "not empty (it has file)" in refused(small, "ggml", tmp_path)
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        assert "file is a file" in refused(small, "ggml", path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["ggml", "openai"])
def test_what_openais_layout_cannot_express_is_refused(tokenizer, tmp_path, kind):
    assert "feed-forward width of 96" in refused(checkpoint(tokenizer, encoder_ffn_dim=96), kind, tmp_path / "a")
    more = Tokenizer({**tokenizer.vocabulary, "<|laughs|>": 51864}, tokenizer._load_encoder, 51865)
    assert "cannot express this model's tokens" in refused(checkpoint(more), kind, tmp_path / "a")
    assert written(checkpoint(more), tmp_path / "hf", "transformers").model.config == checkpoint(more).model.config


@pytest.mark.parametrize("kind", ["ggml", "openai"])
def test_rows_that_pad_an_embedding_are_left_out(tokenizer, tmp_path, kind):
    padded = checkpoint(Tokenizer(tokenizer.vocabulary, tokenizer._load_encoder, 51904))
    found = written(padded, tmp_path / kind, kind)
    name = "model.decoder.embed_tokens.weight"
    assert torch.equal(found.model.state_dict()[name], padded.model.state_dict()[name][:51864])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_an_unfinished_model_leaves_nothing(small, tmp_path, monkeypatch, error, existing):
    def fail(path, content):
        raise error

    monkeypatch.setattr("tilewhisper.models.checkpoint.export.json_files.write", fail)
    target = tmp_path / "model"
    if existing:
        target.mkdir()
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ExportError) as caught:
        export.write(small, "transformers", target)
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {target}: No space left on device"
    assert list(tmp_path.rglob("*")) == ([target] if existing else [])


def test_an_empty_folder_stays_in_its_place(small, tmp_path):
    """It may be a mount point, which cannot be replaced."""
    identity = tmp_path.stat().st_ino
    (file,) = export.write(small, "ggml", tmp_path, "q8_0")
    assert (tmp_path.stat().st_ino, file) == (identity, tmp_path / "ggml-small-q8_0.bin")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("tiny.en", "tiny.en"),
        ("openai/whisper-large-v3-turbo", "large-v3-turbo"),
        ("Systran/faster-whisper-small.en", "small.en"),
        ("models/ggml-base.en-q5_1.bin", "base.en"),
        ("mine.pt", "mine"),
    ],
)
def test_the_name_in_file_names(small, given, name):
    assert ExportedModel(replace(small, source=replace(small.source, kind="openai", name=given))).name == name


@pytest.mark.slow
def test_openvino_has_one_operator_for_each_attention_of_the_decoder(small, tmp_path: Path) -> None:
    """Else each step copies all keys and values."""
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    for package in export.FORMATS["openvino"].packages:
        pytest.importorskip(package, reason=f"{package} is not installed")
    export.write(small, "openvino", tmp_path / "model", "int8")
    decoder = openvino.Core().read_model(tmp_path / "model" / "openvino_decoder_model.xml")
    types = [node.get_type_name() for node in decoder.get_ops()]
    assert types.count("ScaledDotProductAttention") == 2 * small.model.config.decoder_layers
    assert "Softmax" not in types
