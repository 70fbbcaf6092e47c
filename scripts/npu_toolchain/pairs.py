"""Versions of mlir_aie, llvm-aie (Peano), Python and XRT that are published as working together.

Neither wheel is on PyPI. mlir_aie's releases and nightly builds, and the nightly builds of llvm-aie, are on pages of
GitHub. A nightly build leaves its page after a while; each mlir-aie names its partner in utils/peano-requirements.txt.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

_ASSETS = "https://github.com/Xilinx/{}/releases/expanded_assets/{}"

XRT = "2.21.75"
"""Of Debian 13's backports and of the Windows SDK; its `pyxrt` is for Python 3.13 on both."""


@dataclass(frozen=True)
class Pair:
    mlir_aie: str
    llvm_aie: str
    python: tuple[str, ...]
    source: str
    xrt: str = XRT

    @property
    def install(self) -> str:
        """The command that installs both wheels."""
        nightly = ".dev" in self.mlir_aie
        page = _ASSETS.format("mlir-aie", "latest-wheels-4" if nightly else f"v{self.mlir_aie}")
        return (
            f"pip install mlir_aie=={self.mlir_aie} llvm-aie=={self.llvm_aie} "
            f"-f {page} -f {_ASSETS.format('llvm-aie', 'nightly')}"
        )


_UP_TO_3_13 = ("3.11", "3.12", "3.13")
"""Wheels for 3.10 ended in May 2026; that of 3.13 was seen, 3.11 and 3.12 are inferred."""
_UP_TO_3_14 = (*_UP_TO_3_13, "3.14")

PAIRS = (
    Pair("1.3.4", "21.0.0.2026062301+cb664e8c", _UP_TO_3_13, "atassis/xdna-engine, toolchain.lock"),
    Pair("1.3.4", "21.0.0.2026080301", _UP_TO_3_13, "vegah/Npu-Embeddings, docs/02-toolchain (Windows)"),
    Pair("1.4.0", "21.0.0.2026062301+cb664e8c", _UP_TO_3_13, "pins of a public project"),
    Pair("1.4.1.dev46+g687ff97", "21.0.0.2026080601+f4a72c27", _UP_TO_3_13, "Xilinx/mlir-air, pull request #1778"),
    Pair("1.4.2", "21.0.0.2026080301+c9c5ecb7", _UP_TO_3_13, "ironvenv-requirements of a public project"),
    Pair("1.4.2", "22.0.0.2026090201+a36c62b9", _UP_TO_3_13, "Triton-XDNA; a public set-up for Windows"),
    Pair("1.4.4.dev3+gf50bef7", "22.0.0.2026090701+3e93bf7b", _UP_TO_3_14, "peano-requirements.txt @152e006e"),
    Pair("1.4.4.dev18", "22.0.0.2026091701", _UP_TO_3_14, "README of a public project"),
)  # fmt: skip


def recommended(python: str = f"{sys.version_info.major}.{sys.version_info.minor}") -> Pair:
    """The first pair with wheels for this Python; the first of all if there is none."""
    return next((pair for pair in PAIRS if python in pair.python), PAIRS[0])


def why_unmatched(installed: Mapping[str, str]) -> str | None:
    """Why `installed` (version of each wheel) is no known pair, and the command that installs one; None if it is."""
    mlir_aie, llvm_aie = installed["mlir_aie"], installed["llvm-aie"]
    partners = [pair for pair in PAIRS if _same(pair.mlir_aie, mlir_aie)]
    if any(_same(pair.llvm_aie, llvm_aie) for pair in partners):
        return None
    title = f"mlir_aie {mlir_aie} with llvm-aie {llvm_aie} is not a pair known to work"
    if partners:
        return f"{title}; its partner is {' or '.join(p.llvm_aie for p in partners)}: {partners[0].install}"
    return f"{title}; one that is: {recommended().install}"


def _same(known: str, installed: str) -> bool:
    """Compare two versions; a missing local part (after +) fits any."""
    (public, _, local), (other, _, other_local) = known.partition("+"), installed.partition("+")
    return public == other and (not local or not other_local or local == other_local)
