"""The code of others in the library of a wheel: its licences, and its bill of materials as CycloneDX (PEP 770)."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tilewhisper.kernels.cpu import compiler as cxx
from tilewhisper.kernels.cpu.targets import Target


@dataclass(frozen=True)
class Component:
    """A piece of software that is linked into the library, or whose inline functions are compiled into it."""

    name: str
    version: str
    license: str
    """An SPDX expression."""
    license_file: Path
    source: str

    def described(self) -> Mapping[str, Any]:
        return {
            "type": "library",
            "name": self.name,
            "version": self.version,
            "licenses": [{"expression": self.license}],
            "externalReferences": [{"type": "website", "url": self.source}],
        }


@dataclass(frozen=True)
class Contents:
    components: tuple[Component, ...]

    def licenses(self) -> Mapping[str, bytes]:
        """The licence files by their names in the wheel."""
        return {f"{each.name}/{each.license_file.name}": each.license_file.read_bytes() for each in self.components}

    def sbom(self, of: str, library: Path) -> bytes:
        """The bill of materials of the library in version `of`."""
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
        described = {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "component": {
                    "type": "library",
                    "name": library.name,
                    "version": of,
                    "purl": f"pkg:pypi/tilewhisper@{of}",
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                    "licenses": [{"license": {"id": "MIT"}}],
                }
            },
            "components": [each.described() for each in self.components],
        }
        return json.dumps(described, indent=1).encode()


def linked_in(target: Target) -> Contents:
    """zig links LLVM's C++ library statically, and MinGW's start code for Windows."""
    zig = _Zig(target)
    llvm, torch = "Apache-2.0 WITH LLVM-exception", _license_of_torch()
    parts = [
        Component("zig-compiler-rt", zig.version, "MIT", zig.folder / "LICENSE", "https://ziglang.org"),
        Component("torch-headers", version("torch"), "BSD-3-Clause", torch, "https://pytorch.org"),
    ]
    of_llvm = {"libcxx": "libc++", "libcxxabi": "libc++abi", "libunwind": "libunwind"}
    parts += [
        Component(name, zig.llvm_version, llvm, zig.folder / "lib" / folder / "LICENSE.TXT", "https://llvm.org")
        for folder, name in of_llvm.items()
    ]
    if target.system == "win32":
        file = zig.folder / "lib/libc/mingw/COPYING"
        terms = "ZPL-2.1 AND LicenseRef-MinGW-w64-runtime"
        parts.append(Component("mingw-w64-runtime", zig.version, terms, file, "https://www.mingw-w64.org"))
    return Contents(tuple(sorted(parts, key=lambda part: part.name)))


@dataclass(frozen=True)
class _Zig:
    target: Target

    @property
    def version(self) -> str:
        return version("ziglang")

    @cached_property
    def llvm_version(self) -> str:
        said = cxx.zig_compiler(self.target).version
        found = re.search(r"\d+\.\d+\.\d+", said)
        assert found, said
        return found[0]

    @property
    def folder(self) -> Path:
        spec = find_spec("ziglang")
        assert spec and spec.submodule_search_locations, "ziglang was found before"
        return Path(next(iter(spec.submodule_search_locations)))


def _license_of_torch() -> Path:
    files = distribution("torch").files or ()
    return next(Path(str(file.locate())) for file in files if file.parts[-2:] == ("licenses", "LICENSE"))
