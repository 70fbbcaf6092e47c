"""Convert the same weights to every peer's format, once, and cache the result.

Each format is cached as `FOLDER/MODEL-HASH/FORMAT`, where HASH is that of the source weights. A conversion writes to a
temporary name and renames it at the end, so that an interrupted conversion is never mistaken for a finished one.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from peers.base import PeerError

from tilewhisper.models.checkpoint.locate import Source, locate
from tilewhisper.models.constants import FRAMES_PER_WINDOW, HOP_LENGTH, N_FFT, SAMPLE_RATE, WINDOW_SAMPLES

EXPORTER = "optimum-cli"
WORK = Path.home() / ".cache" / "tilewhisper" / "peers"
_NO_EXPORTER = (
    "OpenVINO's weights are converted once, by optimum-intel, which needs an older transformers than this project: "
    "python -m venv V && V/bin/pip install torch==2.13.* 'optimum-intel[nncf,openvino]==2.2.0' && V/bin/pip uninstall "
    "-y torchvision; then --exporter V/bin/optimum-cli"
)


@dataclass(frozen=True)
class Workshop:
    """The cache of converted weights, and the `optimum-cli` that converts to OpenVINO (None: search for it)."""

    folder: Path
    exporter: Path | None

    def weights(self, model: str, form: str) -> Path | str:
        """Return the weights of `model` in one of `FORMATS`, converted if needed. Raises PeerError and ModelsError."""
        make = FORMATS[form]
        if make is None:
            return model
        source = locate(model)
        finished = self.folder / f"{source.name.replace('/', '_')}-{_digest(source)}" / form
        if not finished.exists():
            finished.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=finished.parent, prefix=f"{form}.") as unfinished:
                made = Path(unfinished, "made")
                make(self, source, made)
                made.rename(finished)
        return finished


def _digest(source: Source) -> str:
    digest = hashlib.sha256()
    for file in source.files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def _ctranslate2(workshop: Workshop, source: Source, folder: Path) -> None:
    """Copy the files, joining `model.bin` where it is split."""
    if source.kind != "ctranslate2":
        raise PeerError(f"{source.name}: faster-whisper needs CTranslate2 weights, got {source.kind}")
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        shutil.copy(source.folder / name, folder)
    with (folder / "model.bin").open("wb") as joined:
        for file in source.files:
            joined.write(file.read_bytes())


def _ggml(workshop: Workshop, source: Source, path: Path) -> None:
    from peers import ggml

    from tilewhisper.models.checkpoint import loader

    ggml.write(loader.load(source.name), path)


def _openai(workshop: Workshop, source: Source, path: Path) -> None:
    from peers import openai_layout

    from tilewhisper.models.checkpoint import loader

    openai_layout.write(loader.load(source.name), path)


def _openvino(workshop: Workshop, source: Source, folder: Path) -> None:
    exporter = workshop.exporter or _found_exporter()
    with tempfile.TemporaryDirectory() as hf:
        _write_transformers(source, Path(hf))
        command = [str(exporter), "export", "openvino", "--model", hf, "--weight-format", "int8"]
        command += ["--task", "automatic-speech-recognition-with-past", str(folder)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        except OSError as error:
            raise PeerError(f"{exporter}: {error.strerror}. {_NO_EXPORTER}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise PeerError(f"{exporter}: exit status {done.returncode}: {lines[-1]}")


def _found_exporter() -> str:
    installed = Path(sys.executable).with_name(EXPORTER)
    found = str(installed) if installed.exists() else shutil.which(EXPORTER)
    if found is None:
        raise PeerError(_NO_EXPORTER)
    return found


def _write_transformers(source: Source, folder: Path) -> None:
    """Write a transformers folder with model, tokenizer and feature extractor, as the exporter expects."""
    from tilewhisper.engine.tuning.transformers_whisper import transformers_model
    from tilewhisper.models.checkpoint import loader

    model = transformers_model(loader.load(source.name))
    model.save_pretrained(folder)
    shutil.copy(source.folder / "tokenizer.json", folder)
    end = "<|endoftext|>"
    tokenizer = {"tokenizer_class": "WhisperTokenizer", "bos_token": end, "eos_token": end, "unk_token": end}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": model.config.num_mel_bins,
        "sampling_rate": SAMPLE_RATE,
        "hop_length": HOP_LENGTH,
        "n_fft": N_FFT,
        "chunk_length": WINDOW_SAMPLES // SAMPLE_RATE,
        "n_samples": WINDOW_SAMPLES,
        "nb_max_frames": FRAMES_PER_WINDOW,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))


FORMATS: dict[str, Callable[[Workshop, Source, Path], None] | None] = {
    "as it is": None,
    "ctranslate2": _ctranslate2,
    "ggml-q8_0": _ggml,
    "openai-float32": _openai,
    "openvino-int8": _openvino,
}
