"""The house's rooms: who imports whom, read from the source and not from a running program."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("engine", "kernels", "models")
MAY_IMPORT = {
    "engine": {"engine", "kernels", "models"},
    "kernels": {"kernels"},
    "models": {"models"},
    "scripts": {"engine", "kernels", "models"},
}
SCREEN = {Path("engine/tables.py"), Path("engine/progress.py")}
ONLY_IN = {
    "transformers": lambda path: path == Path("models/transformers_path.py"),
    "librosa": lambda path: path.parts[0] == "models",
    "soxr": lambda path: path.parts[0] == "models",
    "soundfile": lambda path: path.parts[0] == "models",
    "av": lambda path: path.parts[0] == "models",
    "pyxrt": lambda path: path == Path("kernels/xdna/xrt.py"),
    "rich": lambda path: path.parts[0] == "scripts" or path in SCREEN or path.parts[:2] == ("engine", "commands"),
}
FOLDERS = (*ROOMS, "scripts")
SOURCES = sorted(file.relative_to(ROOT) for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module a file imports, at its top or late, for types only or in earnest."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("import_module"):
            yield ast.unparse(node.args[0]).strip("'\"")


def violations(path: Path, source: str) -> list[str]:
    room = path.parts[0]
    found = []
    for name in imported(ast.parse(source)):
        top, *rest = name.split(".")
        if top == "tilewhisper" and rest and rest[0] not in MAY_IMPORT[room]:
            found.append(f"{path} imports {name}")
        if top in ROOMS:
            found.append(f"{path} imports {name}, not tilewhisper.{name}")
        if top in ONLY_IN and not ONLY_IN[top](path):
            found.append(f"{path} imports {name}")
    return found


def test_there_is_something_to_check():
    assert {path.parts[0] for path in SOURCES} >= set(ROOMS)


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_follow_the_arrows(path):
    assert not violations(path, (ROOT / path).read_text("utf-8"))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/base.py", "from tilewhisper.models.catalog import Site"),
        ("kernels/base.py", "def f():\n    import tilewhisper.engine.policy"),
        ("models/audio.py", "from tilewhisper import engine"),
        ("models/audio.py", "from tilewhisper.kernels import base"),
        ("engine/encoder.py", "import transformers"),
        ("engine/encoder.py", "from kernels import base"),
        ("engine/report.py", "import pyxrt"),
        ("kernels/xdna/backend.py", "import_module('pyxrt')"),
    ],
)
def test_a_backward_arrow_is_seen(path, source):
    assert violations(Path(path), source)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] != "scripts"], ids=str)
def test_only_the_commands_print(path):
    if path == Path("engine/cli.py") or path.parts[:2] == ("engine", "commands"):
        return
    calls = (node for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))) if isinstance(node, ast.Call))
    assert not [call.lineno for call in calls if ast.unparse(call.func) == "print"]


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    there = {f"tilewhisper.{'.'.join(path.parent.parts)}" for path in SOURCES if path.name == "__init__.py"}
    assert set(listed) == there


def test_whisper_can_still_be_imported_from_the_root_of_the_repository():
    """A top-level folder named `kernels` is what transformers takes for Hugging Face's package of that name."""
    done = subprocess.run(
        [sys.executable, "-c", "import kernels; from transformers import WhisperForConditionalGeneration"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
