"""`tilewhisper profile`: parts that add up to the total, in tables and JSON, and a trace of nested events."""

import json
from types import SimpleNamespace

import pytest
from conftest import SAMPLE, require_weights

from tilewhisper.engine.routing.router import Router
from tilewhisper.engine.routing.sites import encoder_sites, stem_sites

STAGES = ["decode audio", "log-mel", "encode", "cross-attention K/V", "prompt", "decode"]
TINY = {"d_model": 384, "heads": 6, "ffn": 1536}


@pytest.fixture(scope="module")
def ran(tilewhisper, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profile")
    before = vars(Router)["linear"]
    options = ("--policy", "torch", "--backend", "layers.3.*.out_proj=bf16", "--runs", "1")
    outputs = ("--trace", folder / "trace.json", "--json", folder / "profile.json")
    finished = tilewhisper(
        "profile", "--audio_context", "full", SAMPLE, "--model", require_weights("tiny.en"), *options, *outputs
    )
    assert vars(Router)["linear"] is before
    found, trace = (json.loads((folder / name).read_text()) for name in ("profile.json", "trace.json"))
    return SimpleNamespace(finished=finished, found=found, trace=trace)


def seconds(parts):
    return sum(part["seconds"] for part in parts)


def named(parts):
    return {part["name"]: part for part in parts}


def test_the_parts_add_up_to_the_total(ran):
    found, stages = ran.found, named(ran.found["stages"])
    assert list(stages) == [*STAGES, "other"]
    assert seconds(found["stages"]) == pytest.approx(found["seconds"])
    assert seconds(found["encoder"]) == seconds(found["launches"]) == pytest.approx(stages["encode"]["seconds"])
    assert seconds(found["decoder"]) == pytest.approx(stages["prompt"]["seconds"] + stages["decode"]["seconds"])
    assert all(part["seconds"] >= 0 for table in ("stages", "encoder", "decoder") for part in found[table])
    for table in ("stages", "encoder"):  # named parts take most of the time
        *parts, rest = found[table]
        assert rest["seconds"] < seconds(parts)


def test_the_stages_are_those_of_the_report(ran):
    """The spans and the report's clock time the same calls."""
    stages = named(ran.found["stages"])
    for stage in ran.found["report"]["stages"]:
        assert stages[stage["name"]]["seconds"] <= stage["wall_seconds"]
        # The report counts all steps of a window as one call.
        steps = ran.found["steps"] - stages["prompt"]["calls"]
        assert stages[stage["name"]]["calls"] == (steps if stage["name"] == "decode" else stage["calls"])


def test_the_encoder_table_has_every_product_of_the_model(ran):
    *roles, _ = ran.found["encoder"]
    assert [(role["name"], role["calls"]) for role in roles] == [
        ("conv1", 1),
        ("conv2", 1),
        ("self_attn.{q_proj,k_proj,v_proj}", 4),
        ("self_attn.{qk,av}", 4),
        ("self_attn.out_proj", 4),
        ("fc1", 4),
        ("fc2", 4),
    ]
    assert named(roles)["self_attn.out_proj"]["backend"] == "torch, bf16"
    assert named(ran.found["launches"])["layers.3.self_attn.out_proj"]["backend"] == "bf16"
    sites = (*stem_sites(80, TINY["d_model"]), *encoder_sites(4, **TINY))
    assert sum(role["multiply_adds"] for role in roles) == sum(s.batch * s.m * s.k * s.n for s in sites)


def test_the_decoder_table_has_every_kind_of_work(ran):
    parts, steps = named(ran.found["decoder"]), ran.found["steps"]
    assert steps == ran.found["report"]["tokens"] + 1  # the last step gives end-of-text
    assert parts["self-attention"]["calls"] == parts["cross-attention"]["calls"] == 4 * steps
    assert parts["linear layer"]["calls"] == 4 * 6 * steps
    assert named(ran.found["stages"])["cross-attention K/V"]["calls"] == 1
    assert parts["LM head"]["calls"] >= steps
    assert parts["logits mask"]["calls"] >= steps


def test_a_fused_native_call_is_one_row(tilewhisper, tmp_path):
    """The default policy runs an encoder layer's feed-forward half, and all decoder layers, as one native call each."""
    require_weights("tiny.en")
    file = tmp_path / "profile.json"
    flags = ("--model", "tiny.en", "--audio_context", "full", "--runs", "1", "--json", file)
    assert tilewhisper("profile", SAMPLE, *flags).status == 0
    found = json.loads(file.read_text())
    *roles, rest = found["encoder"]
    assert rest["seconds"] < seconds(roles)
    sites = (*stem_sites(80, TINY["d_model"]), *encoder_sites(4, **TINY))
    assert sum(role["multiply_adds"] for role in roles) == sum(s.batch * s.m * s.k * s.n for s in sites)
    if found["report"]["decoder"]["used"] != "int16":
        pytest.skip("the native kernels are not available")
    parts = named(found["decoder"])
    assert "self-attention" not in parts
    assert parts["layers"]["calls"] == found["steps"]
    assert parts["norms and other in a step"]["seconds"] < parts["layers"]["seconds"]


def test_the_tables_show_every_part(ran):
    finished, found = ran.finished, ran.found
    assert (finished.status, finished.err) == (0, "")
    lines = finished.out.splitlines()
    for part in (*found["stages"], *found["encoder"], *found["decoder"]):
        assert [
            line for line in lines if line.startswith(part["name"]) and f" {part['seconds'] * 1e3:,.2f} " in line
        ], part
    out = named(found["encoder"])["self_attn.out_proj"]
    assert f" {2 * out['multiply_adds'] / out['seconds'] / 1e9:,.0f}  torch, bf16" in finished.out
    assert "after a warm-up run" in finished.out


def test_events_of_the_trace_are_nested(ran):
    events = [event for event in ran.trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) == ran.found["spans"]
    assert len({event["tid"] for event in events}) == 1
    begin = {id(event): round(event["ts"] * 1e3) for event in events}  # nanoseconds, exact
    end = {id(event): round((event["ts"] + event["dur"]) * 1e3) for event in events}
    open_events = []
    for event in events:  # in the order in which they start
        while open_events and end[id(open_events[-1])] <= begin[id(event)]:
            open_events.pop()
        assert not open_events or end[id(event)] <= end[id(open_events[-1])], event
        open_events.append(event)
    assert (events[0]["name"], begin[id(events[0])]) == ("transcribe", 0)
    assert end[id(events[0])] == round(ran.found["seconds"] * 1e9)


def test_events_of_the_trace_have_shapes_and_backends(ran):
    events = {event["name"]: event for event in ran.trace["traceEvents"]}
    out = events["layers.3.self_attn.out_proj"]["args"]
    assert (out["backend"], out["in"][0], out["out"]) == ("bf16", [1, 1500, 384], [1, 1500, 384])
    assert events["self-attention"]["args"]["backend"] == "torch"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.wav"], ("none.wav", "no such file")),
        ([SAMPLE, "--runs", "0"], ("--runs must be >= 1, got 0",)),
        ([SAMPLE, "--trace", "no/such/folder.json"], ("no/such", "no folder")),
        ([SAMPLE, "--json", "."], ("is a directory",)),
        ([SAMPLE, "--policy", "torhc"], ("torhc", "did you mean 'torch'")),
        ([SAMPLE, "--model", "tinny.en"], ("tinny.en",)),
        ([SAMPLE, "--model", "tiny.en", "--language", "de"], ("English-only", "german")),
    ],
)
def test_a_bad_argument_is_one_line_of_error(tilewhisper, arguments, words):
    finished = tilewhisper("profile", *arguments)
    assert (finished.status, finished.out) == (2, "")
    (line,) = finished.err.splitlines()
    assert line.startswith("tilewhisper: error: ")
    assert not [word for word in words if word not in line], line
