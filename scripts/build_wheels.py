"""Build the wheels with compiled kernels, for Linux, macOS and Windows, on one Linux machine.

    pip install -e '.[release]'
    python scripts/build_wheels.py                                  # all four into dist/
    python scripts/build_wheels.py --only manylinux_2_28_x86_64 --twice
    python scripts/build_wheels.py --torch wheels-of-torch          # also compares the imports with torch's exports

The cross compiler is zig's, from PyPI. Each wheel is the package of this working copy, with one library of the kernels
for any Python and torch >= 2.13. Every wheel is checked: its tags, files, licences and SBOM; the library's format,
imports, exports and the oldest system that it runs on; that no path of this machine is in it. The wheel of this
machine's kind is also loaded. `--twice` builds again from the start, with other folders and empty caches, and compares
the bytes.
"""

import argparse
import hashlib
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from tilewhisper.engine.commands.screen import console, say
from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu.compiler import CompileError
from tilewhisper.kernels.cpu.targets import TARGETS, Target, this_target

ROOT = Path(__file__).parents[1]


def main() -> int:
    args = parse()
    if missing := [name for name in ("lief", "ziglang") if not find_spec(name)]:
        return _complain(f"{' and '.join(missing)} missing: pip install 'tilewhisper[release]'")
    from wheel_build.libraries import WheelError

    args.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    for target in TARGETS:
        if args.only and target.wheel not in args.only:
            continue
        try:
            _describe(*_build_and_check(target, args))
        except (WheelError, CompileError, BackendUnavailable) as e:
            log = f"\n{e.log}" if isinstance(e, CompileError) else ""
            failures += _complain(f"{target.wheel}: {e}{log}")
    return min(failures, 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="where wheels are written")
    names = [target.wheel for target in TARGETS]
    parser.add_argument("--only", action="append", choices=names, help="build this wheel (may be repeated)")
    parser.add_argument("--twice", action="store_true", help="build each wheel twice, and compare the bytes")
    parser.add_argument(
        "--torch", type=Path, metavar="DIR", help="a folder with wheels of torch for the platforms: check its exports"
    )
    return parser.parse_args()


def _build_and_check(target: Target, args: argparse.Namespace) -> tuple[Path, str, float]:
    """The wheel, its checks in words, and the seconds of one build."""
    from wheel_build.checks import check, load
    from wheel_build.libraries import WheelError
    from wheel_build.linking import fresh_compiler_cache

    started = time.monotonic()
    wheel = _build(target, args.out)
    seconds = time.monotonic() - started
    checked = check(wheel, target, args.torch)
    if target == this_target():
        checked += f"; loads here: {load(wheel)}"
    if args.twice:
        with tempfile.TemporaryDirectory() as other, fresh_compiler_cache():
            if _build(target, Path(other)).read_bytes() != wheel.read_bytes():
                raise WheelError("the second build has other bytes")
        checked += "; twice the same bytes"
    return wheel, checked, seconds


def _build(target: Target, out: Path) -> Path:
    """Build one wheel into the folder `out`. Raises CompileError and BackendUnavailable."""
    from wheel_build.archive import Packed, pack, pure_wheel
    from wheel_build.linking import link

    with tempfile.TemporaryDirectory(prefix="wheel-") as folder:
        scratch = Path(folder)
        return pack(Packed(pure_wheel(ROOT, scratch), target, link(target, scratch)), out)


def _describe(wheel: Path, checked: str, seconds: float) -> None:
    screen = console()
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    say(screen, f"{wheel.name}  {wheel.stat().st_size / 1e6:.2f} MB, built in {seconds:.0f} s")
    say(screen, f"  sha256  {digest}")
    say(screen, f"  checks  {checked}")


def _complain(problem: str) -> int:
    print(f"build_wheels: error: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
