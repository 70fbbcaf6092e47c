"""Find the programs that compile a design: mlir-aie's driver and its generation, Peano, xclbinutil and bootgen.

Each is looked for under its own name and with `.exe`. Programs of the wheels are found beside the driver, so the wheels
may be in another environment than this script's.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from npu_toolchain.generations import (
    GENERATIONS,
    Generation,
    date_in,
    generation_built_on,
    generation_named,
    generation_of,
    version_in,
)
from npu_toolchain.pairs import recommended
from npu_toolchain.running import ToolError

API = Path("include/aie_api")
"""The headers that the micro-kernels are compiled with, in the mlir_aie wheel."""
_SUFFIXES = ("", ".exe")
_XRT_FOLDERS = ("/opt/xilinx/xrt", r"C:\Xilinx\XRT")
_ANSWER_SECONDS = 60


@dataclass(frozen=True)
class Tools:
    """A complete toolchain."""

    driver: tuple[str, ...]
    """aiecc, or aiecc.py with its Python."""
    generation: Generation
    mlir_aie: Path
    peano: Path
    clang: Path
    environment: Mapping[str, str]
    """In which the driver finds its helpers."""
    versions: Mapping[str, str]


def find_tools(peano: Path | None, generation: str | None) -> Tools:
    """Find all programs. Raises ToolError with the first that is missing and the remedy.

    `peano` and `generation` (its name) are the user's choice; None: find out.
    """
    aiecc = _driver()
    wheel = _mlir_aie(aiecc)
    mlir_aie = _version("mlir_aie", wheel.parent)
    found = _generation(aiecc, mlir_aie, generation)
    clang = _clang(peano, wheel)
    helpers = (_xclbinutil(wheel), _bootgen(wheel, aiecc))
    folders = dict.fromkeys(str(program.parent) for program in (aiecc, wheel / "bin" / "aiecc", *helpers))
    environment = {
        **os.environ,
        "PATH": os.pathsep.join((*folders, os.environ.get("PATH", ""))),
        "AIE_XCLBINUTIL": str(helpers[0]),
        "PEANO_INSTALL_DIR": str(clang.parents[1]),
        "MLIR_AIE_INSTALL_DIR": str(wheel),
    }
    versions = {
        "mlir_aie": mlir_aie,
        "llvm-aie": _version("llvm-aie", clang.parents[2]),
        "tilewhisper": importlib.metadata.version("tilewhisper"),
    }
    return Tools(_command(aiecc), found, wheel, clang.parents[1], clang, environment, versions)


def _driver() -> Path:
    found = _on_path("aiecc") or _on_path("aiecc.py")
    if not found:
        raise ToolError(f"neither aiecc nor aiecc.py is on PATH; {_install()}")
    return found


def _command(aiecc: Path) -> tuple[str, ...]:
    """aiecc.py is run with the Python beside it, whose packages it imports."""
    if aiecc.suffix != ".py":
        return (str(aiecc),)
    return (str(_in(aiecc.parent, "python") or sys.executable), str(aiecc))


def _mlir_aie(aiecc: Path) -> Path:
    """The wheel's folder, which holds the driver or is in the environment that holds it."""
    environment = aiecc.parents[1]
    candidates = (
        *_folder_in_environment("MLIR_AIE_INSTALL_DIR"),
        aiecc.resolve().parents[1],
        *(packages / "mlir_aie" for packages in environment.glob("lib/python3.*/site-packages")),
        environment / "Lib" / "site-packages" / "mlir_aie",
        Path(sysconfig.get_path("purelib")) / "mlir_aie",
    )
    for folder in candidates:
        if (folder / API).is_dir():
            return folder
    raise ToolError(
        f"there is no {API.as_posix()} of the mlir_aie wheel near {aiecc}; "
        f"set MLIR_AIE_INSTALL_DIR to the wheel's folder, or {_install()}"
    )


