"""faster-whisper's words for where and how a model runs, in this project's terms."""

from collections.abc import Mapping
from typing import Any

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import DEFAULT_POLICY

_DEFAULT: tuple[str, tuple[str, ...]] = (DEFAULT_POLICY, ())
COMPUTE_TYPES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "default": _DEFAULT,
    "auto": _DEFAULT,
    "float32": ("torch", ()),
    "bfloat16": ("bf16", ()),
    "int16": ("cpu", ()),
    "int8": ("int8", ()),
    "int8_float32": ("int8", ()),
}
"""CTranslate2's names: the policy that computes so, and what goes on top of it. Its float16 is for other devices."""

_INSTEAD = {
    "device_index": "there is one host; leave it out",
    "num_workers": "transcribe_many(files, batch_size=…) does several files at once; leave it out",
    "files": "pass the path of a model",
    "revision": "pass the path of a model",
    "use_auth_token": "set HF_TOKEN",
}
_ASKS_NOTHING: Mapping[str, Any] = {"device_index": 0, "num_workers": 1}


def policy_of(device: str, compute_type: str) -> tuple[str, tuple[str, ...]]:
    """The policy that computes so, and overrides on top of it. Raises OptionError."""
    if device not in ("auto", "cpu"):
        raise OptionError(f'device {device!r}: this engine computes on the CPU, and with policy="npu" on an NPU')
    if compute_type not in COMPUTE_TYPES:
        raise OptionError(f"compute_type {compute_type!r} cannot run on a CPU; there are {', '.join(COMPUTE_TYPES)}")
    return COMPUTE_TYPES[compute_type]


def refuse(parameters: Mapping[str, Any]) -> None:
    """Raise OptionError for a parameter of faster-whisper's that asks for what is not done here, or for an unknown."""
    for name, value in parameters.items():
        if value is not None and value != _ASKS_NOTHING.get(name):
            raise OptionError(f"WhisperModel has no {name}: {_INSTEAD.get(name, 'leave it out')}")
