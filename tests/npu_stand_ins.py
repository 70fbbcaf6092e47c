"""Stand-ins for the NPU's toolchain: each accepts the flags of one release, needs its helpers and fails as it does.

The flags and errors are those of mlir-aie's sources, pull requests #3364 and #3501 and issue #3029.
"""

import os
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

FLAGS = {
    "1.3.4": (
        *("--no-compile-host", "--no-xchesscc", "--no-xbridge", "--peano", "--aie-generate-xclbin", "--xclbin-name"),
        *("--aie-generate-npu-insts", "--npu-insts-name", "--tmpdir"),
    ),
    "1.4.0": (
        *("--no-xchesscc", "--no-xbridge", "--peano", "--get-xclbin", "--xclbin-name", "--get-npu-insts"),
        *("--npu-insts-name", "--tmpdir"),
    ),
    "1.4.2": ("--peano", "--get-xclbin", "--xclbin-name", "--get-npu-insts", "--npu-insts-name", "--tmpdir"),
    "1.4.4.dev18": ("--peano", "--get-xclbin", "--xclbin-name", "--get-npu-insts", "--npu-insts-name", "--tmpdir"),
    "1.4.6.dev2": ("--peano", "--get-xclbin", "--xclbin-name", "--get-npu-insts", "--npu-insts-name", "--tmpdir"),
}
"""Release -> the flags of its driver that a build needs; no driver accepts another's."""
PARTNERS = {
    "1.3.4": "21.0.0.2026062301+cb664e8c",
    "1.4.0": "21.0.0.2026062301+cb664e8c",
    "1.4.2": "22.0.0.2026090201+a36c62b9",
    "1.4.4.dev18": "22.0.0.2026091701",
    "1.4.6.dev2": "22.0.0.2026092801+b0d37423",
}

_DRIVER = """
RELEASE, FLAGS, EXE = {release!r}, {flags!r}, {exe!r}

def fail(*lines):
    print("Progress: 1 of 9", *lines, "To reproduce: aiecc --resume x", sep="\\n", file=sys.stderr)
    sys.exit(1)

def find(name):
    folders = [Path(f) for f in os.environ["PATH"].split(os.pathsep)]
    if not any((f / (name + EXE)).is_file() for f in folders):
        fail(f"aiecc: {{name}} failed", "posix_spawn failed: No such file or directory")

if arguments == ["--aie-version"] and RELEASE >= "1.4.1":
    print("aiecc 08c791150e built 2026-09-28")
    sys.exit()
names = [a.partition("=")[0] for a in arguments if a.startswith("-")]
values = dict(a.split("=", 1) for a in arguments if "=" in a)
for name in names:
    if name not in FLAGS:
        fail(f"aiecc: Unknown command line argument '{{name}}'.  Try: 'aiecc --help'", "aiecc: Did you mean '-h'?")
if RELEASE < "1.4.1" and not ("--no-xchesscc" in names and "--no-xbridge" in names):
    fail("aiecc: chess-llvm-link failed")
(text,) = [a for a in arguments if not a.startswith("-")]
if not (Path(values["--peano"]) / "bin" / ("clang++" + EXE)).is_file():
    fail("aiecc: error: no Peano")
assert Path(text).is_file() and Path(text).is_absolute()
design = Path(text).read_text()
if RELEASE >= "1.4.3" and "objectfifo.subview.access" in design:
    fail("x.mlir:9:9: error: unregistered operation 'aie.objectfifo.subview.access' found in dialect ('aie')")
if RELEASE < "1.4.3" and "objectfifo.subview.access" not in design:
    fail("x.mlir:9:9: error: 'aie.objectfifo.acquire' op requires attribute 'size'")
for line in design.splitlines():
    if "func.func" in line:
        name = line.partition('sym_name = "')[2].partition('"')[0]
    elif "link_with" in line:
        file = Path(line.partition('link_with = "')[2].partition('"')[0])
        if name.encode() not in file.read_bytes():
            fail(f"ld.lld: error: undefined symbol: {{name}}")
        assert file.is_absolute()
find("bootgen")
if not Path(os.environ.get("AIE_XCLBINUTIL", "")).is_file():
    find("xclbinutil")
Path(values["--xclbin-name"]).write_bytes(b"binary")
Path(values["--npu-insts-name"]).write_bytes(Path(text).name.encode())
print("done")
"""
_WRAPPER = """
import subprocess
sys.exit(subprocess.run(["aiecc", *arguments]).returncode)
"""
_CLANG = """
assert "-D__AIE_API_AIE_ADF_HPP__" in arguments, "fatal error: 'adf.h' file not found"
source = Path(arguments[arguments.index("-c") + 1])
assert f"void {source.stem}(" in source.read_text()
assert {"-DDIM_M=64", "-DDIM_K=64", "-DDIM_N=32", "-fstack-size-section"} <= set(arguments)
(include,) = [Path(a[2:]) for a in arguments if a.startswith("-I")]
assert (include / "aie_api").is_dir()
Path(arguments[arguments.index("-o") + 1]).write_bytes(object_file(STACK) + source.stem.encode())
"""


