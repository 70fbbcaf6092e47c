"""Turn the package of the working copy and a compiled library into a wheel whose bytes depend on nothing else."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from wheel_build.contents import linked_in

from tilewhisper.kernels.cpu.targets import Target

FOLDER = "tilewhisper/kernels/cpu/prebuilt"
"""Of the library in the package, as in `tilewhisper.kernels.cpu.build.PACKAGED`."""
SOURCES = ("tilewhisper", "engine", "kernels", "models", "pyproject.toml", "README.md", "LICENSE")
_EARLIEST = 315_532_800
"""1980: zip files know no earlier time."""


@dataclass(frozen=True)
class Packed:
    """The parts of a wheel."""

    pure: Path
    """The wheel of the package without a library."""
    target: Target
    library: Path


def pure_wheel(root: Path, scratch: Path) -> Path:
    """The wheel without a library, built from a copy: what earlier builds have left in `root` is not in it."""
    copy, out = scratch / "package", scratch / "pure"
    ignored = shutil.ignore_patterns("__pycache__", "prebuilt")
    for name in SOURCES:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=ignored)
        else:
            shutil.copy2(root / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
    subprocess.run(command, check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


def pack(parts: Packed, out: Path) -> Path:
    """Write the wheel into the folder `out`: files in order, with one time and one mode."""
    with zipfile.ZipFile(parts.pure) as pure:
        files = {name: pure.read(name) for name in pure.namelist() if not name.endswith("/")}
    (record,) = (PurePosixPath(name) for name in files if name.endswith(".dist-info/RECORD"))
    info = record.parent
    del files[str(record)]
    name, version = info.stem.split("-")
    tag = f"py3-none-{parts.target.wheel}"
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: tilewhisper\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    )
    files[f"{FOLDER}/{parts.library.name}"] = parts.library.read_bytes()
    contents = linked_in(parts.target)
    files[f"{info}/sboms/kernels.cdx.json"] = contents.sbom(version, parts.library)
    for path, text in contents.licenses().items():
        files[f"{info}/licenses/{path}"] = text
    # The information comes last, as the format recommends.
    ordered = dict(sorted(files.items(), key=lambda item: (item[0].startswith(f"{info}/"), item[0])))
    ordered[str(record)] = _record(ordered, str(record))
    wheel = out / f"{name}-{version}-{tag}.whl"
    _write(wheel, ordered)
    return wheel


def _record(files: dict[str, bytes], itself: str) -> bytes:
    def digest(data: bytes) -> str:
        return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

    lines = [f"{name},sha256={digest(data)},{len(data)}" for name, data in files.items()]
    return "\n".join((*lines, f"{itself},,", "")).encode()


def _write(wheel: Path, files: dict[str, bytes]) -> None:
    """At the time in SOURCE_DATE_EPOCH, which builds of all kinds read, or in 1980."""
    when = time.gmtime(max(_EARLIEST, int(os.environ.get("SOURCE_DATE_EPOCH", 0))))[:6]
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, when)
            entry.create_system = 3  # Unix, on whatever system this runs
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
