"""`tilewhisper bench`: a row for each contender, the same in JSON, and texts compared."""

import json
from dataclasses import replace

import pytest
from conftest import SAMPLE, require_weights

from tilewhisper.engine.commands import bench
from tilewhisper.engine.tuning import benchmark


@pytest.fixture(scope="module", autouse=True)
def _weights():
    require_weights("tiny.en")


@pytest.fixture(scope="module")
def ran(tilewhisper, tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "b.json"
    policies = ("--policy", "torch", "--policy", "bf16")
    finished = tilewhisper("bench", SAMPLE, *MODEL, *policies, "--peer", "transformers", "--runs", "1", "--json", file)
    return finished, json.loads(file.read_text())


MODEL = ("--model", "tiny.en")
NAMES = ["tilewhisper, policy torch on torch", "tilewhisper, policy bf16 on bf16", "transformers generate"]


def test_the_table_has_a_row_for_each_policy_and_the_peer(ran):
    finished, content = ran
    assert finished.status == 0
    assert [row["name"] for row in content["rows"]] == NAMES
    lines = [line for line in finished.out.splitlines() if line.startswith(tuple(NAMES))]
    for line, row in zip(lines, content["rows"], strict=True):
        assert f"{row['rtf_median']:.4f}" in line
        assert f"{row['speed']:.1f}x" in line
        assert line.rstrip().endswith("1/1")


def test_all_contenders_give_the_same_text(ran):
    assert [row["same_text"] for row in ran[1]["rows"]] == [1, 1, 1]
    assert [row["same_tokens"] for row in ran[1]["rows"]][::2] == [1, 1]


def test_the_figures_follow_from_the_runs(ran):
    content = ran[1]
    assert content["audio_seconds"] == pytest.approx(7.283, abs=1e-3)
    assert content["baseline"] == NAMES[-1]
    baseline = content["rows"][-1]["runs"][0]
    for row in content["rows"]:
        (seconds,) = row["runs"]
        assert row["rtf_median"] == row["rtf_min"] == row["rtf_max"] == pytest.approx(seconds / 7.283, rel=1e-3)
        assert row["rtf_median"] * row["speed"] == pytest.approx(1)
        assert row["ratio"] == pytest.approx(baseline / seconds)
        assert sum(row["stages"].values()) <= seconds
    stages = {"decode audio", "log-mel", "encode", "cross-attention K/V", "prompt", "decode"}
    assert set(content["rows"][0]["stages"]) == stages


def test_the_conditions_of_the_figures_are_shown(ran):
    finished, content = ran
    assert (content["model"], content["files"]) == ("tiny.en", [str(SAMPLE)])
    assert content["machine"]["cpu"] in finished.out
    for part in ("model tiny.en", "7.3 s of audio", "1 run in turn after a warm-up", "transformers generate"):
        assert part in finished.out


def test_without_a_peer_the_first_policy_is_the_baseline(tilewhisper, tmp_path):
    arguments = (
        "--policy",
        "torch",
        "--policy",
        "torch",
        "--peer",
        "none",
        "--runs",
        "2",
        "--json",
        tmp_path / "b.json",
    )
    finished = tilewhisper("bench", SAMPLE, *MODEL, *arguments)
    content = json.loads((tmp_path / "b.json").read_text())
    assert finished.status == 0
    (row,) = content["rows"]  # a policy that is given twice is one contender
    assert content["baseline"] == row["name"] == NAMES[0]
    assert row["ratio"] == 1
    assert len(row["runs"]) == 2


class FakeContender:
    """A contender with given texts and times; the first pass is the warm-up."""

    def __init__(self, name, texts, seconds):
        self.name, self._texts, self._seconds, self._turn = name, texts, iter(seconds), 0
        self.calls = []

    def transcribe(self, file, options):
        self.calls.append(file)
        text = self._texts[file]
        return benchmark.Pass(tuple(map(ord, text)), text, 10.0, next(self._seconds))


def test_median_spread_and_ratio_exclude_the_warm_up():
    ours = FakeContender("ours", {"a": "x"}, [100, 1, 5, 3])
    peer = FakeContender("peer", {"a": "x"}, [100, 6, 6, 9])
    row, base = benchmark.measure([ours, peer], ["a"], benchmark.SpeechOptions("en", "transcribe"), 3, peer)
    assert (row.rtf_median, row.rtf_min, row.rtf_max, row.speed, row.ratio) == (0.3, 0.1, 0.5, 10 / 3, 2.0)
    assert (base.rtf_median, base.ratio) == (0.6, 1.0)
    assert row.runs == [1, 5, 3]


def test_equal_texts_and_tokens_are_counted():
    texts = {"a": "same", "b": "one"}
    ours, peer = FakeContender("ours", texts, [1] * 4), FakeContender("peer", {**texts, "b": "two"}, [1] * 4)
    options = benchmark.SpeechOptions("en", "transcribe")
    row, base = benchmark.measure([ours, peer], ["a", "b"], options, 1, peer)
    assert (row.same_text, row.same_tokens, base.same_text) == (1, 1, 2)
    assert row.rtf_median == 0.1
    assert ours.calls == ["a", "b"] * 2


def test_stages_are_medians_of_runs_and_sums_of_files():
    class Staged(FakeContender):
        def transcribe(self, file, options):
            done = super().transcribe(file, options)
            return replace(done, stages={"encode": done.seconds / 2})

    ours = Staged("ours", {"a": "x", "b": "y"}, [9, 9, 1, 2, 3, 4, 5, 6])
    (row,) = benchmark.measure([ours], ["a", "b"], benchmark.SpeechOptions(None, "transcribe"), 3, ours)
    assert row.stages == {"encode": 3.5}
    assert row.runs == [3, 7, 11]


def test_a_missing_peer_is_one_line_of_error(tilewhisper, monkeypatch):
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    finished = tilewhisper("bench", str(SAMPLE))
    assert finished.status == 2
    (line,) = finished.err.splitlines()
    assert "pip install 'tilewhisper[transformers]'" in line
    assert "--peer none" in line