def _generation(aiecc: Path, version: str, chosen: str | None) -> Generation:
    """By the user's choice, the wheel's version, the wrapper aiecc.py (1.3's), or the driver's date."""
    if chosen:
        return generation_named(chosen)
    title = f"mlir_aie {version}"
    if number := version_in(version):
        found = generation_of(number)
    elif (aiecc.parent / "aiecc.py").exists():
        found = GENERATIONS[0]
    else:
        answer = _answer(aiecc)
        title = f"{aiecc}, which says {' '.join(answer.split())[:120]!r} about its version,"
        day, number = date_in(answer), version_in(answer)
        found = generation_built_on(day) if day else generation_of(number) if number else None
    if not found:
        names = ", ".join(g.name for g in GENERATIONS)
        raise ToolError(
            f"{title} is of no known generation; if it has the flags of one of {names}, give it with --generation, "
            f"or {_install()}"
        )
    return found


def _answer(aiecc: Path) -> str:
    try:
        done = subprocess.run(
            [*_command(aiecc), "--aie-version"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_ANSWER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as broken:
        raise ToolError(f"{aiecc} cannot be run ({broken}); {_install()}") from broken
    return done.stdout or done.stderr


def _clang(chosen: Path | None, wheel: Path) -> Path:
    candidates = (
        (chosen,)
        if chosen
        else (
            *_folder_in_environment("PEANO_INSTALL_DIR"),
            wheel.parent / "llvm-aie",
            Path(sysconfig.get_path("purelib")) / "llvm-aie",
        )
    )
    for folder in candidates:
        if found := _in(folder / "bin", "clang++"):
            return found.resolve()
    raise ToolError(
        f"there is no Peano compiler (bin/clang++) in {candidates[0]}; "
        f"give the folder of the llvm-aie wheel with --peano, or {_install()}"
    )


def _xclbinutil(wheel: Path) -> Path:
    """In the driver's own order, then where XRT is usually installed, then bundled with the wheel (from 1.4)."""
    if chosen := os.environ.get("AIE_XCLBINUTIL"):
        if given := shutil.which(chosen):
            return Path(given)
        raise ToolError(f"AIE_XCLBINUTIL is {chosen}, which is no program; correct or unset it")
    if found := _on_path("xclbinutil"):
        return found
    homes = (*_folder_in_environment("XRT_ROOT"), *_folder_in_environment("XILINX_XRT"), *map(Path, _XRT_FOLDERS))
    for folder, name in (*((home / "bin", "xclbinutil") for home in homes), *_bundled(wheel)):
        if program := _in(folder, name):
            return program
    raise ToolError(
        "there is no xclbinutil, which packs the binary; it comes with XRT: install Debian's libxrt-utils-npu, AMD's "
        "xrt base package, or on Windows the XRT SDK, and put its bin folder on PATH (or set AIE_XCLBINUTIL)"
    )


def _bundled(wheel: Path) -> Iterator[tuple[Path, str]]:
    for name in ("xclbinutil", "hrx-xclbinutil"):
        yield wheel / "bin", name


def _bootgen(wheel: Path, aiecc: Path) -> Path:
    found = _in(wheel / "bin", "bootgen") or _in(aiecc.parent, "bootgen") or _on_path("bootgen")
    if not found:
        raise ToolError(
            f"there is no bootgen in {wheel / 'bin'} or on PATH, which writes the array's configuration; "
            f"it comes with the mlir_aie wheel: {_install()}"
        )
    return found


def _install() -> str:
    return f"install a matched pair of wheels: {recommended().install}"


def _version(distribution: str, folder: Path) -> str:
    """Of the wheel installed in a folder; "unknown" if none is."""
    for found in importlib.metadata.distributions(name=distribution, path=[str(folder)]):
        return found.version
    return "unknown"


def _on_path(name: str) -> Path | None:
    return next((Path(found) for suffix in _SUFFIXES if (found := shutil.which(name + suffix))), None)


def _in(folder: Path, name: str) -> Path | None:
    return next((file for suffix in _SUFFIXES if (file := folder / (name + suffix)).is_file()), None)


def _folder_in_environment(name: str) -> tuple[Path, ...]:
    return (Path(value),) if (value := os.environ.get(name)) else ()
