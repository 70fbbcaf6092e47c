"""The page of `compare.py all` from recorded figures: charts, targets, slow-downs, and what cannot be shown."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def result(name, rows, **changes):
    from benchmark_page.results import Result

    made = Result(name, "a command", "2026-11-30T10:00:00+00:00", "abc1234", "a processor", 2, {"torch": "2.13"}, rows)
    return dataclasses.replace(made, **changes)


def timed(name, rtf, **more):
    times = {"rtf": rtf, "rtf_min": 0.9 * rtf, "rtf_max": 1.2 * rtf, "ratio": rtf / 0.01, "median_ratio": 1.0}
    return {"model": "base", "name": name, "word_error_rate": 8.0, "note": None, **times, **more}


MISSING = {"model": "base", "name": "onnx-asr", "note": "onnx-asr is not installed: pip install onnx-asr"}


def recorded():
    """Figures of every workload, as `compare.py all` stores them."""
    rows = [timed("tilewhisper policy=int8", 0.01), timed("OpenVINO GenAI int8", 0.03), MISSING]
    found = {name: result(name, rows) for name in ("files", "clips", "one-thread", "long", "beams", "hour")}
    lengths = [timed(row["name"], row["rtf"], audio=seconds) for row in rows[:2] for seconds in (1.0, 60.0)]
    starts = [
        {"model": "tiny.en", "name": name, "to_text": 0.8, "to_end": 0.9, "min": 0.8, "max": 1.0} for name in "ab"
    ]
    token = {"token_ms": 1.5, "token_ms_min": 1.4, "token_ms_max": 1.6, "step_ms": 1.2, "tokens": 9}
    encoder = {"name": "torch", "error": 0.0, "median_ms": 30.0, "min_ms": 29.0, "max_ms": 33.0, "ratio": 1.0}
    sizes = [
        {"model": model, "engine": engine, "parameters": size, "peak_mb": 5 * size, "first_mb": None, "disk": 1.05}
        | {"load_seconds": 0.1, "seconds": 1.0}
        for model, size in (("tiny.en", 38.0), ("base", 73.0))
        for engine in ("int8", "faster-whisper")
    ]
    memory = {"model": "base", "way": "w", "short_mb": 300.0, "long_mb": 420.0, "difference_mb": 120.0, "rtf": 0.01}
    product = {"product": "fc1", "backend": "w8a8", "instructions": "int8", "operations_per_byte": 90.0, "gops": 700.0}
    product |= {"peak": 900.0, "of_peak": 78.0, "read_gb_s": 40.0, "median_ms": 1.0, "min_ms": 0.9, "max_ms": 1.1}
    layers = [
        {"model": "base", "backend": backend, "layer": layer, "error": 1e-3, "ms": 3.0, "float32_ms": 5.0}
        for backend in ("int8", "bf16")
        for layer in ("convolutions", "0", "1")
    ]
    one_by_one = [timed(f"tilewhisper batch_size={size}", 0.01, **token) for size in (1, 8)]
    more = {"lengths": lengths, "token": one_by_one, "start": starts, "encoder": [encoder], "footprint": sizes}
    more |= {"memory": [memory], "products": [product], "layers": layers}
    return found | {name: result(name, rows) for name, rows in more.items()}


def test_the_page_has_a_chart_for_every_workload_with_times_and_needs_nothing_else():
    pytest.importorskip("matplotlib", reason="charts need tilewhisper[bench]")
    from benchmark_page.catalog import workloads
    from benchmark_page.page import page

    found = recorded()
    assert found.keys() == {one.name for one in workloads()}
    text = page(workloads(), found, ["clips, x: +12 % in time"])
    assert "http" not in text
    assert "clips, x: +12 % in time" in text
    assert "pip install onnx-asr" in text
    sections = dict(re.findall(r'<h2 id="([a-z-]+)">(.*?)(?=<h2|</html>)', text, re.DOTALL))
    assert {name for name, section in sections.items() if "<svg" not in section} == {"memory"}
    titles = re.findall(r"<svg [^>]*role=.img. [^>]*><title[^>]*>([^<]+)", text)
    for words in (
        "RTF against the length",
        "Word errors against RTF",
        "Peak memory",
        "Roofline",
        "error of each layer",
    ):
        assert any(words in title for title in titles), words
    for chart in re.findall(r"<svg .*?</svg>", text, re.DOTALL):
        assert len(re.findall(r"<(?:path|use) ", chart)) > 4
        assert re.match(r'<svg viewBox="0 0 [\d. ]+"', chart)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert links
    assert links <= set(ids)


def test_a_benchmark_without_times_has_no_chart():
    pytest.importorskip("matplotlib", reason="charts need tilewhisper[bench]")
    from benchmark_page.catalog import BENCHMARKS
    from benchmark_page.charts import charts

    for name, benchmark in BENCHMARKS.items():
        assert not list(charts(benchmark, result(name, []))), name
    assert not list(charts(BENCHMARKS["clips"], result("clips", [MISSING])))


def test_targets_are_met_not_met_or_not_measured():
    from benchmark_page.targets import verdicts

    found = recorded()
    texts = {verdict.target.what: verdict.row for verdict in verdicts(found)}
    assert texts["clips one by one: times of OpenVINO GenAI int8"] == (
        *("clips one by one: times of OpenVINO GenAI int8", "base", ">= 4", "3.00", "not met"),
    )
    assert texts["five minutes, batched: times of OpenVINO GenAI int8"][3:] == ("3.00", "met")
    assert texts["clips one by one: times of faster-whisper int8"][3:] == ("-", "not measured")
    assert texts["peak memory of an hour above a minute's"][3:] == ("120.00 MB", "not met")
    assert texts["peak memory above faster-whisper int8, worst model"][3:] == ("0.00 MB", "met")
    assert {verdict.text for verdict in verdicts({})} == {"not measured"}
    quick = {name: result(name, [{"name": "tilewhisper", "model": "tiny.en"}]) for name in ("token", "clips", "start")}
    assert {verdict.text for verdict in verdicts(quick)} == {"not measured"}, "a quick run has no rows of base"
    wrong = timed("OpenVINO GenAI int8", 0.03) | {"rtf": None, "ratio": None, "note": "wrong text: not timed"}
    (first, *_) = verdicts({"clips": result("clips", [timed("tilewhisper", 0.01), wrong])})
    assert first.text == "not measured"


def test_a_slow_down_is_above_a_tenth_on_the_same_processor():
    from benchmark_page.catalog import BENCHMARKS
    from benchmark_page.changes import last, slow_downs

    clips = BENCHMARKS["clips"]
    before = result("clips", [timed("tilewhisper a", 0.1), timed("tilewhisper b", 0.1)])
    elsewhere = dataclasses.replace(before, machine="another", date="2026-11-30T11:00:00+00:00")
    quick = dataclasses.replace(before, command="another", date="2026-11-30T11:00:00+00:00")
    rows = [timed("tilewhisper a", 0.109), timed("tilewhisper b", 0.12), timed("new", 9.0)]
    now = result("clips", rows, date="2026-11-30T12:00:00+00:00")
    assert last([before, elsewhere, quick, now], now) is before
    (line,) = slow_downs(clips, now, before)
    assert line == "clips, base, tilewhisper b: +20% in time since commit abc1234"
    assert last([elsewhere], now) is None
    assert not list(slow_downs(clips, now, None))


def test_two_runs_disagree_where_their_spreads_do_not_overlap():
    from benchmark_page.catalog import BENCHMARKS
    from benchmark_page.changes import disagreements

    name = "tilewhisper policy=int8"
    one, near, far = ({"clips": result("clips", [timed(name, rtf), MISSING])} for rtf in (0.10, 0.12, 0.14))
    assert not list(disagreements(BENCHMARKS, one, near))
    (line,) = disagreements(BENCHMARKS, one, far)
    assert line == f"clips, base, {name}: 0.09 to 0.12 here, 0.126 to 0.168 there"


def test_a_machine_that_is_slower_for_all_engines_changes_nothing():
    from benchmark_page.catalog import BENCHMARKS
    from benchmark_page.changes import disagreements, slow_downs

    def run(ours, *others):
        return result("clips", [timed("tilewhisper", ours), *(timed(f"peer {i}", t) for i, t in enumerate(others))])

    before, slower_machine, slower = run(0.1, 0.2, 0.3), run(0.15, 0.3, 0.45), run(0.15, 0.2, 0.3)
    clips = BENCHMARKS["clips"]
    assert not list(slow_downs(clips, slower_machine, before))
    assert not list(disagreements(BENCHMARKS, {"clips": slower_machine}, {"clips": before}))
    (line,) = slow_downs(clips, slower, before)
    assert line.startswith("clips, base, tilewhisper: +50%")
    assert list(disagreements(BENCHMARKS, {"clips": slower}, {"clips": before}))


def test_all_writes_what_was_measured_and_reports_what_failed(tmp_path, monkeypatch, capsys):
    import compare
    import compare_all

    def measure(benchmark, data, quick):
        assert quick
        if benchmark.name == "files":
            raise ValueError("files: its command ended with status 2")
        return recorded()[benchmark.name]

    monkeypatch.setattr(compare_all, "measure", measure)
    history, figures = tmp_path / "history.jsonl", tmp_path / "all.json"
    command = ["all", "--quick", "--only", "clips", "--only", "files", "--history", str(history)]
    assert compare.main([*command, "--json", str(figures)]) == 1
    output = capsys.readouterr()
    assert "compare: failed: files" in output.err
    assert "not met" in output.out
    (stored,) = json.loads(figures.read_text())
    assert stored["benchmark"] == "clips"
    assert json.loads(history.read_text()) == stored
    assert compare.main(["all", "--only", "nothing"]) == 2
    assert "unknown workload 'nothing'; the workloads are encoder, files" in capsys.readouterr().err


def test_figures_of_a_quick_run_do_not_become_the_documented_ones(tmp_path, monkeypatch, capsys):
    import make_benchmarks

    paths = {name: tmp_path / name.lower() for name in ("PAGE", "LATEST", "HISTORY")}
    for name, path in paths.items():
        monkeypatch.setattr(make_benchmarks, name, path)
    figures = tmp_path / "all.json"
    full = recorded()["clips"]
    figures.write_text(json.dumps([dataclasses.asdict(full)]))
    assert make_benchmarks.main(["render", str(figures)]) == 0
    assert "| base | OpenVINO GenAI int8 | 0.0300 |" in paths["PAGE"].read_text()
    figures.write_text(json.dumps([dataclasses.asdict(dataclasses.replace(full, quick=True))]))
    assert make_benchmarks.main(["render", str(figures)]) == 2
    assert "figures of a quick run, such as clips" in capsys.readouterr().err
