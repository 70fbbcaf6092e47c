"""The base of all classes of the emulated bindings: their module and machine, and checks of their arguments.

A class shows the attributes of the real binding and no others, so attributes that these files share are private.
"""

import operator
from typing import Any, ClassVar

from tilewhisper.kernels.xdna.emulated.machine import Machine


def no_overload(function: str) -> TypeError:
    return TypeError(f"{function}(): incompatible function arguments.")


def check(value: Any, kind: type | tuple[type, ...], function: str) -> None:
    """Raises TypeError like the bindings if an argument has a wrong type."""
    if not isinstance(value, kind):
        raise no_overload(function)


def integer(value: Any, function: str, *, bits: int = 64) -> int:
    """An unsigned integer argument as the bindings convert it. Raises TypeError if it is none or does not fit."""
    try:
        number = operator.index(value)
    except TypeError:
        raise no_overload(function) from None
    if not 0 <= number < 1 << bits:
        raise no_overload(function)
    return number


class Bound:
    """A class of a module: `make` derives a subclass for its own module and machine."""

    module: ClassVar[Any]
    machine: ClassVar[Machine]
    public_name: ClassVar[str]
