"""torch's registration of a Python class as the type of an operator's argument, under the names of its release."""

from typing import Any

from torch._library import opaque_object

if hasattr(opaque_object, "register_custom_class"):
    from torch._custom_class_base import CustomClassBase  # type: ignore[import-not-found,unused-ignore]
    from torch._library.opaque_object import register_custom_class  # type: ignore[attr-defined,unused-ignore]

    SYMBOLIC = "symbolic"
else:  # torch 2.13, where later releases warn of the names
    from torch._library.opaque_object import register_opaque_type as register_custom_class
    from torch._opaque_base import OpaqueBase as CustomClassBase

    SYMBOLIC = "reference"

__all__ = ["CustomClassBase", "register"]


def register(cls: type[Any]) -> None:
    """Let operators take instances of a subclass of CustomClassBase; torch looks at none of their contents."""
    register_custom_class(cls, typ=SYMBOLIC)
