"""Compilers of the native kernels: none, a failing one, zig, and the flags of each unit.

The tests of the flags use the machine's compiler.
"""

import ctypes
import hashlib
import platform
import re
import sys
from dataclasses import replace

import pytest
import torch
from made_builds import EXPORTED, links, warnings

from tilewhisper.kernels.base import BackendUnavailable
from tilewhisper.kernels.cpu import build as builds
from tilewhisper.kernels.cpu import compiler as cxx
from tilewhisper.kernels.cpu.targets import TARGETS

pytest_plugins = ["build_fixtures"]


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
    assert re.match(r"zig \d", found.version)


def test_asking_zig_for_its_version_leaves_no_file(monkeypatch, tmp_path):
    pytest.importorskip("ziglang", reason="ziglang is missing: pip install 'tilewhisper[compiler]'")
    monkeypatch.chdir(tmp_path)
    for target in TARGETS:
        cxx.zig_compiler(target)
    assert list(tmp_path.iterdir()) == []


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
    assert (first.answer(), ctypes.CDLL(str(builds.library(replace(build)))).answer()) == (42, 43)


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
