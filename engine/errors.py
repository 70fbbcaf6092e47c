"""The exceptions that a user's input can raise. A message says what was wrong, what is allowed, and what to do.

USER_ERRORS
├── EngineError
│   ├── PolicyError      a policy, rule or --backend that is invalid or cannot be met
│   ├── RoutingError     a routed product failed, and the policy has no fallback for it
│   ├── OptionError      an option that is out of range or does not fit another
│   ├── ModelClosed      a use of a closed model
│   └── ForkError        a use, in a forked process, of what stayed with its parent
├── models.ModelsError   audio, weights, languages
└── kernels.KernelError  backends and devices
"""

from typing import Self

from tilewhisper.kernels.base import KernelError
from tilewhisper.models.errors import ModelsError


class EngineError(Exception):
    """Base class of the errors of `engine`."""


class PolicyError(EngineError):
    """A policy, rule or --backend that is invalid or cannot be met."""


class RoutingError(EngineError):
    """A routed product failed, and the policy has no fallback for it."""


class OptionError(EngineError):
    """An option that is out of range or does not fit another."""


class ModelClosed(EngineError):  # noqa: N818 (reads as the fact it states)
    """A use of a model after `close`."""

    def __init__(self) -> None:
        super().__init__("this model is closed; load it again")


class ForkError(EngineError):
    """A use, in a forked process, of what stayed with its parent."""

    @classmethod
    def of_transcription(cls) -> Self:
        return cls("this transcription began before the process was forked; start it again in this process")

    @classmethod
    def of_device(cls) -> Self:
        return cls(
            "this model was loaded before the process was forked, and its NPU stayed with the parent process; load the "
            "model in this process, or start it with multiprocessing's method 'spawn' or 'forkserver'"
        )


USER_ERRORS = (EngineError, ModelsError, KernelError)
