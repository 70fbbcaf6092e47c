"""Bulk transcription without a model: inputs, manifests, cuts, the output folder, and rounds of work."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from made_audio import SAMPLE

from tilewhisper.engine.bulk import local, spans
from tilewhisper.engine.bulk.files import content_of
from tilewhisper.engine.bulk.folder import OutputFolder
from tilewhisper.engine.bulk.formats import TranscriptFiles
from tilewhisper.engine.bulk.inputs import items_of
from tilewhisper.engine.bulk.job import BulkJob
from tilewhisper.engine.bulk.parquet import ParquetFiles
from tilewhisper.engine.bulk.rows import Row
from tilewhisper.engine.bulk.work import Answer, Content, Item, Span, SpanResult, Task, WorkerSettings, lost
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.subtitles import PLAIN
from tilewhisper.models.errors import AudioError

RATE = 16_000
MADE_WITH = {"model": "tiny.en"}


def manifest(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def recordings(folder: Path, *names: str) -> list[Path]:
    """Copies of the sample, each with bytes of its own at the end so that no two are equal."""
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(SAMPLE.read_bytes() + bytes(number + 1))
    return paths


def result(span: Span, text: str = "", **fields: object) -> SpanResult:
    segment = {"id": 0, "seek": 0, "start": span.start, "end": span.start + 1, "text": text or f" {span.item.path}"}
    return SpanResult(span, [segment], "en", 1.0, audio_seconds=1.0, work_seconds=0.5, **fields)


def whole_of(item: Item) -> Span:
    return Span(item, content_of(item.path, Path(item.path)), item.start, item.end)


class StandIn:
    """Workers that answer at once; `answers` has the answer of a path, or several for its tries."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers
        self.asked: list[tuple[str, bool]] = []

    def run(self, tasks: Sequence[Task], *, alone: bool = False) -> Iterator[Answer]:
        for task in tasks:
            item = task.item if isinstance(task, Span) else task
            self.asked.append((Path(item.path).stem, alone))
            answer = self._answers.get(Path(item.path).stem, "text")
            if answer == "dies" or (answer == "dies together" and not alone):
                yield lost(task, "its worker ended with exit code 9")
            elif isinstance(task, Span):
                yield result(task)
            elif answer == "long":
                content = content_of(item.path, Path(item.path))
                yield tuple(Span(item, content, 60.0 * i, 60.0 * (i + 1), i, 3) for i in range(3))
            else:
                yield result(whole_of(item))


def run(folder: Path, items: Sequence[Item], runner: StandIn, **options: object) -> list[dict[str, Any]]:
    with closing(OutputFolder(folder, MADE_WITH)) as output:
        job = BulkJob(output, [], lambda row, progress: None)
        job.run(output.unfinished(items, **options).items, runner)
        job.finish()
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