def program(file, body):
    """An executable Python script."""
    file.parent.mkdir(parents=True, exist_ok=True)
    head = f"#!{sys.executable}\nimport os\nimport sys\nfrom pathlib import Path\narguments = sys.argv[1:]\n"
    file.write_text(head + body)
    file.chmod(0o755)
    return file


@dataclass(frozen=True)
class Toolchain:
    """Installed programs; `driver` and the others may be deleted or rewritten by a test."""

    driver: Path
    packages: Path
    clang: Path
    xclbinutil: Path
    bootgen: Path

    @property
    def path(self):
        return os.pathsep.join((str(self.driver.parent), str(self.xclbinutil.parent)))


def install(root, release, *, windows=False, version=None, partner=None, stack=3328):
    """The wheels of a release and XRT under `root`, laid out as on Linux or Windows.

    `version` and `partner` are those of the wheels (default: the release's); "" installs none, as a build from sources.
    `stack`: bytes of the largest frame that the compiler states; None: it states none.
    """
    exe = ".exe" if windows else ""
    environment = root / "my tools"
    scripts, packages = (
        (environment / "Scripts", environment / "Lib" / "site-packages")
        if windows
        else (environment / "bin", environment / "lib" / "python3.13" / "site-packages")
    )
    wheel = packages / "mlir_aie"
    (wheel / "include" / "aie_api").mkdir(parents=True)
    _metadata(packages, "mlir_aie", release if version is None else version)
    _metadata(packages, "llvm_aie", PARTNERS[release] if partner is None else partner)
    driver = _DRIVER.format(release=release, flags=FLAGS[release], exe=exe)
    return Toolchain(
        program(scripts / f"aiecc{exe}", driver),
        packages,
        program(packages / "llvm-aie" / "bin" / f"clang++{exe}", _clang(stack)),
        program(root / "XRT" / "bin" / f"xclbinutil{exe}", ""),
        program(wheel / "bin" / f"bootgen{exe}", ""),
    )


def object_file(frames, bits=32):
    """An ELF file with a section .stack_sizes of these frames."""
    code, header = ("I", 52) if bits == 32 else ("Q", 64)
    stacks = b"".join(struct.pack("<" + code, 0x40) + uleb128(size) for size in frames)
    names = b"\0.stack_sizes\0.shstrtab\0"

    def section(name, at, size):
        return struct.pack(f"<II{code}{code}{code}{code}", name, 1, 0, 0, at, size) + bytes(16 if bits == 32 else 24)

    table = section(0, 0, 0) + section(1, header, len(stacks)) + section(14, header + len(stacks), len(names))
    at = header + len(stacks) + len(names)
    start = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    fields = (1, 264, 1, 0, 0, at, 0, header, 0, 0, len(table) // 3, 3, 2)
    return start + struct.pack(f"<HHI{code}{code}{code}IHHHHHH", *fields) + stacks + names + table


def uleb128(number):
    part, rest = number & 0x7F, number >> 7
    return bytes([part | 0x80]) + uleb128(rest) if rest else bytes([part])


def _clang(stack):
    return _CLANG.replace("object_file(STACK)", repr(object_file([16, stack])) if stack else "b'no ELF file'")


def add_wrapper(tools):
    """aiecc.py of 1.3.4, which starts aiecc."""
    return program(tools.driver.with_name("aiecc.py"), _WRAPPER)


def _metadata(packages, name, version):
    if version:
        folder = packages / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
