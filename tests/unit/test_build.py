"""The loader of the native kernels: its cache, its messages, and the library of a wheel.

Most tests replace the compiler by a shell script, and need none.
"""

import errno
import hashlib
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from made_builds import another_process, links, warnings

from tilewhisper.kernels.cpu import build as builds
from tilewhisper.kernels.cpu import compiler as cxx

pytest_plugins = ["build_fixtures"]


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
        names.append(builds.library(replace(build)).name)  # which reads the sources again
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
    assert replace(build).stem != before == build.stem


def test_a_source_edited_during_compilation_is_compiled_again(build, stand_in, monkeypatch):
    def compile_and_edit(*arguments):
        made = compile_library(*arguments)
        (build.sources / "answer.h").write_text("#define ANSWER 43\n")
        return made

    compile_library = cxx.compile_library
    monkeypatch.setattr(cxx, "compile_library", compile_and_edit)
    assert builds.library(build)
    assert builds.find(replace(build)) is None


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
    assert "no C++ compiler" in builds.why_unavailable(replace(build))


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
    build = replace(build)
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
