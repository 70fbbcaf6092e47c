"""Weights that are cut, damaged, of other models or made to do harm: one line, no crash, no memory, no code run."""

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import weight_writers
from safetensors.torch import load_file, save_file
from test_cache import write

from tilewhisper.models.checkpoint import export, formats, loader
from tilewhisper.models.checkpoint.locate import locate
from tilewhisper.models.errors import CheckpointError

MEMORY = 48 << 20
"""Bytes that a refused file may take: the sizes in these tests are of gigabytes to exabytes."""


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail if the process's resident memory rises by more than `MEMORY` inside, at any time."""
    status, refs = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not refs.exists():
        yield
        return

    def kilobytes(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    refs.write_text("5")  # sets the peak to the present
    before = kilobytes("VmRSS")
    yield
    assert kilobytes("VmHWM") - before < MEMORY >> 10


def load(path: Path) -> Any:
    """A `.pt` only as far as its tensors: its vocabulary, which the format lacks, is not the test's."""
    source = locate(path)
    return formats.tensors(source) if source.kind == "openai" else loader.read(source)


def refused(path: Path) -> str:
    with little_memory(), pytest.raises(CheckpointError) as error:
        load(path)
    text = str(error.value)
    assert "\n" not in text and len(text) < 500
    return text


def refused_or_loaded(path: Path) -> None:
    """For a field that may be of no use to the reader: no other error, and no memory."""
    with little_memory():
        try:
            load(path)
        except CheckpointError as error:
            assert "\n" not in str(error)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder of random weights."""
    return write(tmp_path_factory.mktemp("small") / "model", seed=0)


def as_hf(small: Path, folder: Path) -> Path:
    shutil.copytree(small, folder, dirs_exist_ok=True)
    return folder / "model.safetensors"


def as_ctranslate2(small: Path, folder: Path) -> Path:
    return weight_writers.write_ctranslate2(loader.load(small), folder) / "model.bin"


def as_ggml(small: Path, folder: Path) -> Path:
    return weight_writers.write_ggml(loader.load(small), folder / "ggml.bin", "q8_0")


def as_openai(small: Path, folder: Path) -> Path:
    return weight_writers.write_openai(loader.load(small), folder / "own.pt")


def as_pickled_hf(small: Path, folder: Path) -> Path:
    safetensors = as_hf(small, folder)
    torch.save(load_file(safetensors), folder / "pytorch_model.bin")
    safetensors.unlink()
    return folder / "pytorch_model.bin"


def as_sharded_hf(small: Path, folder: Path) -> Path:
    """The second of two parts."""
    whole = as_hf(small, folder)
    state = sorted(load_file(whole).items())
    parts = {"model-1-of-2.safetensors": dict(state[::2]), "model-2-of-2.safetensors": dict(state[1::2])}
    for name, part in parts.items():
        save_file(part, folder / name)
    index = {"weight_map": {tensor: name for name, part in parts.items() for tensor in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    whole.unlink()
    return folder / "model-2-of-2.safetensors"


def as_ctranslate2_int8(small: Path, folder: Path) -> Path:
    export.write(loader.load(small), "ctranslate2", folder, "int8")
    return folder / "model.bin"


FORMATS: dict[str, Callable[[Path, Path], Path]] = {
    "hf": as_hf, "hf-pickled": as_pickled_hf, "hf-sharded": as_sharded_hf, "ctranslate2": as_ctranslate2,
    "ctranslate2-int8": as_ctranslate2_int8, "ggml": as_ggml, "openai": as_openai,
}  # fmt: skip


def to_load(written: Path) -> Path:
    """What a user names: the folder of a part or of pickled weights."""
    return written.parent if written.stem.startswith(("pytorch_model", "model-")) else written


@pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS.keys())
def test_a_file_that_ends_anywhere_is_refused(written, small: Path, tmp_path: Path) -> None:
    path = written(small, tmp_path)
    load(to_load(path))
    whole = path.read_bytes()
    places = [*range(0, 200, 13), *range(200, len(whole), len(whole) // 20), len(whole) - 1]
    for length in places:
        path.write_bytes(whole[:length])
        refused(to_load(path))


@pytest.mark.parametrize("number", [0, 0x7FFFFFFF, 0xFFFFFFFF])
@pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS.keys())
def test_any_number_in_any_header_is_survived(written, number: int, small: Path, tmp_path: Path) -> None:
    """Of the file's header, and of the headers of some tensors."""
    path = written(small, tmp_path)
    whole = path.read_bytes()
    names = [
        b"decoder.token_embedding.weight",
        b"decoder/embeddings/weight",
        b"decoder/embeddings/weight_scale",
        b"encoder.blocks.0.mlp.0.weight",
        b"PK\1\2",
    ]
    places = {*range(0, 64, 4)}
    for place in (whole.find(name) for name in names):
        places |= {*range(place - 24, place + 48, 4)} if place >= 0 else set()
    for place in sorted(places):
        path.write_bytes(whole[:place] + struct.pack("<I", number) + whole[place + 4 :])
        refused_or_loaded(to_load(path))


def test_a_ggml_file_of_another_model_is_named(tmp_path: Path) -> None:
    llama = struct.pack("<I7i", 0x67676D6C, 32000, 4096, 256, 32, 32, 128, 2)  # and its vocabulary
    (tmp_path / "llama.bin").write_bytes(llama + b"".join(struct.pack("<I", 3) + b"abc" for _ in range(32000)))
    assert "a ggml file, but not a Whisper model" in refused(tmp_path / "llama.bin")


def test_a_ctranslate2_model_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(struct.pack("<IH", 6, 16) + b"TransformerSpec\0" + bytes(64))
    assert "another kind (TransformerSpec)" in refused(tmp_path)


def test_a_transformers_model_of_another_kind_is_named(small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    assert 'model_type "bert"' in refused(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    assert "activation_function is relu, not gelu" in refused(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    bert = {f"bert.encoder.layer.{layer}.output.dense.weight": torch.zeros(8, 8) for layer in range(12)}
    save_file(bert, tmp_path / "model.safetensors")
    assert "do not fit a Whisper model" in refused(tmp_path)


@pytest.mark.parametrize("size", [-1, 0, 2**31, 2**60, 10**400, "1", None, [], 1.5])
@pytest.mark.parametrize("name", ["encoder_layers", "vocab_size", "d_model", "encoder_attention_heads"])
def test_impossible_sizes_in_a_configuration_are_refused(name: str, size, small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {name: size}))
    assert f"{name} must be a whole number from 1 to" in refused(tmp_path)


def test_more_layers_than_tensors_are_refused(small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder_layers": 1 << 20}))
    assert "config.json states 1048576 and 2 layers" in refused(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "[]", "{}x", '{"model": 7}', "", "\0", " " * (33 << 20)]
)
def test_broken_json_is_refused(file: str, text: str, small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path)
    (tmp_path / file).write_text(text)
    if (file, text) != ("generation_config.json", '{"model": 7}'):
        refused(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"suppress_tokens": [-1]}, {"suppress_tokens": [2**60]}, {"suppress_tokens": "all"}, {"suppress_tokens": [1.5]},
        {"begin_suppress_tokens": {"a": 1}}, {"alignment_heads": [[0]]}, {"alignment_heads": [["a", 0]]},
        {"alignment_heads": 3}, {"max_initial_timestamp_index": -3}, {"max_initial_timestamp_index": "1"},
        {"no_timestamps_token_id": [1]},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings: dict[str, Any], small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    assert "generation_config.json" in refused(tmp_path)


def test_alignment_heads_of_a_teacher_with_more_layers_are_not_used(small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"alignment_heads": [[1, 0], [7, 3]]}))
    assert loader.load(tmp_path).generation_config == loader.load(small).generation_config


@pytest.mark.parametrize(
    "files",
    [{}, {"a": "model.safetensors.index.json"}, {"a": "../model.safetensors"}, {"a": "/dev/zero"}, {"a": 3}, []],
)
def test_an_index_names_only_weights_of_its_folder(files, small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path).unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert "weight_map must give each tensor a file of this folder" in refused(tmp_path)


def safetensors(header: str | dict[str, Any], length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(64)


def entry(shape: list[int], first: int, last: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


@pytest.mark.parametrize(
    "content",
    [
        safetensors("{}", 2**60), safetensors("{}", 2**63 + 1), safetensors("{}", 99_000_000),
        safetensors('{"a":' * 100_000), safetensors({"a": 1}), safetensors("[]"),
        safetensors({"a": entry([4], 0, 16), "b": entry([4], 8, 24)}), safetensors({"a": entry([4], 64, 80)}),
        safetensors({"a": entry([4], 16, 0)}), safetensors({"a": entry([2**60], 0, 64)}),
        safetensors({"a": entry([2**32, 2**32], 0, 64)}), safetensors({"a": entry([-4, -4], 0, 64)}),
        safetensors({"a": entry([1] * 100_000, 0, 4)}), safetensors({"a": entry([0, 2**60], 0, 0)}),
        safetensors({"a": entry([64], 0, 64, "I8")}), safetensors({"a": entry([64], 0, 64, "F8_E4M3")}),
    ],
)  # fmt: skip
def test_impossible_safetensors_are_refused(content: bytes, small: Path, tmp_path: Path) -> None:
    as_hf(small, tmp_path).write_bytes(content)
    refused(tmp_path)


class Call:
    """Pickles to a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_runs_no_code_and_takes_no_memory(archive: bool, tmp_path: Path) -> None:
    path, ran = tmp_path / "own.pt", tmp_path / "ran"
    for call in (
        Call(Path.touch, ran), Call(eval, f"open({str(ran)!r}, 'w')"), Call(bytearray, 4_000_000_000),
        Call(torch.FloatTensor, 4_000_000_000), Call(torch.load, str(path)),
    ):  # fmt: skip
        torch.save({"dims": call, "model_state_dict": {}}, path, _use_new_zipfile_serialization=archive)
        assert "code in weights is not run" in refused(path)
    assert not ran.exists()


def test_pickled_weights_of_a_transformers_folder_run_no_code(small: Path, tmp_path: Path) -> None:
    path, ran = as_pickled_hf(small, tmp_path / "model"), tmp_path / "ran"
    torch.save({"model.encoder.conv1.weight": Call(Path.touch, ran)}, path)
    assert "code in weights is not run" in refused(path.parent)
    assert not ran.exists()


@pytest.mark.parametrize("stored", [{"model": {"layer.weight": torch.zeros(3)}}, [1, 2], 7, {"dims": {}}])
def test_a_pt_of_another_model_is_named(stored: Any, tmp_path: Path) -> None:
    torch.save(stored, tmp_path / "yolo.pt")
    assert "not OpenAI's Whisper format" in refused(tmp_path / "yolo.pt")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("own/data.pkl", "w", force_zip64=True) as bomb:
            for _ in range(256):
                bomb.write(bytes(1 << 20))
        archive.writestr("own/version", "3")
    assert path.stat().st_size < 4 << 20
    assert "compressed archive" in refused(path)


def test_tensors_that_are_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.pt"
    wide = torch.zeros(1).expand(1 << 20, 1 << 12)
    torch.save({"dims": {"n_audio_head": 2}, "model_state_dict": {"encoder.conv1.weight": wide}}, path)
    assert "is larger than its file" in refused(path)
    for other in (torch.zeros(4, 4).to_sparse(), torch.zeros(4, 4, dtype=torch.int64), 3, torch.zeros(0, 5)):
        torch.save({"dims": {"n_audio_head": 2}, "model_state_dict": {"encoder.conv1.weight": other}}, path)
        refused(path)


@pytest.mark.parametrize("count", [-1, 2**31, 2**40, 2**60])
def test_a_storage_of_impossible_size_is_refused(count: int, small: Path, tmp_path: Path) -> None:
    path = as_openai(small, tmp_path)
    changed = tmp_path / "changed.pt"

    class Storage:
        pass

    class Writer(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Storage) else None

    weight = Call(torch._utils._rebuild_tensor_v2, Storage(), 0, (count,), (1,), False, {})
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(changed, "w") as target:
        for item in source.infolist():
            if item.filename.endswith("data.pkl"):
                with target.open(item.filename, "w") as file:
                    stored = {"dims": {"n_audio_head": 2}, "model_state_dict": {"encoder.conv1.weight": weight}}
                    Writer(file, 2).dump(stored)
            else:
                target.writestr(item, source.read(item))
    refused(changed)


def test_values_are_those_of_the_safetensors_library(small: Path) -> None:
    expected = load_file(small / "model.safetensors")
    found = formats.tensors(locate(small))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
