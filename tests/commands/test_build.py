"""`tilewhisper build`, and the native kernels in `doctor`, with and without a compiler."""

from importlib.util import find_spec

import pytest

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build, compiler


@pytest.fixture
def hidden(tmp_path):
    """The environment of a user without a compiler and without compiled kernels."""
    if find_spec("ziglang"):
        pytest.skip("the package ziglang is a compiler that PATH cannot hide")
    return {"PATH": "/nowhere", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}


def native(text: str) -> list[str]:
    """The rows of the native kernels in the output of `doctor`: compiler and library."""
    (block,) = (block for block in text.split("\n\n") if block.startswith("native kernels"))
    return block.splitlines()[1:]


def test_build_without_a_compiler_is_one_line_of_error(installed, hidden):
    finished = installed("build", env=hidden)
    assert finished.status == 2
    assert finished.out == ""
    (line,) = finished.err.splitlines()
    assert line.startswith("tilewhisper: error: no C++ compiler: none of g++, clang++, c++ is on PATH")
    assert "apt install g++" in line


def test_doctor_without_a_compiler_says_how_to_get_one(installed, hidden):
    finished = installed("doctor", env=hidden)
    assert finished.status == 0
    assert finished.err == ""
    tools, library = native(finished.out)
    assert tools.split()[:2] == ["compiler", "no"]
    assert "apt install g++" in tools
    assert library.split()[:2] == ["library", "no"]
    assert "no C++ compiler" in library


def test_a_failing_compiler_is_one_line_of_error(installed, hidden, tmp_path):
    broken = tmp_path / "c++"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit\necho "ops.cpp:1:1: fatal error: no luck"; exit 1\n')
    broken.chmod(0o755)
    finished = installed("build", env={**hidden, "PATH": str(tmp_path)})
    assert finished.status == 2
    compiling, error = finished.err.splitlines()
    assert compiling.startswith("compiling tilewhisper's native kernels")
    assert "fatal error: no luck (log: " in error


@pytest.fixture
def possible():
    if reason := build.why_unavailable():
        pytest.skip(reason)


def test_build_of_a_built_library_says_so(tilewhisper, possible):
    build.library()
    finished = tilewhisper("build")
    assert finished.status == 0
    assert f"{build.find()}, already built" in finished.out
    assert "portable (" in finished.out
    assert finished.err == ""
    _, library, *sets = native(tilewhisper("doctor").out)
    assert library.split()[:2] == ["library", "yes"]
    assert str(build.find()) in library
    assert sets[-1].split()[:2] == [build.instruction_sets()[0], "yes"]


def test_force_compiles_a_built_library_again(tilewhisper, possible, monkeypatch):
    forced = []
    library = build.library()
    monkeypatch.setattr(build, "library", lambda *, force: forced.append(force) or library)
    finished = tilewhisper("build", "--force")
    assert forced == [True]
    assert "compiled in " in finished.out
    assert str(compiler.find_compiler()) in finished.out


def test_doctor_does_not_compile(tilewhisper, monkeypatch):
    def compiled(*_, **__):
        raise AssertionError("doctor compiles")

    monkeypatch.setattr(build, "find", lambda *_: None)
    monkeypatch.setattr(build, "library", compiled)
    monkeypatch.setattr(build, "why_unavailable", lambda *_: None)
    _, library = native(tilewhisper("doctor").out)
    assert "not compiled yet" in library
    assert "`tilewhisper build`" in library


def test_doctor_reports_a_library_that_does_not_load(tilewhisper, monkeypatch, tmp_path):
    def failed():
        raise BackendUnavailable("the native kernels cannot be loaded: no such symbol")

    monkeypatch.setattr(build, "find", lambda *_: tmp_path / "native.so")
    monkeypatch.setattr(build, "why_not_sets", failed)
    finished = tilewhisper("doctor")
    assert finished.status == 0
    assert "no such symbol" in native(finished.out)[1]


def test_doctor_names_the_instruction_set_in_use_and_why_not_a_faster_one(tilewhisper, monkeypatch, tmp_path):
    reason = "the operating system does not enable avx512f"
    monkeypatch.setattr(build, "find", lambda *_: tmp_path / "native.so")
    monkeypatch.setattr(build, "why_not_sets", lambda: {"avx512": reason, "avx_vnni": "", "avx2": "", "portable": ""})
    table = tilewhisper("doctor").out.split("native kernels")[1].split("\n\n")[0]
    rows = [line.split(maxsplit=2) for line in table.splitlines() if line.split()[0].startswith("avx")]
    assert [[name, usable] for name, usable, _ in rows] == [["avx512", "no"], ["avx_vnni", "yes"]]
    assert [detail.strip() for *_, detail in rows] == [reason, "the instruction set in use"]
