"""Everything that can be wrong with what a user asked for, in one place. Each text says what, and what to do.

USER_ERRORS
├── EngineError
│   ├── PolicyError      a policy, rule or --backend that cannot be honoured
│   ├── RoutingError     a routed product failed and no fallback was stated
│   ├── OptionError      an option out of its range
│   └── ModelClosed      a model was used after `close`
├── models.ModelsError   audio, weights, languages
└── kernels.KernelError  backends and devices
"""

from tilewhisper.kernels.base import KernelError
from tilewhisper.models.errors import ModelsError


class EngineError(Exception):
    """Root of this room's errors."""


class PolicyError(EngineError):
    """A policy, rule or --backend that cannot be honoured."""


class RoutingError(EngineError):
    """A routed product failed and no fallback was stated."""


class OptionError(EngineError):
    """An option out of its range."""


class ModelClosed(EngineError):  # noqa: N818 (reads as the fact it states, like FileNotFoundError)
    """A model was used after `close`."""

    def __init__(self) -> None:
        super().__init__("this model is closed; load it again")


USER_ERRORS = (EngineError, ModelsError, KernelError)
