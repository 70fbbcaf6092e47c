"""The peers by name: label, module, packages and weight format."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from peers.base import PeerError
from peers.weights import AS_IT_IS


@dataclass(frozen=True)
class Kind:
    """How to run a peer. `packages` are distributions; `weights` is a format of `peers.weights`."""

    label: str
    module: str
    packages: tuple[str, ...]
    weights: str
    options: Mapping[str, Any] = field(default_factory=dict)
    install: str = "'tilewhisper[peers]'"
    """What pip installs it with."""
    longest: float = math.inf
    """Seconds of the longest recording that it takes."""
    only_multilingual: bool = False
    """Whether it gives English-only models, too, a prompt with a language, after which they say nothing."""


OURS = Kind("tilewhisper", "peers.ours", ("tilewhisper", "torch"), AS_IT_IS)

_OPENVINO = ("openvino-genai", "openvino")
_CTRANSLATE2, _WEIGHTS = ("faster-whisper", "ctranslate2"), "CTranslate2 float16"
_OPENVINO_MODULE, _FASTER_WHISPER_MODULE = "peers.openvino_genai", "peers.faster_whisper"
_WHISPER_CPP, _WHISPER_CPP_MODULE = ("pywhispercpp",), "peers.whisper_cpp"

PEERS: Mapping[str, Kind] = {
    "openvino-genai": Kind("OpenVINO GenAI int8", _OPENVINO_MODULE, _OPENVINO, "OpenVINO int8"),
    "openvino-genai-f32": Kind(
        "OpenVINO GenAI int8, float32 activations",
        _OPENVINO_MODULE,
        _OPENVINO,
        "OpenVINO int8",
        {"INFERENCE_PRECISION_HINT": "f32"},
    ),
    "faster-whisper": Kind("faster-whisper int8", _FASTER_WHISPER_MODULE, _CTRANSLATE2, _WEIGHTS),
    "faster-whisper-f32": Kind(
        "faster-whisper float32", _FASTER_WHISPER_MODULE, _CTRANSLATE2, _WEIGHTS, {"compute_type": "float32"}
    ),
    "faster-whisper-batched": Kind(
        "faster-whisper int8, batches of 8",
        _FASTER_WHISPER_MODULE,
        _CTRANSLATE2,
        _WEIGHTS,
        {"batch_size": 8},
    ),
    "whisper.cpp": Kind("whisper.cpp q8_0", _WHISPER_CPP_MODULE, _WHISPER_CPP, "ggml q8_0"),
    "whisper.cpp-q5_1": Kind("whisper.cpp q5_1", _WHISPER_CPP_MODULE, _WHISPER_CPP, "ggml q5_1"),
    "whisper.cpp-f16": Kind("whisper.cpp f16", _WHISPER_CPP_MODULE, _WHISPER_CPP, "ggml f16"),
    "openai-whisper": Kind(
        "openai-whisper float32",
        "peers.openai_whisper",
        ("openai-whisper", "torch"),
        "openai float32",
        install="openai-whisper==20250625",
    ),
    "onnx-asr": Kind(
        "onnx-asr float32, no K/V cache",
        "peers.onnx_asr",
        ("onnx-asr", "onnxruntime"),
        "ONNX float32",
        install="onnx-asr onnxruntime",
        longest=30.0,
        only_multilingual=True,
    ),
    "transformers": Kind("transformers float32", "peers.transformers_generate", ("transformers", "torch"), AS_IT_IS),
}


def missing(kind: Kind) -> str | None:
    """The first of a peer's packages that is not installed."""
    for package in kind.packages:
        try:
            version(package)
        except PackageNotFoundError:
            return package
    return None


def versions(kind: Kind) -> dict[str, str]:
    """Return the versions of a peer's packages. Raises PeerError where one is not installed."""
    if package := missing(kind):
        raise PeerError(f"{kind.label}: {package} is not installed: pip install {kind.install}, or choose with --peer")
    return {package: version(package) for package in kind.packages}
