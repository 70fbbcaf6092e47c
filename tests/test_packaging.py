"""The container recipes and the systemd units, by their linters. Nothing here builds an image or starts a service."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tilewhisper import __version__
from tilewhisper.engine.commands.parser import parse

ROOT = Path(__file__).parents[1]
PACKAGING = ROOT / "packaging"
DOCKERFILES = (ROOT / "Dockerfile", PACKAGING / "npu/Dockerfile")
UNIT = PACKAGING / "tilewhisper.service"
DROP_INS = (None, PACKAGING / "npu/tilewhisper-npu.conf")
MOST_EXPOSED = 25
"""Of 100, as `systemd-analyze security` rates a unit; below 30 is its "OK", and a unit without hardening has 96."""


def tool(name: str) -> str:
    """Skip the test where the program is missing."""
    beside_python = Path(sys.executable).with_name(name)
    found = shutil.which(name) or (str(beside_python) if beside_python.is_file() else None)
    if not found:
        pytest.skip(f"{name} is missing")
    return found


def check(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), done.stdout + done.stderr


def test_the_workflow_fits_its_schema():
    """Of GitHub's, which check-jsonschema brings."""
    command = ("--quiet", "--builtin-schema", "vendor.github-workflows")
    check(tool("check-jsonschema"), *command, str(ROOT / ".github/workflows/wheels.yml"))


def test_the_changelog_has_a_section_for_the_version():
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_container_recipes_pass_hadolint(path):
    check(tool("hadolint"), str(path))


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_the_image_runs_as_a_user_and_has_no_compiler(path):
    *_, final = re.split(r"^FROM ", path.read_text("utf-8"), flags=re.MULTILINE)
    assert re.search(r"^USER [1-9]\d*$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert "g++" not in final


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_the_commands_of_the_image_are_known(path):
    (words,) = re.findall(r"^CMD \[(.+)\]$", path.read_text("utf-8"), re.MULTILINE)
    assert parse([word.strip(' "') for word in words.split(",")]).command == "serve"


def test_the_sources_of_the_package_are_copied():
    kept = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    assert all((ROOT / name).exists() for name in kept)
    assert {"tilewhisper", "engine", "kernels", "models", "pyproject.toml", "README.md", "LICENSE"} <= {*kept}


@pytest.fixture(params=DROP_INS, ids=lambda path: path.name if path else "without a drop-in")
def unit(request, tmp_path) -> Path:
    """The unit as it is installed, with a program that exists here."""
    text = UNIT.read_text("utf-8")
    program = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)[1]
    path = tmp_path / UNIT.name
    path.write_text(text.replace(program, sys.executable))
    if request.param:
        (tmp_path / f"{UNIT.name}.d").mkdir()
        shutil.copy(request.param, tmp_path / f"{UNIT.name}.d")
    return path


def test_the_unit_is_valid(unit):
    check(tool("systemd-analyze"), "verify", "--man=no", str(unit))


def test_the_unit_is_hardened(unit):
    command = (tool("systemd-analyze"), "security", "--offline=yes", f"--threshold={MOST_EXPOSED}", str(unit))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
