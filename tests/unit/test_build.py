"""The loader of the native kernels: its cache, its messages, damaged files and failing compilers.

Most tests replace the compiler by a shell script, and need none; those of the flags use the machine's compiler.
"""

import ctypes
import errno
import hashlib
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tilewhisper.kernels import library_cache
from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build as builds
from tilewhisper.kernels.cpu import compiler as cxx
from tilewhisper.kernels.cpu.build import Build
from tilewhisper.kernels.cpu.targets import TARGETS

STAND_IN = """#!/bin/sh
case "$*" in *--version*) echo "stand-in ${version:-1}"; exit;; esac
echo "$*" >> "$0.runs"
sleep ${pause:-0}
if [ -e "$0.broken" ]; then
  echo "In file included from a:"; echo "a.cpp:1:1: error: no luck"; echo "compilation terminated."; exit 1
fi
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done
"""

EXPORTED = 'extern "C" __attribute__((visibility("default")))'


@pytest.fixture
def build(tmp_path):
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


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch):
    monkeypatch.setattr(builds, "_loaded", None)


@pytest.fixture(autouse=True)
def _no_folder_of_this_process():
    library_cache.folder_of_this_process.cache_clear()
    yield
    library_cache.folder_of_this_process.cache_clear()


def links(script: Path) -> int:
    """How many libraries the stand-in has linked."""
    runs = script.with_name(f"{script.name}.runs")
    return runs.read_text().count("-shared") if runs.exists() else 0


