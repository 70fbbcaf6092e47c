"""Run the tests of the native kernels against a library built with the address and undefined-behaviour sanitizers.

    python scripts/sanitize.py            # needs g++ and tilewhisper[test]

The first bad access or undefined operation ends the run with its place in the source. Exit status 0: none was found.
"""

import os
import subprocess
import sys
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build, compiler

TESTS = ("tests/unit/test_quantized.py", "tests/unit/test_backends.py")
CHECKED = build.Build(
    extra_flags=("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
)
ROOT = Path(__file__).parents[1]


def main() -> int:
    """Build, then start the tests in a process that has the sanitizer's runtime from its start."""
    try:
        print(f"checking {build.library(CHECKED)}", file=sys.stderr)
        preloaded = _runtime(compiler.find_compiler().command)
    except BackendUnavailable as e:
        print(f"sanitize: error: {e}", file=sys.stderr)
        return 2
    # Python keeps memory until it exits, on purpose; that is no leak of ours.
    settings = {"LD_PRELOAD": preloaded, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [sys.executable, __file__, *TESTS]
    return subprocess.run(command, cwd=ROOT, env=os.environ | settings, check=False).returncode


def run_tests(tests: list[str]) -> int:
    """Within that process: the checked library first, since the first that is loaded stays."""
    import pytest

    build.load(CHECKED)
    return pytest.main(["-q", "-s", "-k", "not npu", "-p", "no:cacheprovider", *tests])


def _runtime(command: tuple[str, ...]) -> str:
    """The sanitizer's, and the C++ library, which it must find at its start to see exceptions."""
    asked = ([*command, f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so"))
    return " ".join(subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in asked)


if __name__ == "__main__":
    sys.exit(run_tests(sys.argv[1:]) if sys.argv[1:] else main())
