"""`/metrics` in Prometheus' format, cross-origin requests, and the description of the API."""

from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from running_server import running

from tilewhisper.engine.energy import EnergyMeter
from tilewhisper.engine.serving import figures, metrics
from tilewhisper.engine.serving.figures import Figures
from tilewhisper.engine.serving.metrics import Metrics


def values_of(text: str) -> dict[str, Any]:
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_requests_and_work(lent, sample):
    with running(lent) as server, server.http() as http:
        for fields in ({"model": "whisper-1"}, {"model": "nobody"}):
            http.post("/v1/audio/transcriptions", data=fields, files={"file": sample})
        http.get("/secret/path")
        found = values_of(http.get("/metrics").text)
    assert found["tilewhisper_requests_total /v1/audio/transcriptions 200"] == 1
    assert found["tilewhisper_requests_total /v1/audio/transcriptions 404"] == 1
    assert found["tilewhisper_requests_total other 404"] == 1
    assert found["tilewhisper_audio_seconds_total"] == pytest.approx(7.283)
    for name in ("processing_seconds_total", "cpu_seconds_per_audio_second", "rtf_sum", "first_segment_seconds_sum"):
        assert found[f"tilewhisper_{name}"] > 0
    for name in ("active_requests", "waiting_requests", "live_sessions"):
        assert found[f"tilewhisper_{name}"] == 0
    assert found["tilewhisper_loaded_models"] == 1
    assert found["process_resident_memory_bytes"] > 10**7


def test_fallbacks_are_counted():
    counted = Metrics()
    run = Figures(
        model="base", policy="npu", backends=("bf16",), emulated=False, fallbacks={"npu": 3},
        fallback_reasons=("hang",),
        audio_seconds=30.0, processing_seconds=3.0, rtf=0.1, cpu_seconds_per_audio_second=0.5,
        joules_per_audio_minute=100.0, energy_unknown=None,
    )  # fmt: skip
    counted.add_run(run)
    assert counted.registry.get_sample_value("tilewhisper_fallbacks_total", {"backend": "npu"}) == 3
    assert run.headers()["x-tilewhisper-fallbacks"] == "3"


def test_energy_is_that_of_the_packages_since_the_start(monkeypatch, tmp_path):
    """Two runs at the same time share it."""
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, content in (("name", "package-0"), ("energy_uj", "1000000"), ("max_energy_range_uj", "9000000000")):
        (zone / name).write_text(content)
    monkeypatch.setattr(metrics, "EnergyMeter", lambda: EnergyMeter(tmp_path))
    counted = Metrics()
    counted.audio_seconds.inc(30)
    counted.audio_seconds.inc(30)
    (zone / "energy_uj").write_text("51000000")
    value = counted.registry.get_sample_value
    assert value("tilewhisper_package_joules_total") == pytest.approx(50)
    assert value("tilewhisper_package_joules_per_audio_minute") == pytest.approx(50)


def test_energy_that_cannot_be_measured_has_its_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(metrics, "EnergyMeter", lambda: EnergyMeter(tmp_path))
    found = generate_latest(Metrics().registry).decode()
    assert "tilewhisper_package_energy_unknown_info{reason=" in found and "no meter of a processor package" in found


def test_headers_say_that_a_device_is_emulated():
    headers = figures.start_headers("modèle", "npu", ("npu (emulated)", "int16"))
    assert headers["x-tilewhisper-emulated"] == "true"
    assert headers["x-tilewhisper-model"] == "mod?le"


def test_other_origins_are_allowed_only_by_name(lent, served):
    origin = {"Origin": "https://example.com"}
    with running(lent, cors_origins=("https://example.com",)) as server, server.http() as http:
        assert http.get("/v1/models", headers=origin).headers["access-control-allow-origin"] == "https://example.com"
        other = http.get("/v1/models", headers={"Origin": "https://other.com"})
        assert "access-control-allow-origin" not in other.headers
    with served.http() as http:
        assert "access-control-allow-origin" not in http.get("/v1/models", headers=origin).headers


def test_the_description_lists_the_fields_that_are_read(served):
    from tilewhisper.engine.serving.openai_fields import TRANSCRIPTION_FIELDS, TRANSLATION_FIELDS
    from tilewhisper.engine.serving.whisper_cpp import FIELDS

    with served.http() as http:
        paths = http.get("/openapi.json").json()["paths"]
    for path, fields in (
        ("/v1/audio/transcriptions", TRANSCRIPTION_FIELDS),
        ("/v1/audio/translations", TRANSLATION_FIELDS),
        ("/inference", FIELDS),
    ):
        schema = paths[path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        described = {name.removesuffix("[]") for name in schema["properties"]}
        assert described == {"file", *fields}
        assert not schema["additionalProperties"]
