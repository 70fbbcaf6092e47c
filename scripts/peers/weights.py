"""The same weights in every peer's format, converted once and cached as `FOLDER/MODEL-HASH/FORMAT`.

HASH is that of the source weights. A conversion gets its name when it is complete.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peers.base import PeerError

from tilewhisper.models.checkpoint import export
from tilewhisper.models.checkpoint.locate import Source, locate

AS_IT_IS = "as it is"
OPENVINO = "OpenVINO int8"
FORMATS: Mapping[str, tuple[str, str]] = {
    "CTranslate2 float16": ("ctranslate2", "float16"),
    "ggml q8_0": ("ggml", "q8_0"),
    "openai float32": ("openai", "float32"),
}
"""The formats, and how `export` names them, besides AS_IT_IS and OPENVINO."""

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
        """The weights of `model` in one of `FORMATS`, converted if needed: a file, a folder, or the model's own name.

        Raises PeerError and ModelsError.
        """
        if form == AS_IT_IS:
            return model
        source = locate(model)
        folder = self.folder / f"{source.name.replace('/', '_')}-{_digest(source)}" / form.replace(" ", "-")
        if not folder.exists():
            if form == OPENVINO:
                self._export_openvino(source, folder)
            else:
                _convert(source, folder, *FORMATS[form])
        files = list(folder.iterdir())
        return files[0] if len(files) == 1 else folder

    def _export_openvino(self, source: Source, folder: Path) -> None:
        exporter = self.exporter or _found_exporter()
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unfinished.") as unfinished:
            original, made = Path(unfinished, "transformers"), Path(unfinished, "openvino")
            _convert(source, original, "transformers", "float32")
            command = [str(exporter), "export", "openvino", "--model", str(original), "--weight-format", "int8"]
            command += ["--task", "automatic-speech-recognition-with-past", str(made)]
            environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
            try:
                done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
            except OSError as error:
                raise PeerError(f"{exporter}: {error.strerror}. {_NO_EXPORTER}") from error
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
                raise PeerError(f"{exporter}: exit status {done.returncode}: {lines[-1]}")
            made.rename(folder)


def _convert(source: Source, folder: Path, kind: str, precision: str) -> None:
    from tilewhisper.models.checkpoint import loader  # imports torch

    export.write(loader.read(source), kind, folder, precision)


def _digest(source: Source) -> str:
    digest = hashlib.sha256()
    for file in source.files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]


def _found_exporter() -> str:
    installed = Path(sys.executable).with_name(EXPORTER)
    found = str(installed) if installed.exists() else shutil.which(EXPORTER)
    if found is None:
        raise PeerError(_NO_EXPORTER)
    return found
