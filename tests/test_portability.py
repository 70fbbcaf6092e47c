"""The package on systems that are not here: no module or function that only POSIX has, and narrow console encodings."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for folder in ("tilewhisper", "engine", "kernels", "models") for path in (ROOT / folder).rglob("*.py")
)
POSIX_MODULES = {"curses", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
AS_ON_WINDOWS = f"""
import importlib, os, signal, sys, warnings
import torch, av, soundfile, filelock, fastapi, uvicorn, onnxruntime  # libraries know this system at their import
import rich._windows, rich.console, rich.progress, rich.table
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

# Text files without an encoding would have the system's.
warnings.filterwarnings("error", category=EncodingWarning, module="tilewhisper")
sys.modules.update(dict.fromkeys({sorted(POSIX_MODULES)}))  # an import raises ImportError
for name in ("fork", "register_at_fork", "sysconf", "sched_getaffinity", "getuid", "geteuid", "killpg", "setsid",
             "mkfifo", "statvfs", "getloadavg", "posix_fadvise", "uname"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGPIPE"):
    delattr(signal, name)
sys.platform = "win32"

for name in sys.argv[1:]:
    importlib.import_module(name)

from tilewhisper.engine.commands.main import main
for command in (["doctor"], ["transcribe", "--help"], ["layers", "--model", "tiny.en"]):
    try:
        status = main(command)
    except SystemExit as e:
        status = e.code
    assert not status, (command, status)
print("done")
"""
"""Stands in for Windows as far as Python code can see it."""


def after_windows_left(function: ast.FunctionDef) -> Iterator[ast.stmt]:
    """The statements of a function after `if sys.platform == "win32": return …`, which mypy understands too."""
    left = False
    for statement in function.body:
        if left:
            yield statement
        elif isinstance(statement, ast.If):
            left = ast.unparse(statement.test) == "sys.platform == 'win32'" and isinstance(
                statement.body[-1], ast.Return
            )


def unguarded_imports(tree: ast.AST) -> Iterator[str]:
    """Imports of modules that only POSIX has, outside a `try` that catches ImportError, where Windows may come."""
    guarded = {
        id(node)
        for attempt in ast.walk(tree)
        if isinstance(attempt, ast.Try) and any("ImportError" in ast.dump(each) for each in attempt.handlers)
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    guarded |= {id(statement) for function in functions for statement in after_windows_left(function)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if id(node) not in guarded:
            yield from (name for name in names if name.partition(".")[0] in POSIX_MODULES)


def test_modules_that_only_posix_has_are_optional():
    found = {str(path.relative_to(ROOT)): [*unguarded_imports(ast.parse(path.read_text("utf-8")))] for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("source", ["import fcntl", "def f():\n    import resource", "from pwd import getpwnam"])
def test_an_unguarded_import_is_detected(source):
    assert [*unguarded_imports(ast.parse(source))]
    assert not [*unguarded_imports(ast.parse("try:\n    import grp\nexcept ImportError:\n    grp = None"))]
    guard = "def f():\n    if sys.platform {} 'win32':\n        return 0\n    import grp"
    assert not [*unguarded_imports(ast.parse(guard.format("==")))]
    assert [*unguarded_imports(ast.parse(guard.format("!=")))]


@pytest.mark.slow
def test_every_module_and_some_commands_run_as_on_windows(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "HOME": str(tmp_path)}
    names = [".".join(("tilewhisper", *path.relative_to(ROOT).with_suffix("").parts)) for path in SOURCES]
    modules = [name.removesuffix(".__init__") for name in names if not name.startswith("tilewhisper.tilewhisper.")]
    modules.remove("tilewhisper.models.checkpoint.export.openvino")  # imports OpenVINO, which knows the real system
    command = [sys.executable, "-X", "warn_default_encoding", "-c", AS_ON_WINDOWS, *modules]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr.decode("cp1252")
    assert done.stdout.endswith(b"done\n")
