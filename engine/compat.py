"""faster-whisper's parameters and attributes of a model: what each stands for here."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import validate
from tilewhisper.engine.routing.policy import DEFAULT_POLICY, Policy
from tilewhisper.kernels.base import Settings
from tilewhisper.kernels.registry import DEFAULTS
from tilewhisper.models.checkpoint.locate import HubUse, Source
from tilewhisper.models.option_fields import Range, option, shown

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
"""CTranslate2's compute types: the policy that computes in each, and overrides on top of it."""
NEAREST = {"float16": "float32", "int8_float16": "int8_float32", "int8_bfloat16": "int8_float32"}
"""Compute types of GPUs, and what CTranslate2 computes in where the processor lacks the 16-bit type."""

_MAX_THREADS = 1024
"""OpenMP ends the process when the system gives it no more threads."""

_PARAMETERS = {
    "device_index": "there is only one CPU; leave it out",
    "num_workers": "use transcribe_many(files, batch_size=…) for several files at once; leave it out",
    "files": "pass the path of a model",
    "revision": "pass the path of a model",
    "use_auth_token": "set HF_TOKEN",
}
_WITHOUT_EFFECT: Mapping[str, int] = {"device_index": 0, "num_workers": 1}

_ATTRIBUTES = {
    "model": "use its own is_multilingual, n_mels, encode and detect_language; the loaded modules are checkpoint.model",
    "hf_tokenizer": "checkpoint.tokenizer encodes and decodes text",
    "feature_extractor": "log_mel(samples) computes the features of 16 kHz samples",
    "feat_kwargs": "n_mels is the number of mel bands; everything else is the same for all Whisper models",
    "max_length": "the text context is runtime.text_context tokens",
    "frames_per_second": "tilewhisper.models.constants has FRAMES_PER_SECOND",
    "tokens_per_second": "tilewhisper.models.constants has TIMESTAMPS_PER_SECOND",
    "time_precision": "tilewhisper.models.constants has TIMESTAMPS_PER_SECOND, the inverse",
    "input_stride": "tilewhisper.models.constants has FRAMES_PER_POSITION",
    "num_samples_per_token": "tilewhisper.models.constants has SAMPLE_RATE and TIMESTAMPS_PER_SECOND",
    "logger": 'use logging.getLogger("tilewhisper")',
    "generate_segments": "use transcribe",
    "generate_with_fallback": "use transcribe with its option temperature",
    "get_prompt": "checkpoint.tokenizer.prompt has its start; use transcribe with initial_prompt or hotwords",
    "add_word_timestamps": "use transcribe with word_timestamps=True",
    "find_alignment": "use transcribe with word_timestamps=True",
    "forward": "use transcribe",
    "generate_segment_batched": "use transcribe",
    "last_speech_timestamp": "each transcription keeps its own",
}
"""faster-whisper's attributes of its models and pipelines that have no equivalent of the same name."""

_log = logging.getLogger(__name__)


def _one_of(known: Mapping[str, Any] | tuple[str, ...], remark: str = "") -> Any:
    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"one of {', '.join(known)}{remark}")
        return value

    return check


def _path(value: Any) -> str | Path:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError("the path of a folder")
    return value if isinstance(value, str) else Path(value)


def _model(value: Any) -> str | Path | Source:
    if not isinstance(value, str | os.PathLike | Source):
        raise ValueError("a model's name or path")
    return Path(value) if isinstance(value, os.PathLike) else value


@dataclass(frozen=True)
class LoadOptions:
    """faster-whisper's parameters of a model that have a meaning here. Raises OptionError for values out of range."""

    model_size_or_path: str | Path | Source | None = option(  # noqa: RUF009 (makes a dataclass field)
        None, "an official size, a hub name or a path; by default an installed model", check=_model
    )
    device: str = option(
        "auto",
        "where the model runs",
        check=_one_of(DEVICES, '; this engine computes on the CPU, and with policy="npu" on an NPU'),
    )
    compute_type: str = option("default", "CTranslate2's name of a policy", check=_one_of({**COMPUTE_TYPES, **NEAREST}))
    cpu_threads: int = option(0, "torch's number of threads in this process; 0 leaves it", Range(0, _MAX_THREADS))
    download_root: str | Path | None = option(None, "the folder of downloads; by default the hub's", check=_path)  # noqa: RUF009
    local_files_only: bool = option(False, "never download from the hub")

    def __post_init__(self) -> None:
        validate(self)

    @property
    def hub_use(self) -> HubUse:
        return HubUse(self.download_root, self.local_files_only)


def policy_of(compute_type: str) -> tuple[str, tuple[str, ...]]:
    """The policy of a compute type, and overrides on top of it. Logs a warning where it is the nearest one only."""
    nearest = NEAREST.get(compute_type)
    if nearest:
        _log.warning("compute_type %s is for GPUs; on this CPU, %s is used instead", compute_type, nearest)
    return COMPUTE_TYPES[nearest or compute_type]


def _policy(value: Any) -> str | Path | Policy:
    if not isinstance(value, str | os.PathLike | Policy):
        raise ValueError("a preset's name, a TOML file or a Policy")
    return value if isinstance(value, str | Policy) else Path(value)


def _overrides(value: Any) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise ValueError("a sequence of SITES=BACKEND, such as ['layers.3.*=bf16']")
    return tuple(value)


def _settings(value: Any) -> Settings:
    if not isinstance(value, Settings):
        raise ValueError("kernels.base.Settings")
    return value


@dataclass(frozen=True)
class Routing:
    """Where the products of a model run. Raises OptionError for values of another type."""

    policy: str | Path | Policy = option(DEFAULT_POLICY, "which backend runs which product", check=_policy)  # noqa: RUF009
    backends: Sequence[str] = option((), "overrides on top of the policy", check=_overrides)
    settings: Settings = option(DEFAULTS, "which NPU is used", check=_settings)  # noqa: RUF009

    def __post_init__(self) -> None:
        validate(self)


def refuse(parameters: Mapping[str, Any]) -> None:
    """Raise OptionError for an unknown parameter, or one of faster-whisper's whose value has no equivalent here."""
    for name, value in parameters.items():
        without_effect = isinstance(value, int) and value == _WITHOUT_EFFECT.get(name)
        if value is not None and not without_effect:
            advice = _PARAMETERS.get(name, "leave it out")
            raise OptionError(f"WhisperModel has no {name} (got {shown(value)}): {advice}")


def missing_attribute(owner: object, name: str) -> AttributeError:
    """The error for an attribute that `owner` does not have; for one of faster-whisper's, it names the equivalent."""
    advice = f": {_ATTRIBUTES[name]}" if name in _ATTRIBUTES else ""
    return AttributeError(f"{type(owner).__name__!r} object has no attribute {name!r}{advice}", name=name, obj=owner)