def warnings(caplog) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def another_process(build: Build, **options) -> "subprocess.Popen[str]":
    code = (
        "import sys; from pathlib import Path; from tilewhisper.kernels.cpu.build import Build, library\n"
        "sources, cache = map(Path, sys.argv[1:]); print(library(Build(sources, cache=cache)))"
    )
    command = [sys.executable, "-c", code, str(build.sources), str(build.cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


# ---------------------------------------------------------------- the cache


def test_the_library_is_built_once_with_a_message(build, stand_in, caplog):
    assert builds.find(build) is None
    path = builds.library(build)
    assert path.parent == build.cache
    assert path.read_text() == "made\n"
    assert "compiling tilewhisper's native kernels" in warnings(caplog)
    caplog.clear()
    assert builds.library(build) == builds.find(build) == path
    assert links(stand_in) == 1
    assert warnings(caplog) == ""


def test_force_builds_again(build, stand_in):
    assert builds.library(build) == builds.library(build, force=True)
    assert links(stand_in) == 2


def test_everything_the_library_depends_on_changes_its_name(build, stand_in, monkeypatch):
    names = [builds.library(build).name]

    def another_name() -> bool:
        names.append(builds.library(build).name)
        return len(set(names)) == len(names)

    (build.sources / "answer.h").write_text("#define ANSWER 43\n")
    assert another_name(), "a header"
    (build.sources / "more.cpp").touch()
    assert another_name(), "a new unit"
    monkeypatch.setenv("version", "2")
    cxx._ask_version.cache_clear()
    assert another_name(), "the compiler's version"
    build = replace(build, machine="riscv64")
    assert another_name(), "the architecture"
    build = replace(build, system="freebsd")
    assert another_name(), "the system"
    build = replace(build, extra_flags=("-g",))
    assert another_name(), "a flag"
    assert links(stand_in) == len(names)
    cxx._ask_version.cache_clear()


def test_text_that_moves_between_sources_changes_the_name(build):
    (build.sources / "b.h").write_text("12")
    (build.sources / "c.h").write_text("3")
    before = build.stem
    (build.sources / "b.h").write_text("1")
    (build.sources / "c.h").write_text("23")
    assert build.stem != before


def test_a_source_edited_during_compilation_is_compiled_again(build, stand_in, monkeypatch):
    def compile_and_edit(*arguments):
        made = compile_library(*arguments)
        (build.sources / "answer.h").write_text("#define ANSWER 43\n")
        return made

    compile_library = cxx.compile_library
    monkeypatch.setattr(cxx, "compile_library", compile_and_edit)
    assert builds.library(build)
    assert builds.find(build) is None


@pytest.mark.parametrize("contents", [b"", b"mad", b"a text, no library", b"made\nand more"])
def test_a_damaged_file_is_replaced(build, stand_in, caplog, contents):
    path = builds.library(build)
    path.write_bytes(contents)
    assert builds.find(build) is None
    caplog.clear()
    assert builds.library(build).read_text() == "made\n"
    assert f"{path} is damaged" in warnings(caplog)


def test_only_the_oldest_libraries_are_deleted(build, stand_in):
    build.cache.mkdir(parents=True)
    for name in ("notes.txt", "native.so", "other-1.so"):
        (build.cache / name).touch()
    built = []
    for number in range(builds.MAX_CACHED + 2):
        built.append(builds.library(replace(build, extra_flags=(f"-D{number}",))))
        os.utime(built[-1], (number, number))
    assert {path.name for path in build.cache.iterdir()} == {
        "lock", "notes.txt", "native.so", "other-1.so", *(path.name for path in built[-builds.MAX_CACHED :])
    }  # fmt: skip


def test_a_built_cache_works_without_a_compiler(build, stand_in, no_compiler):
    path = builds.library(build)
    no_compiler()
    assert builds.library(build) == path
    assert builds.why_unavailable(build) is None
    (build.sources / "answer.h").write_text("#define ANSWER 43\n")
    assert "no C++ compiler" in builds.why_unavailable(build)


def test_a_cache_that_cannot_be_written_is_replaced_for_the_process(build, stand_in, caplog):
    build.cache.parent.mkdir()
    build.cache.write_text("a file where the folder should be")
    path = builds.library(build)
    assert path.read_text() == "made\n"
    assert warnings(caplog).count(f"{build.cache} cannot be written (") == 1
    assert builds.library(build) == path
    assert links(stand_in) == 1
    assert build.cache.is_file()


def test_a_full_disk_leaves_no_incomplete_file(build, stand_in, caplog, monkeypatch):
    def copy(source, target):
        if target.is_relative_to(build.cache):
            target.write_text("ma")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return copyfile(source, target)

    copyfile = shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", copy)
    assert builds.library(build).read_text() == "made\n"
    assert "No space left" in warnings(caplog)
    assert links(stand_in) == 1
    assert [path.name for path in build.cache.iterdir()] == ["lock"]


def test_the_folder_of_a_process_is_deleted_with_it(build, stand_in):
    build.cache.parent.mkdir()
    build.cache.touch()
    out, err = another_process(build).communicate(timeout=30)
    assert out.strip(), err
    assert not Path(out.strip()).parent.exists()
    assert "cannot be written" in err, "Python prints warnings without any set-up"


# ---------------------------------------------------------------- a wheel's library


@pytest.fixture
def wheels_library(build, stand_in, no_compiler):
    """A library in the package; the compiler is gone."""
    made = builds.library(build)
    build.packaged.mkdir()
    packaged = made.rename(build.packaged / made.name)
    no_compiler()
    return packaged


def test_a_wheels_library_needs_no_compiler(build, wheels_library):
    assert builds.library(build) == builds.find(build) == wheels_library
    assert builds.why_unavailable(build) is None
    assert not list(build.cache.glob("native-*"))


def test_a_wheels_library_of_other_sources_is_not_used(build, wheels_library):
    (build.sources / "answer.h").write_text("#define ANSWER 43\n")
    assert builds.find(build) is None
    assert "no C++ compiler" in builds.why_unavailable(build)


def test_a_damaged_wheels_library_is_not_used(build, wheels_library):
    wheels_library.write_text("mad")
    assert builds.find(build) is None


def test_a_wheels_library_that_does_not_load_is_compiled(build, compiler, caplog):
    made = builds.library(build)
    build.packaged.mkdir()
    foreign = b"\x7fELF of a machine unknown"
    digest = hashlib.sha256(foreign).hexdigest()[:16]
    (build.packaged / f"{made.stem.rpartition('-')[0]}-{digest}.so").write_bytes(foreign)
    assert builds.load(build) == made
    assert "of the wheel cannot be loaded" in warnings(caplog)


# ---------------------------------------------------------------- processes and threads


def test_concurrent_processes_build_once(build, stand_in):
    processes = [another_process(build, env={**os.environ, "pause": "0.2"}) for _ in range(2)]
    ends = [process.communicate(timeout=30) for process in processes]
    (path,) = {out.strip() for out, _ in ends}
    assert Path(path).read_text() == "made\n"
    assert links(stand_in) == 1
    assert sum("compiling" in err and "another process" not in err for _, err in ends) == 1


def test_a_killed_builder_blocks_no_other(build, stand_in):
    killed = another_process(build, env={**os.environ, "pause": "20"}, start_new_session=True)
    try:
        runs = stand_in.with_name(f"{stand_in.name}.runs")
        deadline = time.monotonic() + 20
        while not runs.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        killed.kill()  # its compiler continues
        killed.wait(timeout=10)
        (build.cache / "native-0.part").write_text("ma")
        assert builds.library(build).read_text() == "made\n"
        assert sorted(path.suffix for path in build.cache.iterdir()) == ["", ".so"]
        assert os.killpg(killed.pid, 0) is None, "the compiler had ended before the test"
    finally:
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()


def test_concurrent_threads_load_one_library(build, compiler):
    with ThreadPoolExecutor(4) as pool:
        loaded = set(pool.map(builds.load, [build] * 4))
    assert len(loaded) == 1
    assert builds.load(replace(build, extra_flags=("-g",))) in loaded, "a process has one set of operators"


# ---------------------------------------------------------------- no compiler, or a failing compiler


def test_a_missing_compiler_is_reported(build, no_compiler):
    no_compiler()
    reason = builds.why_unavailable(build)
    assert "none of g++, clang++, c++ is on PATH" in reason
    assert "apt install g++" in reason
    with pytest.raises(BackendUnavailable, match=r"no C\+\+ compiler"):
        builds.load(build)
    assert not build.cache.exists()


def test_zig_compiles_where_there_is_no_other_compiler(monkeypatch):
    """For every machine of this kind: without a processor, zig would use all instructions of this one."""
    pytest.importorskip("ziglang", reason="ziglang is missing: pip install 'tilewhisper[compiler]'")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    found = cxx.find_compiler()
    assert found.command[:5] == (sys.executable, "-m", "ziglang", "c++", "-target")
    assert any(argument.startswith("-mcpu=") for argument in found.command)
    assert found.version.startswith("clang version")


def test_flags_of_gcc_are_translated_for_zig():
    windows, arm = (
        next(each for each in TARGETS if each.wheel == wheel) for wheel in ("win_amd64", "manylinux_2_28_aarch64")
    )
    assert windows.zig_flags(("-O3", "-fPIC", "-mavx2")) == ("-O3", "-mavx2")
    assert arm.zig_flags(("-fPIC", "-march=armv8.6-a+i8mm")) == ("-fPIC", "-mcpu=generic+i8mm")


def test_a_missing_compiler_in_cxx_has_no_substitute(build, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -m64")
    assert "'no-such-compiler' in CXX was not found" in builds.why_unavailable(build)


def test_a_compiler_that_does_not_start_is_reported(build, monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    assert f"{broken} does not work" in builds.why_unavailable(build)


def test_a_failed_build_is_reported_and_repeated_on_request_only(build, stand_in):
    broken = stand_in.with_name(f"{stand_in.name}.broken")
    broken.touch()
    with pytest.raises(BackendUnavailable) as failed:
        builds.library(build)
    (log,) = build.cache.glob("*.log")
    assert "could not be compiled: a.cpp:1:1: error: no luck" in str(failed.value)
    assert str(log) in str(failed.value)
    assert "\n" not in str(failed.value)
    assert "In file included from a:" in log.read_text()
    assert "-std=c++20" in log.read_text(), "the command"
    reason = builds.why_unavailable(build)
    assert "error: no luck" in reason
    assert "`tilewhisper build` tries again" in reason
    broken.unlink()
    assert builds.library(build)
    assert builds.why_unavailable(build) is None
    assert not log.exists()


def test_a_file_that_does_not_load_is_replaced(build, compiler, caplog):
    """Such as a library of another system, with the right digest."""
    good = builds.library(build)
    foreign = b"\x7fELF of a machine unknown"
    digest = hashlib.sha256(foreign).hexdigest()[:16]
    good.rename(good.with_name(f"{good.stem.rpartition('-')[0]}-{digest}.so")).write_bytes(foreign)
    caplog.clear()
    loaded = builds.load(build)
    assert ctypes.CDLL(str(loaded)).answer() == 42
    assert "cannot be loaded" in warnings(caplog)
    assert list(build.cache.glob("*.so")) == [loaded]


def test_a_library_that_never_loads_is_an_error(build, stand_in):
    with pytest.raises(BackendUnavailable, match=r"cannot be loaded: .*file too short"):
        builds.load(build)
    assert links(stand_in) == 2


# ---------------------------------------------------------------- flags


def test_a_changed_source_runs(build, compiler):
    first = ctypes.CDLL(str(builds.library(build)))
    (build.sources / "answer.h").write_text("#define ANSWER 43\n")
    assert (first.answer(), ctypes.CDLL(str(builds.library(build))).answer()) == (42, 43)


def test_arguments_in_cxx_are_passed_to_the_compiler(build, compiler, monkeypatch):
    monkeypatch.setenv("CXX", f"{compiler.command[0]} -DANSWER_TOO=1")
    (build.sources / "ops.cpp").write_text(f"{EXPORTED} int answer() {{ return ANSWER_TOO; }}\n")
    assert ctypes.CDLL(str(builds.library(build))).answer() == 1


@pytest.mark.skipif(platform.machine() not in cxx.INSTRUCTION_SETS, reason="no instruction sets to choose from")
def test_each_unit_has_its_own_instructions(build, compiler):
    def requires(yes: str, *no: str) -> str:
        conditions = " && ".join((f"defined({yes})", *(f"!defined({macro})" for macro in no)))
        return f"#if !({conditions})\n#error wrong flags\n#endif\n"

    (build.sources / "ops.cpp").write_text(
        requires("TILEWHISPER_AVX512", "__AVX2__") + requires("TILEWHISPER_AVX2", "__AVX512F__")
    )
    (build.sources / "isa_portable.cpp").write_text(requires("__x86_64__", "__AVX__"))
    (build.sources / "isa_avx2.cpp").write_text(requires("__FMA__", "__AVX512F__") + requires("__AVX2__"))
    (build.sources / "isa_avx_vnni.cpp").write_text(requires("__AVXVNNI__", "__AVX512F__"))
    (build.sources / "isa_avx512.cpp").write_text(requires("__AVX512VNNI__") + requires("__AVX512BW__"))
    assert builds.library(build)


def test_other_architectures_compile_the_portable_unit_only(build):
    for name in ("portable", "avx2", "avx512"):
        (build.sources / f"isa_{name}.cpp").touch()
    flags = replace(build, machine="riscv64").units
    assert {unit.name for unit in flags} == {"ops.cpp", "isa_portable.cpp"}
    assert not any("AVX" in flag for its_own in flags.values() for flag in its_own)


def test_every_instruction_set_has_a_unit_and_every_unit_flags():
    sets = {name for of_machine in cxx.INSTRUCTION_SETS.values() for name in of_machine}
    units = {unit.stem.removeprefix("isa_") for unit in builds.SOURCES.glob("isa_*.cpp")}
    assert units == {"portable", *sets}


def test_an_operator_of_the_stable_abi_runs_on_torchs_threads(build, compiler):
    (build.sources / "ops.cpp").write_text("""
        #include <torch/csrc/stable/library.h>
        #include <torch/csrc/stable/ops.h>
        #include <torch/csrc/stable/tensor.h>
        torch::stable::Tensor threads(torch::stable::Tensor x) {
            auto y = torch::stable::empty_like(x);
            auto* to = static_cast<float*>(y.data_ptr());
            torch::stable::parallel_for(0, x.numel(), 1, [&](int64_t first, int64_t last) {
                uint32_t thread = 0;
                torch_get_thread_idx(&thread);
                for (; first < last; ++first) to[first] = thread;
            });
            return y;
        }
        STABLE_TORCH_LIBRARY(tilewhisper_test, m) { m.def("threads(Tensor x) -> Tensor"); }
        STABLE_TORCH_LIBRARY_IMPL(tilewhisper_test, CPU, m) { m.impl("threads", TORCH_BOX(&threads)); }
    """)
    builds.load(replace(build, extra_flags=("-O0",)))
    used = torch.ops.tilewhisper_test.threads(torch.zeros(64))
    assert set(used.tolist()) == set(range(torch.get_num_threads()))
