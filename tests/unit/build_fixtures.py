"""Fixtures for tests of the kernels' loader: sources, caches and a stand-in for the compiler."""

import pytest
from made_builds import EXPORTED

from tilewhisper.kernels import library_cache
from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build as builds
from tilewhisper.kernels.cpu import compiler as cxx
from tilewhisper.kernels.cpu.build import Build

STAND_IN = """#!/bin/sh
case "$*" in *--version*) echo "stand-in ${version:-1}"; exit;; esac
echo "$*" >> "$0.runs"
sleep ${pause:-0}
if [ -e "$0.broken" ]; then
  echo "In file included from a:"; echo "a.cpp:1:1: error: no luck"; echo "compilation terminated."; exit 1
fi
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done
"""


@pytest.fixture
def build(tmp_path, _nothing_loaded, _no_folder_of_this_process):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "answer.h").write_text("#define ANSWER 42\n")
    (sources / "ops.cpp").write_text(f'#include "answer.h"\n{EXPORTED} int answer() {{ return ANSWER; }}\n')
    return Build(sources, cache=tmp_path / "cache" / "native", packaged=tmp_path / "prebuilt")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    script = tmp_path / "stand-in"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    return script


@pytest.fixture
def no_compiler(monkeypatch):
    """Call it to remove all compilers; ziglang, if installed, has nothing to compile for."""

    def remove() -> None:
        monkeypatch.delenv("CXX", raising=False)
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(cxx, "this_target", lambda: None)

    return remove


@pytest.fixture
def compiler(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    try:
        return cxx.find_compiler()
    except BackendUnavailable as e:
        pytest.skip(str(e))


@pytest.fixture
def _nothing_loaded(monkeypatch):
    monkeypatch.setattr(builds, "_loaded", None)


@pytest.fixture
def _no_folder_of_this_process():
    library_cache.folder_of_this_process.cache_clear()
    yield
    library_cache.folder_of_this_process.cache_clear()
