"""`import torch` does not run what inference does not use, and what does use it finds it all the same."""

import subprocess
import sys
from importlib import import_module

import pytest
from conftest import SAMPLE, require_weights

from tilewhisper.engine.commands.deferred_import import defer


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose modules say when they are run."""
    folder = tmp_path / "deferred_sample"
    folder.mkdir()
    (folder / "__init__.py").write_text("from deferred_sample import rare, common\n")
    (folder / "rare.py").write_text("print('rare')\nimport deferred_sample.rare\nvalue = 3\n")
    for name in ("common", "more"):
        (folder / f"{name}.py").write_text(f"print('{name}')\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = [*sys.meta_path]
    yield "deferred_sample"
    sys.meta_path[:] = path
    for name in [name for name in sys.modules if name.startswith("deferred_sample")]:
        del sys.modules[name]


def test_a_deferred_module_is_run_once_by_its_first_use(package, capsys):
    defer(package, ["deferred_sample.rare", "deferred_sample.missing"])
    rare = import_module(package).rare
    assert rare.__file__.endswith("rare.py") and not hasattr(rare, "__missing__")
    assert capsys.readouterr().out == "common\n"
    assert rare.value == 3
    assert capsys.readouterr().out == "rare\n"
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        rare.other  # noqa: B018 (its error is the test)
    import_module("deferred_sample.more")
    assert capsys.readouterr().out == "more\n" and type(rare) is type(sys)


def test_a_further_module_of_the_package_runs_it_before(package, capsys):
    defer(package, ["deferred_sample.rare"])
    defer(package, ["deferred_sample.rare"])  # as the next command in a process does
    import_module("deferred_sample.more")
    assert capsys.readouterr().out == "common\nrare\nmore\n"
    assert import_module(package).rare.__dict__["value"] == 3


def test_a_package_that_is_there_already_is_left_alone(package, capsys):
    import_module(package)
    before = [*sys.meta_path]
    defer(package, ["deferred_sample.rare"])
    assert sys.meta_path == before and capsys.readouterr().out == "rare\ncommon\n"


def _run(code: str) -> None:
    code = f"import sys\nfrom tilewhisper.engine.commands import main\n{code}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchs_compilers_find_what_import_torch_left_out():
    _run("""
main.defer("torch", main._UNUSED)
import torch
assert "torch._prims" not in sys.modules, "it was run"

from torch._subclasses import FakeTensorMode  # as torch.compile does

with FakeTensorMode():
    assert torch.linalg.cholesky(torch.empty(3, 3)).shape == (3, 3)
assert "torch._prims" in sys.modules
""")


def test_a_transcription_runs_none_of_it():
    require_weights("tiny.en")
    _run(f"""
assert main.main(["transcribe", {str(SAMPLE)!r}, "--model", "tiny.en", "--threads", "1"]) == 0
assert main._UNUSED <= sys.modules.keys(), "torch no longer imports it"
assert "torch._prims" not in sys.modules, "it was run"
""")
