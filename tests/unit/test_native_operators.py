"""Every native operator with any arguments: a correct result or a RuntimeError, never a crash or a hang.

The operators come from torch's registry, so that a new operator without cases fails here.
"""

import json
import subprocess
import sys
from pathlib import Path

import native_operator_cases as cases
import pytest

from tilewhisper.kernels.cpu import build

if reason := build.why_unavailable():
    pytest.skip(reason, allow_module_level=True)

LIBRARY = build.load()


@pytest.fixture(scope="module")
def outcomes() -> dict[str, dict]:
    """Of all operators, from one other process: a crash must not end this one."""
    command = [sys.executable, str(Path(cases.__file__)), str(LIBRARY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return {outcome["operator"]: outcome for outcome in map(json.loads, done.stdout.splitlines())}


def test_every_operator_has_cases():
    assert set(cases.VALID) == set(cases.operators())
    assert set(cases.EMPTY) <= set(cases.VALID)


@pytest.mark.parametrize("operator", cases.VALID)
def test_an_operator_is_correct_or_refuses(outcomes, operator):
    outcome = outcomes[operator]
    assert outcome["failures"] == []
    assert outcome["cases"] >= len(cases.VALID[operator]) + len(cases.EMPTY.get(operator, []))
