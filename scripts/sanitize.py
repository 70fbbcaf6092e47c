"""Run the tests of the native kernels with a library that is built with address and undefined-behaviour sanitizers.

    python scripts/sanitize.py            # needs g++ and tilewhisper[test]

The first invalid access or undefined operation ends the run and prints its place in the source.
"""

import os
import subprocess
import sys
from pathlib import Path

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build, compiler

NAMES = (
    "native_operators",
    "native_logits",
    "quantized",
    "quantized_attention",
    "quantized_decoder",
    "int4",
    "backends",
)
TESTS = tuple(f"tests/unit/test_{name}.py" for name in NAMES)
SANITIZED = build.Build(
    extra_flags=("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
)
ROOT = Path(__file__).parents[1]


def main() -> int:
    """Build, then run the tests in a process that is started with the sanitizer's runtime."""
    try:
        print(f"testing {build.library(SANITIZED)}", file=sys.stderr)
        preloaded = _runtime(compiler.find_compiler().command)
    except BackendUnavailable as e:
        print(f"sanitize: error: {e}", file=sys.stderr)
        return 2
    # Python does not free all memory at exit, which is no leak of the kernels.
    settings = {"LD_PRELOAD": preloaded, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [sys.executable, __file__, *TESTS]
    return subprocess.run(command, cwd=ROOT, env=os.environ | settings, check=False).returncode


def run_tests(tests: list[str]) -> int:
    """Run in that process: load the sanitized library first, since a process keeps the first it loads."""
    import pytest

    build.load(SANITIZED)
    return pytest.main(["-q", "-s", "-k", "not npu", "-p", "no:cacheprovider", *tests])


def _runtime(command: tuple[str, ...]) -> str:
    """The sanitizer's runtime, and the C++ library, which it needs at its start to intercept exceptions."""
    queries = ([*command, f"-print-file-name={name}"] for name in ("libasan.so", "libstdc++.so"))
    return " ".join(subprocess.run(each, capture_output=True, text=True, check=True).stdout.strip() for each in queries)


if __name__ == "__main__":
    sys.exit(run_tests(sys.argv[1:]) if sys.argv[1:] else main())
