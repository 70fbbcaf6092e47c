"""What all classes of the emulated bindings share: their module and machine, and how they take their arguments."""

import operator
from typing import Any, ClassVar

from tilewhisper.kernels.xdna.emulated.machine import Machine


def no_overload(what: str) -> TypeError:
    return TypeError(f"{what}(): incompatible function arguments.")


def check(value: Any, kind: type | tuple[type, ...], what: str) -> None:
    if not isinstance(value, kind):
        raise no_overload(what)


def integer(value: Any, what: str, *, bits: int = 64) -> int:
    """As the bindings take an unsigned integer: anything that is one, and fits. Raises TypeError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise no_overload(what) from None
    if not 0 <= number < 1 << bits:
        raise no_overload(what)
    return number


class Bound:
    """A class of one module: `make` derives from each with its module and machine."""

    module: ClassVar[Any]
    machine: ClassVar[Machine]
    public_name: ClassVar[str]
