"""`tilewhisper batch`: rows of real recordings by real worker processes, whatever happens to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

FATAL = """
import multiprocessing, os, sys
def end(event, arguments):
    if event == "open" and str(arguments[0]).endswith("fatal.flac") and multiprocessing.parent_process():
        os._exit(9)
sys.addaudithook(end)
"""
"""A sitecustomize that makes every worker exit which opens fatal.flac."""


NO_RAY = "Ray is not installed: pip install 'tilewhisper[ray]'"
MEASURED = ("work_seconds", "cpu_seconds", "rtf", "workers")
"""Fields that differ from run to run."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three good recordings, one of no audio, one without bytes."""
    require_weights("tiny.en")
    audio = tmp_path / "audio"
    audio.mkdir()
    for number, name in enumerate(("a", "b", "c"), start=20):  # a file of the same bytes would have the same row
        (audio / f"{name}.flac").write_bytes(SAMPLE.read_bytes() + bytes(number))
    (audio / "corrupt.flac").write_bytes(b"no audio at all" * 100)
    (audio / "empty.flac").touch()
    return audio


def rows(output: Path) -> dict[str, dict]:
    found = [json.loads(line) for line in (output / "rows.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in found}) == len(found)
    return {Path(row["path"]).stem: row for row in found}


def workers(output: Path) -> set[str]:
    """The workers of the rows so far."""
    return {worker for row in rows(output).values() for worker in row["workers"]}


def environment(folder: Path) -> dict[str, str]:
    """That of a process whose workers exit at fatal.flac."""
    (folder / "sitecustomize.py").write_text(FATAL)
    return {**os.environ, "PYTHONPATH": str(folder)}


def same(row: dict) -> dict:
    """A row without what each run measures for itself."""
    return {key: value for key, value in row.items() if key not in MEASURED}


def test_bad_files_are_error_rows_and_everything_else_is_done(installed, folder, tmp_path):
    (folder / "fatal.flac").write_bytes(SAMPLE.read_bytes())
    command = ("batch", folder, "--output", tmp_path / "out", "--model", "tiny.en", "--format", "srt,txt")
    done = installed(*command, env=environment(tmp_path))
    assert done.status == 3, done.err
    found = rows(tmp_path / "out")
    errors = {name: row["error"] for name, row in found.items() if row["error"]}
    assert sorted(errors) == ["corrupt", "empty", "fatal"]
    assert errors["fatal"] == "its worker ended with exit code 9"
    for name in ("a", "b", "c"):
        assert SAMPLE_WORDS in found[name]["text"].lower()
        assert SAMPLE_WORDS in (tmp_path / f"out/{name}.txt").read_text().lower()
    assert len(list((tmp_path / "out").glob("*.srt"))) == 3
    assert "6 rows" in done.out
    again = installed(*command, env=environment(tmp_path))
    assert "6 done before, 0 now; 3 of the folder's rows are errors" in again.out


def test_a_job_that_was_killed_goes_on_and_has_the_rows_of_one_that_was_not(installed, folder, tmp_path):
    for number in range(12):
        (folder / f"more{number}.flac").write_bytes(SAMPLE.read_bytes() + bytes(number))
    whole = installed("batch", folder, "--output", tmp_path / "whole", "--model", "tiny.en")
    assert whole.status == 3
    command = ["batch", str(folder), "--output", str(tmp_path / "out"), "--model", "tiny.en", "--batch_size", "1"]
    process = subprocess.Popen([Path(sys.executable).with_name("tilewhisper"), *command], stderr=subprocess.DEVNULL)
    file = tmp_path / "out/rows.jsonl"
    while not file.exists() or len(file.read_bytes().splitlines()) < 4:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(rows(tmp_path / "out"))
    finished = installed(*command)
    assert f"17 rows in {tmp_path / 'out'}: {before} done before, {17 - before} now" in finished.out
    assert {name: same(row) for name, row in rows(tmp_path / "out").items()} == {
        name: same(row) for name, row in rows(tmp_path / "whole").items()
    }


def test_rows_are_what_transcribe_writes(installed, tilewhisper, folder, tmp_path):
    parts = [
        {"path": "a.flac", "prompt": "Thank you.", "language": "en"},
        {"path": "b.flac", "start": 1.0, "end": 4.0},
        {"path": "missing.flac"},
    ]
    listed = folder / "list.jsonl"
    listed.write_text("".join(f"{json.dumps(part)}\n" for part in parts))
    done = installed("batch", listed, "--output", tmp_path / "out", "--model", "tiny.en", "--format", "parquet")
    assert done.status == 3
    found = rows(tmp_path / "out")
    assert "no such file" in found["missing"]["error"].lower()
    options = ("--model", "tiny.en", "--output_format", "json", "--output_dir", tmp_path)
    tilewhisper("transcribe", folder / "a.flac", *options, "--initial_prompt", "Thank you.", "--language", "en")
    assert found["a"]["segments"] == json.loads((tmp_path / "a.json").read_text())["segments"]
    part = tmp_path / "part.wav"
    soundfile.write(part, soundfile.read(SAMPLE, dtype="float32")[0][16_000:64_000], 16_000, "FLOAT")
    tilewhisper("transcribe", part, *options)
    alone = json.loads((tmp_path / "part.json").read_text())
    assert found["b"]["text"] == alone["text"]
    assert [round(segment["start"] - 1, 3) for segment in found["b"]["segments"]] == [
        round(segment["start"], 3) for segment in alone["segments"]
    ]
    import pyarrow.parquet

    (table,) = [pyarrow.parquet.read_table(file) for file in (tmp_path / "out").glob("*.parquet")]
    assert {Path(row["path"]).stem: row["text"] for row in table.to_pylist()} == {
        name: row["text"] for name, row in found.items()
    }


def test_ray_gives_the_rows_of_local_processes(installed, folder, tmp_path):
    pytest.importorskip("ray", reason=NO_RAY)
    (folder / "fatal.flac").write_bytes(SAMPLE.read_bytes())
    command = ("batch", folder, "--model", "tiny.en", "--threads", "1")
    local = installed(*command, "--output", tmp_path / "local", env=environment(tmp_path))
    on_ray = installed(*command, "--output", tmp_path / "ray", "--address", "local", env=environment(tmp_path))
    assert (local.status, on_ray.status) == (3, 3), on_ray.err
    assert {name: same(row) for name, row in rows(tmp_path / "ray").items()} == {
        name: same(row) for name, row in rows(tmp_path / "local").items()
    }


def test_a_job_on_two_nodes_of_which_one_is_killed_has_all_rows(folder, tmp_path):
    cluster_utils = pytest.importorskip(
        "ray.cluster_utils", reason="Ray is not installed: pip install 'tilewhisper[ray]'"
    )
    for number in range(120):
        (folder / f"more{number}.flac").write_bytes(SAMPLE.read_bytes() + bytes(number))
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        program = Path(sys.executable).with_name("tilewhisper")
        command = [program, "batch", folder, "--output", tmp_path / "out", "--model", "tiny.en", "--threads", "1"]
        process = subprocess.Popen([*command, "--address", cluster.address], stderr=subprocess.PIPE, text=True)
        file = tmp_path / "out/rows.jsonl"
        while not file.exists() or len(workers(tmp_path / "out")) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        cluster.remove_node(second, allow_graceful=False)
        _, err = process.communicate(timeout=200)
    finally:
        cluster.shutdown()
    assert process.returncode == 3, err  # for the two recordings that cannot be read
    assert len(rows(tmp_path / "out")) == 125
    assert sum(row["error"] is not None for row in rows(tmp_path / "out").values()) == 2


def test_a_worker_ends_with_the_process_that_started_it():
    """So a lost node, whose raylet and actors are killed, keeps no model in memory."""
    require_weights("tiny.en")
    starts = """
import time
from tilewhisper.engine.bulk.worker import Worker
from tilewhisper.engine.bulk.work import WorkerSettings
worker = Worker(WorkerSettings("tiny.en", "torch", threads=1))
print("started", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", starts], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "started\n"
    process.kill()
    process.communicate(timeout=20)  # the worker has the same output, which is open until it ends


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nothing/*.flac"], "nothing/*.flac: no recording is found there"),
        (["missing.jsonl"], "missing.jsonl: cannot be read: No such file or directory"),
        (["a.flac", "--model", "missing"], "missing"),
        (["a.flac", "--policy", "missing"], "missing"),
        (["a.flac", "--format", "pdf"], "unknown format 'pdf'; choose from jsonl, parquet, files, txt"),
        (["a.flac", "--workers", "0"], "must be a whole number >= 1, got '0'"),
        (["a.flac", "--beam_size", "0"], "beam_size"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_line(tilewhisper, tmp_path, arguments, problem):
    done = tilewhisper("batch", *arguments, "--output", tmp_path / "out")
    assert done.status == 2
    assert problem in done.err
    assert "Traceback" not in done.err


def test_a_cluster_that_does_not_answer_is_one_line(tilewhisper, folder, tmp_path):
    pytest.importorskip("ray", reason=NO_RAY)
    done = tilewhisper("batch", folder, "--output", tmp_path / "out", "--model", "tiny.en", "--address", "127.0.0.1:9")
    assert done.errors == [
        "tilewhisper: error: the Ray cluster at 127.0.0.1:9 cannot be reached: Connection refused; start it, or leave "
        "--address out to work on this machine"
    ]
