"""`/metrics` in Prometheus' format, cross-origin requests, and the description of the API."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from running_server import running

from tilewhisper.engine.serving import figures
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
    for name in ("processing_seconds_total", "cpu_seconds_total", "rtf_sum", "first_segment_seconds_sum"):
        assert found[f"tilewhisper_{name}"] > 0
    for name in ("active_requests", "waiting_requests", "live_sessions"):
        assert found[f"tilewhisper_{name}"] == 0
    assert found["tilewhisper_loaded_models"] == 1
    assert found["process_resident_memory_bytes"] > 10**7


def test_fallbacks_and_energy_are_counted():
    counted = Metrics()
    run = Figures(
        model="base", policy="npu", backends=("bf16",), emulated=False, fallbacks={"npu": 3},
        fallback_reasons=("hang",),
        audio_seconds=30.0, processing_seconds=3.0, rtf=0.1, cpu_seconds_per_audio_second=0.5,
        joules_per_audio_minute=100.0, energy_unknown=None,
    )  # fmt: skip
    counted.add_run(run)
    assert counted.registry.get_sample_value("tilewhisper_fallbacks_total", {"backend": "npu"}) == 3
    assert counted.registry.get_sample_value("tilewhisper_package_joules_total") == 50
    assert counted.registry.get_sample_value("tilewhisper_cpu_seconds_total") == 15
    assert run.headers()["x-tilewhisper-fallbacks"] == "3"


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
