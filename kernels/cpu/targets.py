"""The systems that have wheels, in the words of Python and of zig, the cross compiler."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A system and architecture, with the oldest version of the system that the library runs on."""

    system: str
    """As `sys.platform`."""
    machine: str
    """As `platform.machine()`."""
    zig: str
    """The target in zig's words, with the version of the system or of its C library."""
    processor: str
    """The processor in zig's words, of which every machine of this architecture has all instructions."""
    wheel: str
    """The platform tag of its wheel."""

    def zig_flags(self, flags: Iterable[str]) -> tuple[str, ...]:
        """Flags of gcc and clang in zig's words, where they differ.

        zig names features of a processor after it, and has no names for ARM's versions: armv8.2-a+dotprod.
        """
        translated = (re.sub(r"^-march=armv[\d.]+-a", f"-mcpu={self.processor}", flag) for flag in flags)
        return tuple(flag for flag in translated if not (self.system == "win32" and flag == "-fPIC"))


TARGETS = (
    Target("linux", "x86_64", "x86_64-linux-gnu.2.28", "x86_64", "manylinux_2_28_x86_64"),
    Target("linux", "aarch64", "aarch64-linux-gnu.2.28", "generic", "manylinux_2_28_aarch64"),
    Target("darwin", "arm64", "aarch64-macos.11.0", "apple_m1", "macosx_11_0_arm64"),
    Target("win32", "AMD64", "x86_64-windows-gnu", "x86_64", "win_amd64"),
)
SUFFIXES = {"darwin": ".dylib", "win32": ".dll"}
"""Of shared libraries, by `sys.platform`; ".so" elsewhere."""


def this_target() -> Target | None:
    """The target of this machine, or None where there is no wheel for it."""
    here = (sys.platform, platform.machine())
    return next((target for target in TARGETS if (target.system, target.machine) == here), None)
