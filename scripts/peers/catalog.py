"""The peers by name: label, module, packages and weight format."""

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


OURS = Kind("tilewhisper", "peers.ours", ("tilewhisper", "torch"), AS_IT_IS)

_OPENVINO = ("openvino-genai", "openvino")
_CTRANSLATE2, _WEIGHTS = ("faster-whisper", "ctranslate2"), "CTranslate2 float16"
_OPENVINO_MODULE, _FASTER_WHISPER_MODULE = "peers.openvino_genai", "peers.faster_whisper"

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
    "faster-whisper-batched": Kind(
        "faster-whisper int8, batches of 8",
        _FASTER_WHISPER_MODULE,
        _CTRANSLATE2,
        _WEIGHTS,
        {"batch_size": 8},
    ),
    "whisper.cpp": Kind("whisper.cpp q8_0", "peers.whisper_cpp", ("pywhispercpp",), "ggml q8_0"),
    "transformers": Kind("transformers float32", "peers.transformers_generate", ("transformers", "torch"), AS_IT_IS),
}


def versions(kind: Kind) -> dict[str, str]:
    """Return the versions of a peer's packages. Raises PeerError where one is not installed."""
    try:
        return {package: version(package) for package in kind.packages}
    except PackageNotFoundError as error:
        raise PeerError(
            f"{kind.label}: {error.name} is not installed: pip install 'tilewhisper[peers]', or choose with --peer"
        ) from error
