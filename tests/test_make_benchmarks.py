"""The benchmarks page without a measurement: figures taken from each script's own records, stored, and rendered."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path
from typing import get_origin, get_type_hints

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)


def record(cls, **values):
    """A script's record as its JSON has it, with numbers and words in the other fields."""
    plain = {float: 0.5, int: 3, str: "word", bool: True, list: [1.0, 2.0, 4.0], tuple: (1.0, 2.0, 4.0), dict: {}}

    def filler(kind):
        return plain.get(get_origin(kind) or kind, 0.5)  # an optional figure is a number

    hints = get_type_hints(cls)
    given = {field.name: values.get(field.name, filler(hints[field.name])) for field in dataclasses.fields(cls)}
    return dataclasses.asdict(cls(**given))


def outputs():
    """The parsed JSON of each benchmark's command, made of the scripts' own records."""
    import accuracy
    import bench_encoder
    import check_weights
    import cold_start
    import comparison
    import footprint
    import memory
    import parity
    import transcripts
    from kernel_bench import measurement

    from tilewhisper.engine.tuning import benchmark, sensitivity

    rows = [record(comparison.Row, seconds=[[1.0, 3.0, 2.0]]), record(comparison.Row, token_seconds=None, seconds=[])]
    left_out = {"a peer": "not installed: pip install a-peer"}
    compared = [{"model": "base", "rows": rows, "left_out": left_out, "recordings": [{"name": "a", "seconds": 4.0}]}]
    starts = {"us": [record(cold_start.Start, to_end=end) for end in (3.0, 1.0, 2.0)]}
    shape = {"batch": 1, "m": 1500, "k": 512, "n": 2048}
    product = {"product": {"role": "fc1", "shape": shape}, "backend": "int8", "arithmetic": {"instructions": "int8"}}
    rates = record(measurement.Figures)
    products = [product | rates | {"seconds": [1.0]}, product | {"seconds": [], "why_not": "wrong"}]
    effects = [
        record(sensitivity.Effect, site=site, backend="int8", exclusion="", seconds_saved=0.001)
        for site in ("conv1", "layers.0.fc1", "layers.0.fc2", "layers.1.fc1")
    ]
    layers = {"model": "base", "effects": effects, "seconds": {one["site"]: 0.004 for one in effects}}
    peaks = [record(memory.Peak, model="base", way="w", peak_bytes=size) for size in (10**8, 3 * 10**8)]
    return {
        "bench": {"files": ["a"], "rows": [record(benchmark.Row, stages={"encode": 0.2})]},
        "encoder": {
            "rows": [record(bench_encoder.Row), record(bench_encoder.Row, right=False, seconds=(), ratio=None)]
        },
        **dict.fromkeys(("files", "clips", "one-thread", "long", "beams", "hour", "lengths", "token"), compared),
        "start": [{"model": "base", "starts": starts}],
        "footprint": {"footprints": [record(footprint.Footprint)]},
        "memory": peaks,
        "products": {"peaks": {"gops": {"int8": 900.0}, "read_gb_s": 40.0}, "rows": products},
        "layers": layers,
        "accuracy": [record(accuracy.Score)],
        "parity": {"rows": [record(parity.Row, recordings=4, different=["a"])]},
        "weights": [
            record(check_weights.Row, recordings=4, same_as_file=3, same_with_its_rounding=4, same_as_source=2)
        ],
        "transcripts": {"rows": [record(transcripts.Row, clips=4, different=["a"])]},
    }


def test_every_column_is_filled_from_the_scripts_records():
    from benchmark_page.catalog import BENCHMARKS

    found = outputs()
    assert found.keys() == BENCHMARKS.keys()
    for name, benchmark in BENCHMARKS.items():
        first, *_ = benchmark.figures(json.loads(json.dumps(found[name])))
        columns = {column.key for column in benchmark.columns}
        assert set(first) == columns, name
        assert {key for key in columns if first[key] is None} <= {"decode", "note"}, name


def test_medians_and_differences():
    from benchmark_page.catalog import BENCHMARKS

    found = outputs()
    *_, missing = BENCHMARKS["clips"].figures(found["clips"])
    assert missing == {"model": "base", "name": "a peer", "note": "not installed: pip install a-peer"}
    (start,) = BENCHMARKS["start"].figures(found["start"])
    assert (start["to_end"], start["min"], start["max"]) == (2.0, 1.0, 3.0)
    (memory,) = BENCHMARKS["memory"].figures(found["memory"])
    assert (memory["short_mb"], memory["long_mb"], memory["difference_mb"]) == (100.0, 300.0, 200.0)
    (length,) = BENCHMARKS["lengths"].figures(found["lengths"])
    assert (length["audio"], length["rtf"], length["rtf_min"], length["rtf_max"]) == (4.0, 0.5, 0.25, 0.75)
    layers = BENCHMARKS["layers"].figures(found["layers"])
    assert [(one["layer"], round(one["ms"], 3)) for one in layers] == [("convolutions", 3), ("0", 6), ("1", 3)]
    (parity,) = BENCHMARKS["parity"].figures(found["parity"])
    assert parity["same_tokens"] == "3/4"


STAND_IN = """
import json, pathlib, sys
arguments = sys.argv[1:]
if "--fail" in arguments:
    sys.exit(2)
pathlib.Path(arguments[arguments.index("--json") + 1]).write_text(json.dumps({"rows": [{"name": "us", "rtf": 0.25}]}))
"""


def test_a_run_is_stored_appended_and_rendered_and_a_failure_does_not_replace_figures(tmp_path, monkeypatch):
    from benchmark_page import catalog

    (tmp_path / "stand_in.py").write_text(STAND_IN)

    def benchmark(name, *arguments):
        columns = (catalog.Column("name", ""), catalog.Column("rtf", "RTF", ".4f"))
        command = ("python", str(tmp_path / "stand_in.py"), *arguments)
        return catalog.Benchmark(name, name.title(), "About.", command, columns, lambda result: result["rows"])

    table = {"good": benchmark("good"), "bad": benchmark("bad", "--fail"), "never": benchmark("never")}
    monkeypatch.setattr(catalog, "BENCHMARKS", table)
    script = runpy.run_path(str(SCRIPTS / "make_benchmarks.py"))
    paths = {name: tmp_path / name.lower() for name in ("PAGE", "LATEST", "HISTORY")}
    script["main"].__globals__.update(paths)
    assert script["main"](["run", "good"]) == 0
    assert script["main"](["run", "good", "bad"]) == 1
    assert script["main"](["run", "unknown"]) == 2
    (latest,) = json.loads(paths["LATEST"].read_text())
    assert latest["rows"] == [{"name": "us", "rtf": 0.25}]
    assert latest["commit"]
    assert latest["packages"]["torch"]
    history = [json.loads(line) for line in paths["HISTORY"].read_text().splitlines()]
    assert [one["benchmark"] for one in history] == ["good", "good"]
    page = paths["PAGE"].read_text()
    assert "| us | 0.2500 |" in page
    assert page.count("Not measured yet") == 2
    assert sys.executable not in page