class TestInputs:
    def test_files_folders_patterns_and_manifests_are_read_each_item_once(self, tmp_path):
        a, b, c = recordings(tmp_path, "a.flac", "in/b.flac", "in/deep/c.flac")
        (tmp_path / "in/notes.txt").write_text("no recording")
        listed = manifest(tmp_path / "list.jsonl", {"path": "in/b.flac", "language": "de"}, {"path": str(a)})
        items, notes = items_of([str(a), str(tmp_path / "in"), str(tmp_path / "**/*.flac"), listed])
        assert sorted(Path(item.path) for item in items) == sorted([a, b, b, c])
        assert [item.options for item in items if item.language] == [{"language": "de"}]
        assert "4 of the rows and files were named more than once" in notes[0]

    def test_rows_of_parquet_are_rows_of_json(self, tmp_path):
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet")
        rows = [{"path": "a.flac", "start": 1.5, "end": None, "task": "translate"}, {"path": "b.flac"}]
        pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "list.parquet")
        assert items_of([str(tmp_path / "list.parquet")]) == items_of([manifest(tmp_path / "list.jsonl", *rows)])

    def test_columns_without_effect_are_named(self, tmp_path):
        _, notes = items_of([manifest(tmp_path / "list.jsonl", {"path": "a.flac", "langauge": "de"})])
        assert "columns without effect: langauge; those with one are path, start, end, language" in notes[0]

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ({"file": "a.flac"}, 'line 1 has no path; a row is an object such as {"path"'),
            ({"path": ""}, "line 1 has no path"),
            ({"path": 3}, "path must be text, got 3"),
            (["a.flac"], "line 1 must be an object such as"),
            ({"path": "a", "start": -1}, "0 <= start < end, got -1 and None"),
            ({"path": "a", "start": 5, "end": 5.0}, "0 <= start < end, got 5 and 5.0"),
            ({"path": "a", "end": "10"}, "end must be seconds, got '10'"),
            ({"path": "a", "start": float("nan")}, "0 <= start < end, got nan"),
            ({"path": "a", "start": 10**400}, "0 <= start < end, got inf"),
            ({"path": "a", "end": float("inf")}, "0 <= start < end, got 0 and inf"),
            ({"path": "a", "task": "sing"}, "line 1: task"),
        ],
    )
    def test_a_bad_row_is_refused_with_its_place(self, tmp_path, row, problem):
        with pytest.raises(OptionError, match=r"list\.jsonl") as error:
            items_of([manifest(tmp_path / "list.jsonl", row)])
        assert problem in str(error.value)

    def test_a_damaged_parquet_file_is_refused(self, tmp_path):
        pytest.importorskip("pyarrow.parquet")
        (tmp_path / "list.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(OptionError, match=r"list\.parquet: cannot be read: not Parquet, or damaged"):
            items_of([str(tmp_path / "list.parquet")])

    @pytest.mark.parametrize("content", ["", "{", "\n", "[" * 100_000])
    def test_a_manifest_without_rows_is_refused(self, tmp_path, content):
        (tmp_path / "list.jsonl").write_text(content)
        with pytest.raises(OptionError, match=r"list.jsonl: (has no rows|line 1 is no JSON)"):
            items_of([str(tmp_path / "list.jsonl")])

    def test_what_names_nothing_is_refused(self, tmp_path):
        with pytest.raises(OptionError, match="no recording is found there"):
            items_of([str(tmp_path / "*.flac")])
        with pytest.raises(AudioError, match="is a directory without audio"):
            items_of([str(tmp_path)])
        with pytest.raises(OptionError, match=r"list.jsonl: cannot be read: No such file"):
            items_of([str(tmp_path / "list.jsonl")])


class TestSpans:
    @pytest.fixture
    def talk(self, tmp_path) -> Path:
        """100 s of noise with silence from 32 to 33 s and from 70.2 to 71.2 s."""
        samples = np.random.default_rng(0).normal(0, 0.1, 100 * RATE)
        for start in (32.0, 70.2):
            samples[round(start * RATE) : round((start + 1) * RATE)] = 0
        path = tmp_path / "talk.flac"
        soundfile.write(path, samples, RATE)
        return path

    def of(self, path: Path, seconds: float, **part: float) -> list[tuple[float, float | None]]:
        item = Item(str(path), **part)
        found = spans.spans_of(item, content_of(item.path, path), path, seconds)
        assert [(span.number, span.of) for span in found] == [(i, len(found)) for i in range(len(found))]
        return [(span.start, span.end) for span in found]

    def test_a_long_recording_is_cut_in_its_silences(self, talk):
        (_, first), (second, third), (last, end) = self.of(talk, 33)
        assert (first, third, end) == (second, last, None)
        assert 32.2 < first < 32.8
        assert 70.4 < third < 71

    def test_a_part_is_cut_within_its_times(self, talk):
        assert self.of(talk, 20, start=50.0, end=90.0) == [(50.0, 70.45), (70.45, 90.0)]

    def test_a_short_one_is_not_cut(self, talk):
        assert self.of(talk, 70) == [(0.0, None)]

    def test_cuts_have_a_limit(self, talk):
        assert len(self.of(talk, 1)) == spans.MOST_SPANS


class TestRounds:
    def test_every_item_has_one_row(self, tmp_path):
        items = [Item(str(path)) for path in recordings(tmp_path, "a.flac", "b.flac")]
        rows = run(tmp_path / "out", items, StandIn())
        assert [(row["path"], row["text"], row["error"]) for row in rows] == [
            (item.path, f" {item.path}", None) for item in items
        ]

    def test_what_was_in_a_worker_that_died_is_tried_again_alone(self, tmp_path):
        items = [Item(str(path)) for path in recordings(tmp_path, "bad.flac", "good.flac", "near.flac")]
        runner = StandIn(bad="dies", near="dies together")
        rows = {Path(row["path"]).stem: row for row in run(tmp_path / "out", items, runner)}
        assert runner.asked == [*((name, False) for name in ("bad", "good", "near")), ("bad", True), ("near", True)]
        assert rows["bad"]["error"] == "its worker ended with exit code 9"
        assert (rows["good"]["error"], rows["near"]["error"]) == (None, None)

    def test_the_spans_of_a_long_item_are_one_row_in_order(self, tmp_path):
        (path,) = recordings(tmp_path, "talk.flac")
        (row,) = run(tmp_path / "out", [Item(str(path))], StandIn(talk="long"))
        assert [(segment["id"], segment["start"]) for segment in row["segments"]] == [(0, 0.0), (1, 60.0), (2, 120.0)]
        assert (row["text"], row["seconds"], row["rtf"]) == (f" {path}" * 3, 3.0, 0.5)

    def test_a_job_goes_on_with_the_spans_that_are_missing(self, tmp_path):
        (path,) = recordings(tmp_path, "talk.flac")

        class Ends(StandIn):
            def run(self, tasks, *, alone=False):
                for number, answer in enumerate(super().run(tasks, alone=alone)):
                    if number == 2:
                        raise KeyboardInterrupt
                    yield answer

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", [Item(str(path))], Ends(talk="long"))
        again = StandIn(talk="long")
        (row,) = run(tmp_path / "out", [Item(str(path))], again)
        assert again.asked == [("talk", False)] * 2  # its cuts, and the third span
        assert [segment["start"] for segment in row["segments"]] == [0.0, 60.0, 120.0]
        assert (tmp_path / "out/spans.jsonl").read_text() == ""


class TestFolder:
    def test_what_is_done_is_not_done_again(self, tmp_path):
        items = [Item(str(path)) for path in recordings(tmp_path, "a.flac", "b.flac")]
        run(tmp_path / "out", items[:1], StandIn())
        again = StandIn()
        assert len(run(tmp_path / "out", items, again)) == 2
        assert again.asked == [("b", False)]

    def test_a_file_that_changed_is_done_again_and_has_one_row(self, tmp_path):
        (path,) = recordings(tmp_path, "a.flac")
        (before,) = run(tmp_path / "out", [Item(str(path))], StandIn())
        path.write_bytes(path.read_bytes() + b"more")
        (after,) = run(tmp_path / "out", [Item(str(path))], again := StandIn())
        assert (again.asked, before["sha256"] != after["sha256"]) == ([("a", False)], True)

    def test_a_file_that_moved_or_was_touched_is_not_done_again(self, tmp_path):
        a, b = recordings(tmp_path, "a.flac", "b.flac")
        run(tmp_path / "out", [Item(str(a)), Item(str(b))], StandIn())
        os.utime(a, (1, 1))
        moved = shutil.move(b, tmp_path / "moved.flac")
        rows = run(tmp_path / "out", [Item(str(a)), Item(str(moved))], again := StandIn())
        assert again.asked == []
        assert {row["path"]: row["text"] for row in rows}[str(moved)] == f" {b}"

    def test_other_options_of_a_row_are_other_work(self, tmp_path):
        (path,) = recordings(tmp_path, "a.flac")
        run(tmp_path / "out", [Item(str(path))], StandIn())
        rows = run(tmp_path / "out", [Item(str(path), language="de"), Item(str(path), end=2.0)], StandIn())
        assert len({row["id"] for row in rows}) == 3

    def test_errors_are_tried_again_when_asked(self, tmp_path):
        items = [Item(str(path)) for path in recordings(tmp_path, "a.flac", "b.flac")]
        run(tmp_path / "out", items, StandIn(a="dies"))
        again = StandIn()
        assert any(row["error"] for row in run(tmp_path / "out", items, again))
        assert again.asked == []
        assert not any(row["error"] for row in run(tmp_path / "out", items, again, retry_errors=True))
        assert again.asked == [("a", False)]

    def test_a_name_of_other_bytes_than_utf8_is_done_once_and_is_in_parquet(self, tmp_path):
        pa = pytest.importorskip("pyarrow.parquet")
        path = tmp_path / os.fsdecode(b"bad\xff.flac")
        try:
            path.write_bytes(SAMPLE.read_bytes())
        except OSError:
            pytest.skip("the file system takes UTF-8 names only")
        items = [Item(str(path), prompt="\ud800")]
        (row,) = run(tmp_path / "out", items, StandIn())
        assert row["path"] == str(path)
        run(tmp_path / "out", items, again := StandIn())
        assert again.asked == []
        ParquetFiles(tmp_path).finish([Row.from_json({**row, "text": "", "segments": []})])
        (row,) = pa.read_table(tmp_path / "rows-00000.parquet").to_pylist()
        assert (row["path"], row["asked"]) == (str(tmp_path / "bad?.flac"), [None, None, "?"])

    def test_a_name_that_no_file_can_have_is_work_whose_answer_is_an_error(self, tmp_path):
        with closing(OutputFolder(tmp_path / "out", MADE_WITH)) as output:
            (item,) = output.unfinished([Item("a\0b.flac")]).items
        with pytest.raises(AudioError, match="null"):
            content_of(item.path, Path(item.path))

    def test_a_line_that_a_crash_cut_short_is_removed(self, tmp_path):
        items = [Item(str(path)) for path in recordings(tmp_path, "a.flac", "b.flac")]
        run(tmp_path / "out", items, StandIn())
        rows = tmp_path / "out/rows.jsonl"
        whole = rows.read_bytes()
        rows.write_bytes(whole[:-30])
        run(tmp_path / "out", items, again := StandIn())
        assert again.asked == [("b", False)]
        assert rows.read_bytes() == whole

    def test_a_full_disk_leaves_whole_lines(self, tmp_path):
        resource = pytest.importorskip("resource")
        items = [Item(str(path)) for path in recordings(tmp_path, "a.flac", "b.flac")]
        run(tmp_path / "out", items[:1], StandIn())
        rows = tmp_path / "out/rows.jsonl"
        size = rows.stat().st_size
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        import signal

        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
        try:
            with pytest.raises(OptionError, match=r"cannot write .*rows.jsonl: File too large"):
                run(tmp_path / "out", items, StandIn())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, before)
        assert rows.stat().st_size == size

    def test_a_folder_that_was_made_with_other_options_is_refused(self, tmp_path):
        (path,) = recordings(tmp_path, "a.flac")
        run(tmp_path / "out", [Item(str(path))], StandIn())
        with pytest.raises(OptionError, match=r"was made with model tiny\.en, not base"):
            OutputFolder(tmp_path / "out", {"model": "base"})

    def test_a_folder_without_rows_may_be_used_with_other_options(self, tmp_path):
        OutputFolder(tmp_path / "out", {"model": "base"}).close()
        OutputFolder(tmp_path / "out", MADE_WITH).close()

    def test_two_jobs_cannot_use_a_folder_at_once(self, tmp_path):
        with closing(OutputFolder(tmp_path, MADE_WITH)), pytest.raises(OptionError, match="in use by another job"):
            OutputFolder(tmp_path, MADE_WITH)

    def test_a_folder_that_cannot_be_made_is_refused(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(OptionError, match="cannot write the folder"):
            OutputFolder(tmp_path / "file/out", MADE_WITH)

    @pytest.mark.parametrize("damage", ["{half", "3", '{"id": "an other layout"}', '{"span": {}}'])
    @pytest.mark.parametrize("name", ["rows", "spans"])
    def test_a_damaged_line_is_named(self, tmp_path, name, damage):
        a, b = recordings(tmp_path, "a.flac", "b.flac")
        run(tmp_path / "out", [Item(str(a))], StandIn())
        with (tmp_path / f"out/{name}.jsonl").open("a") as lines:
            lines.write(f"{damage}\n")
        with pytest.raises(OptionError, match=rf"{name}\.jsonl: line \d is damaged"):
            run(tmp_path / "out", [Item(str(b))], StandIn())


class TestFiles:
    def test_files_are_named_as_the_recordings_below_their_common_folder(self, tmp_path):
        recordings(tmp_path, "x/a.flac", "y/a.mp3")
        items = [Item(str(tmp_path / "x/a.flac")), Item(str(tmp_path / "y/a.mp3"), 1.5, 3.0)]
        form = TranscriptFiles(tmp_path / "out", items, ["txt", "srt"], PLAIN)
        assert [path for item in items for path in form.paths(item.id)] == [
            tmp_path / "out/x/a.txt",
            tmp_path / "out/x/a.srt",
            tmp_path / "out/y/a.1.5-3.txt",
            tmp_path / "out/y/a.1.5-3.srt",
        ]

    @pytest.mark.parametrize("url", ["file:///x/a.flac", "s3://x/a.flac", "s3://../../x/a.flac"])
    def test_the_files_of_a_url_are_below_the_output(self, tmp_path, url):
        item = Item(url)
        form = TranscriptFiles(tmp_path, [item], ["txt"], PLAIN)
        assert form.paths(item.id) == [tmp_path / "x/a.txt"]

    def test_two_recordings_of_one_name_are_refused(self, tmp_path):
        items = [Item(str(tmp_path / "a.flac")), Item(str(tmp_path / "a.mp3"))]
        with pytest.raises(OptionError, match=r"would both be written to .*a.txt"):
            TranscriptFiles(tmp_path / "out", items, ["txt"], PLAIN)


def test_a_few_tasks_are_spread_over_all_workers(monkeypatch):
    class Stub:
        alive, capacity = True, 36

        def __init__(self, settings: object) -> None:
            self.tasks: list[Task] = []
            workers.append(self)

        def submit(self, task: Task) -> "Future[Answer]":
            self.tasks.append(task)
            future: Future[Answer] = Future()
            future.set_result(lost(task, "done"))
            return future

    workers: list[Stub] = []
    monkeypatch.setattr(local, "Worker", Stub)
    tasks = [Item(f"{number}.flac") for number in range(6)]
    assert len(list(local.LocalRunner(WorkerSettings("tiny.en", "torch"), 2).run(tasks))) == 6
    assert [len(worker.tasks) for worker in workers] == [3, 3]


def test_an_item_without_content_is_lost_with_its_reason():
    answer = lost(Item("a.flac"), "why")
    assert (answer.error, answer.lost, answer.span.content) == ("why", True, Content())
