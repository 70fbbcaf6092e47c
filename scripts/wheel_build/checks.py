"""Checks of a wheel: everything that can be known without the system that it is for."""

import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

from wheel_build.archive import FOLDER
from wheel_build.libraries import WheelError, check_library, exports_of_torch

from tilewhisper.kernels.cpu.build import Build
from tilewhisper.kernels.cpu.targets import Target


def check(wheel: Path, target: Target, torchs: Path | None) -> str:
    """What was checked, in words. Raises WheelError.

    `torchs` is a folder with wheels of torch for the platforms, whose exports are compared with the library's imports.
    """
    with zipfile.ZipFile(wheel) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
        _check_entries(archive)
    info = next(name for name in files if name.endswith(".dist-info/WHEEL")).removesuffix("/WHEEL")
    tag = f"py3-none-{target.wheel}"
    version = info.removesuffix(".dist-info").partition("-")[2]
    _require(wheel.name == f"tilewhisper-{version}-{tag}.whl", f"the name {wheel.name} is not that of {tag}")
    lines = files[f"{info}/WHEEL"].decode().splitlines()
    _require({f"Tag: {tag}", "Root-Is-Purelib: false"} <= {*lines}, "WHEEL states another tag, or no library")
    _check_record(files, f"{info}/RECORD")
    name = _check_name(files, target)
    components = _check_notices(files, info, name)
    _check_paths(files)
    found = check_library(files[name], target, exports_of_torch(torchs, target) if torchs else None)
    return f"tag, record, {components} licences and SBOM, no path of this machine; {found}"


def load(wheel: Path) -> str:
    """The instruction sets of the library on this machine, loaded from the unpacked wheel. Raises WheelError."""
    code = (
        "import torch; from tilewhisper.kernels.cpu import build; path = build.load()\n"
        "assert path.parent == build.PACKAGED, path\n"
        "try: torch.ops.tilewhisper_native.pack_weight(torch.zeros(2, 2), 5)\n"
        "except RuntimeError as e: assert 'must be 16 or 8' in str(e), e\n"
        "else: raise AssertionError('wrong bits are accepted')\n"
        "print(', '.join(build.instruction_sets()))"
    )
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        # A .pth file of an editable installation would come first: -S leaves it out.
        paths = [folder, *(path for path in sys.path if path.endswith("site-packages"))]
        command = [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {paths}\n{code}"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        _fail(f"the library does not load or run here: {done.stderr.strip()}")
    return done.stdout.strip()


def _check_entries(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    _require(len({entry.filename for entry in entries}) == len(entries), "a file is there twice")
    _require(len({entry.date_time for entry in entries}) == 1, "files have different times")
    _require({entry.external_attr >> 16 for entry in entries} == {0o100644}, "files have different modes")


def _check_record(files: dict[str, bytes], record: str) -> None:
    rows = {name: digest for name, digest, _ in csv.reader(files[record].decode().splitlines())}
    _require(rows.keys() == files.keys(), "RECORD lists other files")
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        _require(name == record or rows[name] == f"sha256={digest}", f"RECORD has another digest of {name}")


def _check_name(files: dict[str, bytes], target: Target) -> str:
    """The library's name in the wheel: the package finds it by the digest of the sources that lie beside it."""
    stem = Build(system=target.system, machine=target.machine).stem
    names = [name for name in files if name.startswith(f"{FOLDER}/")]
    _require(len(names) == 1, f"there must be one library, not {names}")
    digest = hashlib.sha256(files[names[0]]).hexdigest()[:16]
    _require(Path(names[0]).stem == f"{stem}-wheel-{digest}", f"the package does not look for {names[0]}, but {stem}")
    return names[0]


def _check_notices(files: dict[str, bytes], info: str, library: str) -> int:
    """The number of components of others in the library, each with its licence."""
    sbom = json.loads(files[f"{info}/sboms/kernels.cdx.json"])
    (stated,) = sbom["metadata"]["component"]["hashes"]
    _require(stated["content"] == hashlib.sha256(files[library]).hexdigest(), "the SBOM is of another library")
    _require(f"{info}/licenses/LICENSE" in files, "the licence is missing")
    for component in sbom["components"]:
        folder = f"{info}/licenses/{component['name']}/"
        _require(any(name.startswith(folder) and files[name] for name in files), f"no licence of {component['name']}")
    return len(sbom["components"])


def _check_paths(files: dict[str, bytes]) -> None:
    folders = {str(Path.home()), sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]), tempfile.gettempdir()}
    pattern = re.compile(b"|".join(re.escape(folder.encode()) + rb"/[\w.-]+" for folder in folders if len(folder) > 1))
    for name, data in files.items():
        if name.startswith(f"{FOLDER}/") and (found := pattern.search(data)):
            _fail(f"{name} has a path of this machine: {found[0].decode()}")


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        _fail(otherwise)


def _fail(reason: str) -> NoReturn:
    raise WheelError(reason)
