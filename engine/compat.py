"""faster-whisper's names for where and how a model runs, translated to policies."""

from collections.abc import Mapping
from typing import Any

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import DEFAULT_POLICY

DEVICES = ("cpu", "auto")
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
"""CTranslate2's compute types: the policy that computes in each, and overrides on top of it. float16 is left out: it is
for GPUs."""

_ADVICE = {
    "device_index": "there is only one CPU; leave it out",
    "num_workers": "use transcribe_many(files, batch_size=…) for several files at once; leave it out",
    "files": "pass the path of a model",
    "revision": "pass the path of a model",
    "use_auth_token": "set HF_TOKEN",
}
_WITHOUT_EFFECT: Mapping[str, Any] = {"device_index": 0, "num_workers": 1}


def policy_of(device: str, compute_type: str) -> tuple[str, tuple[str, ...]]:
    """The policy of a compute type, and overrides on top of it. Raises OptionError."""
    if device not in DEVICES:
        raise OptionError(
            f"device must be {' or '.join(DEVICES)}, got {device!r}: this engine computes on the CPU, and with "
            'policy="npu" on an NPU'
        )
    if compute_type not in COMPUTE_TYPES:
        raise OptionError(f"compute_type must be one of {', '.join(COMPUTE_TYPES)}, got {compute_type!r}")
    return COMPUTE_TYPES[compute_type]


def refuse(parameters: Mapping[str, Any]) -> None:
    """Raise OptionError for an unknown parameter, or one of faster-whisper's whose value has no equivalent here."""
    for name, value in parameters.items():
        if value is not None and value != _WITHOUT_EFFECT.get(name):
            raise OptionError(f"WhisperModel has no {name}: {_ADVICE.get(name, 'leave it out')}")
