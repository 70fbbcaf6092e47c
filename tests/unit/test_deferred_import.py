"""`import torch` does not run what inference does not use, and what does use it finds it all the same."""

import subprocess
import sys
from importlib import import_module
from importlib.machinery import PathFinder

import pytest
from conftest import SAMPLE, require_weights

from tilewhisper.engine.commands import unused_modules
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
    defer(package, {"deferred_sample.rare": (), "deferred_sample.missing": ()})
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
    defer(package, {"deferred_sample.rare": ()})
    defer(package, {"deferred_sample.rare": ()})  # as the next command in a process does
    import_module("deferred_sample.more")
    assert capsys.readouterr().out == "common\nrare\nmore\n"
    assert import_module(package).rare.__dict__["value"] == 3


@pytest.mark.parametrize("first_use", ["call", "import"])
def test_a_function_of_a_deferred_module_is_a_stand_in_until_it_is_run(package, tmp_path, capsys, first_use):
    (tmp_path / "deferred_sample/rare.py").write_text(
        "print('rare')\ndef double(n, *, plus=0):\n    return 2 * n + plus\n"
    )
    (tmp_path / "deferred_sample/__init__.py").write_text("from deferred_sample.rare import double\nother = double\n")
    defer(package, {"deferred_sample.rare": ("double",)})
    sample = import_module(package)
    stand_in = sample.double
    assert capsys.readouterr().out == ""
    if first_use == "call":
        assert stand_in(2, plus=1) == 5
    else:
        import_module("deferred_sample.more")
    assert capsys.readouterr().out.startswith("rare\n")
    assert sample.double is sample.rare.double is not stand_in
    assert sample.other is stand_in and stand_in(3) == 6


def test_a_package_that_is_there_already_is_left_alone(package, capsys):
    import_module(package)
    before = [*sys.meta_path]
    defer(package, {"deferred_sample.rare": ()})
    assert sys.meta_path == before and capsys.readouterr().out == "rare\ncommon\n"


def test_a_further_module_that_a_deferred_one_imports_too_is_run_once(package, tmp_path, capsys):
    (tmp_path / "deferred_sample/rare.py").write_text("import deferred_sample.more\nmore = deferred_sample.more\n")
    defer(package, {"deferred_sample.rare": ()})
    more = import_module("deferred_sample.more")
    assert capsys.readouterr().out == "common\nmore\n"
    sample = import_module(package)
    assert more is sample.more is sample.rare.more is sys.modules["deferred_sample.more"]
    assert more.__spec__.loader is more.__loader__ and more.__spec__.origin == more.__file__


def test_a_module_of_another_package_is_deferred_while_the_package_is_imported(package, tmp_path, capsys):
    (tmp_path / "deferred_sample_helper.py").write_text("print('helper')\n__all__ = ['_hidden']\n_hidden = 4\n")
    (tmp_path / "deferred_sample" / "common.py").write_text("import deferred_sample_helper\n")
    defer(package, {"deferred_sample_helper": ()})
    import_module(package)
    assert capsys.readouterr().out == "rare\n"
    names = {}
    exec("from deferred_sample_helper import *", names)
    assert capsys.readouterr().out == "helper\n" and names["_hidden"] == 4


def test_a_module_of_another_package_is_run_when_it_is_imported_by_others(package, tmp_path, capsys):
    (tmp_path / "deferred_sample_helper.py").write_text("print('helper')\n")
    defer(package, {"deferred_sample_helper": ()})
    import_module("deferred_sample_helper")
    assert capsys.readouterr().out == "helper\n"


@pytest.mark.parametrize("version", ["2.13.0+cpu", "2.99.0"])
def test_only_a_torch_that_was_tested_is_imported_in_part(version, tmp_path, monkeypatch):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("")
    (tmp_path / "torch/version.py").write_text(f"from typing import Optional\n\n__version__ = {version!r}\n")
    deferred = []
    monkeypatch.setattr(unused_modules, "defer", lambda *call: deferred.append(call))
    monkeypatch.setattr(unused_modules, "find_spec", lambda name: PathFinder.find_spec(name, [str(tmp_path)]))
    unused_modules.leave_out()
    assert deferred == ([("torch", unused_modules.TORCH)] if version.startswith("2.13.") else [])


def _run(code: str) -> None:
    code = f"import sys\nfrom tilewhisper.engine.commands import main, unused_modules\n{code}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torchs_compilers_find_what_import_torch_left_out():
    _run("""
unused_modules.leave_out()
import torch
assert "torch._prims" not in sys.modules, "it was run"

from torch._subclasses import FakeTensorMode  # as torch.compile does

with FakeTensorMode():
    assert torch.linalg.cholesky(torch.empty(3, 3)).shape == (3, 3)
assert "torch._prims" in sys.modules
""")


def test_torch_works_with_what_its_import_left_out():
    _run("""
unused_modules.leave_out()
import torch

assert torch.utils.data.DataLoader([1, 2], batch_size=2).__iter__().__next__().tolist() == [1, 2]
layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))
torch.optim.SGD(layer.parameters(), lr=0.1).step()
torch.testing.assert_close(torch.sparse.sum(torch.eye(2).to_sparse()), torch.tensor(2.0))
with torch.profiler.profile() as profile:
    torch.ones(2) + 1
assert "aten::add" in {event.key for event in profile.key_averages()}
assert torch.vmap(torch.neg)(torch.ones(2)).tolist() == [-1, -1] and torch.vmap is torch.func.vmap
assert torch.export.export(layer, (torch.ones(1, 2),)).module()(torch.ones(1, 2)).shape == (1, 2)
""")


def test_a_transcription_runs_none_of_it():
    require_weights("tiny.en")
    _run(f"""
from tilewhisper.engine.commands import deferred_import

run = []
deferred_import._run = lambda module: run.append(module.__name__)
assert main.main(["transcribe", {str(SAMPLE)!r}, "--model", "tiny.en", "--word_timestamps", "--threads", "1"]) == 0
assert unused_modules.TORCH.keys() <= sys.modules.keys(), "torch no longer imports it"
assert run == []
assert "torch._prims" not in sys.modules
""")
