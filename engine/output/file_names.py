"""Names of output files: what each system allows, and how much of an input's path they keep.

Names come from inputs, which may be named by another system: a URL's last part, or a file on a network drive.
"""

import os
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NameRules:
    """What a system does not allow in a file's name, and which names it takes for the same."""

    forbidden: str = ""
    """Characters that no name may have."""
    ignored_at_the_end: str = ""
    """Characters that the system drops from the end of a name."""
    devices: frozenset[str] = frozenset()
    """Names of devices, in capitals; with any extension too they are no files."""
    folded: Callable[[str], str] = str
    """Text that is equal for names of the same file."""

    def allowed(self, name: str) -> str:
        """The name itself where it is allowed, else with "_" in place of what is not, and after a device's name."""
        name = name.translate(dict.fromkeys(map(ord, self.forbidden), "_"))
        stripped = name.rstrip(self.ignored_at_the_end)
        start, dot, rest = stripped.ljust(len(name), "_").partition(".")
        return f"{start}{'_' * (start.rstrip().upper() in self.devices)}{dot}{rest}"

    def key(self, path: Path) -> str:
        """Equal for paths of the same file."""
        return self.folded(str(path))


_PORTS = frozenset(f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³")
RULES: Mapping[str, NameRules] = {
    "win32": NameRules(
        forbidden="".join(map(chr, range(32))) + '<>:"/\\|?*',
        ignored_at_the_end=". ",
        devices=_PORTS | {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"},
        folded=str.casefold,
    ),
    "darwin": NameRules(folded=lambda path: unicodedata.normalize("NFD", path).casefold()),
}
"""By `sys.platform`; other systems allow every name that one of their own files or a URL's part can have."""
THIS_SYSTEM = RULES.get(sys.platform, NameRules())


def common_folder(folders: Sequence[str]) -> str:
    """The innermost folder that holds all of these absolute ones, or "" where Windows has them on several drives."""
    try:
        return os.path.commonpath(folders)
    except ValueError:
        return ""


def below(path: str, root: str) -> str:
    """An absolute path as seen from a folder that holds it; from "", the drive is its first folder."""
    drive, rest = os.path.splitdrive(path)
    return os.path.relpath(path, root) if root else drive.strip("\\/:") + rest
