"""The same weights in every peer's format, converted once and cached as `FOLDER/MODEL-HASH/FORMAT`.

HASH is that of the source weights. A conversion gets its name when it is complete. A folder of that name which another
exporter made is used as it is: OpenVINO's decoder of base as optimum-intel 2.2.0 exports it, in asymmetric int8, took
4.7 ms a token where ours took 5.6.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tilewhisper.models.checkpoint import export
from tilewhisper.models.checkpoint.locate import Source, locate

WORK = Path.home() / ".cache" / "tilewhisper" / "peers"
AS_IT_IS = "as it is"
FORMATS: Mapping[str, tuple[str, str]] = {
    "CTranslate2 float16": ("ctranslate2", "float16"),
    "ggml f16": ("ggml", "f16"),
    "ggml q8_0": ("ggml", "q8_0"),
    "ggml q5_1": ("ggml", "q5_1"),
    "ONNX float32": ("onnx", "float32"),
    "openai float32": ("openai", "float32"),
    "OpenVINO int8": ("openvino", "int8"),
}
"""The formats, and how `export` names them, besides AS_IT_IS."""


@dataclass(frozen=True)
class Workshop:
    """The cache of converted weights."""

    folder: Path

    def weights(self, model: str, form: str) -> Path | str:
        """The weights of `model` in one of `FORMATS`, converted if needed: a file, a folder, or the model's own name.

        Raises ModelsError.
        """
        if form == AS_IT_IS:
            return model
        source = locate(model)
        folder = self.folder / f"{source.name.replace('/', '_')}-{_digest(source)}" / form.replace(" ", "-")
        if not folder.exists():
            from tilewhisper.models.checkpoint import loader  # imports torch

            kind, precision = FORMATS[form]
            export.write(loader.read(source), kind, folder, precision)
        files = list(folder.iterdir())
        return files[0] if len(files) == 1 else folder


def _digest(source: Source) -> str:
    digest = hashlib.sha256()
    for file in source.files:
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:12]
