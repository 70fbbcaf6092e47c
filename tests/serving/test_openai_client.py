"""The official `openai` client against a running server: every format, events, models, errors as its own exceptions."""

import re

import numpy as np
import openai
import pytest
from conftest import SAMPLE_WORDS, require_weights
from openai.types.audio import Transcription, TranscriptionVerbose, TranslationVerbose
from running_server import Lent, running

from tilewhisper import WhisperModel


@pytest.fixture
def create(client, sample):
    """Transcribe the sample with some fields."""

    def transcribe(**fields):
        return client.audio.transcriptions.create(**{"file": sample, "model": "whisper-1"} | fields)

    return transcribe


def test_json(create):
    answer = create()
    assert isinstance(answer, Transcription)
    assert SAMPLE_WORDS in answer.text
    assert not answer.text.startswith(" ")
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 8)  # 7.28 s, rounded up as OpenAI does
    assert answer.logprobs is None


def test_text(create):
    text = create(response_format="text")
    assert text.endswith(SAMPLE_WORDS + ".\n")
    assert not text.startswith(" ")


def test_subtitles_are_those_of_the_writers(create, served):
    srt, vtt = create(response_format="srt"), create(response_format="vtt")
    assert srt.startswith("1\n00:00:00,")
    assert re.search(r"\d\d:\d\d:\d\d,\d{3} --> \d\d:\d\d:\d\d,\d{3}\n", srt)
    assert vtt.startswith("WEBVTT\n\n00:0")
    for text in (srt, vtt):
        assert SAMPLE_WORDS in text


def test_verbose_json_has_segments_and_our_figures(create):
    answer = create(response_format="verbose_json")
    assert isinstance(answer, TranscriptionVerbose)
    assert (answer.language, round(answer.duration, 2)) == ("english", 7.28)
    assert answer.model_extra["task"] == "transcribe"
    assert answer.words is None
    assert "".join(segment.text for segment in answer.segments).strip() == answer.text
    first = answer.segments[0]
    assert 0 <= first.start < first.end <= 7.3
    assert first.tokens
    assert set(first.to_dict()) == {
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
        "no_speech_prob",
    }  # fmt: skip
    figures = answer.model_extra["tilewhisper"]
    assert (figures["model"], figures["policy"], figures["backends"]) == ("tiny.en", "torch", ["torch"])
    assert (figures["emulated"], figures["fallbacks"]) == (False, {})
    assert figures["rtf"] > 0
    assert figures["cpu_seconds_per_audio_second"] > 0
    assert (figures["joules_per_audio_minute"] is None) == bool(figures["energy_unknown"])


@pytest.mark.parametrize(
    ("spelling", "granularities", "keys"),
    [
        ("timestamp_granularities", ["word"], {"words"}),
        ("timestamp_granularities[]", ["segment"], {"segments"}),
        ("timestamp_granularities[]", ["word", "segment"], {"words", "segments"}),
    ],
)
def test_granularities(served, sample, spelling, granularities, keys):
    fields = {"model": "whisper-1", "response_format": "verbose_json", spelling: granularities}
    with served.http() as http:
        body = http.post("/v1/audio/transcriptions", data=fields, files={"file": sample}).json()
    assert keys == {"words", "segments"} & body.keys()
    if "words" in keys:
        assert [set(word) for word in body["words"]] == [{"word", "start", "end"}] * len(body["words"])
        assert [word["word"] for word in body["words"]] == body["text"].split()
        assert all(word["start"] <= word["end"] for word in body["words"])


def test_logprobs_are_the_tokens_of_the_text(create):
    answer = create(include=["logprobs"])
    assert bytes(int(byte) for one in answer.logprobs for byte in one.bytes).decode().strip() == answer.text
    assert "".join(one.token for one in answer.logprobs).strip() == answer.text
    assert all(one.logprob <= 0 for one in answer.logprobs)
    assert np.mean([one.logprob for one in answer.logprobs]) > -1


@pytest.mark.parametrize("strategy", ["auto", {"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 300}])
def test_chunking_strategies(create, strategy):
    assert SAMPLE_WORDS in create(chunking_strategy=strategy).text


def test_a_strategy_reaches_the_detector(create):
    """With a threshold that no frame reaches there is no speech."""
    assert create(chunking_strategy={"type": "server_vad", "threshold": 1.0}).text == ""


def test_the_prompt_and_the_language_are_honoured(create, served, monkeypatch):
    seen = []
    original = WhisperModel.transcribe
    monkeypatch.setattr(
        WhisperModel,
        "transcribe",
        lambda self, audio, **options: seen.append(options) or original(self, audio, **options),
    )
    create(prompt="Meeting", language="English", temperature=0.4)
    (options,) = seen
    assert (options["initial_prompt"], options["language"], options["temperature"]) == ("Meeting", "English", 0.4)


def test_events_while_decoding(client, long_wav):
    events = [*client.audio.transcriptions.create(file=long_wav, model="whisper-1", stream=True)]
    deltas, done = events[:-1], events[-1]
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) >= 3
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas).strip() == done.text.strip()
    assert done.text.count("your questions") == 3
    assert done.model_extra["tilewhisper"]["model"] == "tiny.en"


def test_the_stream_is_server_sent_events_that_end_with_done(served, sample):
    fields = {"model": "whisper-1", "stream": "true", "include[]": "logprobs"}
    with served.http() as http:
        answer = http.post("/v1/audio/transcriptions", data=fields, files={"file": sample})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-tilewhisper-backends"] == "torch"
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    assert '"logprobs": [{"token": ' in answer.text


def test_headers_say_what_ran(served, sample):
    with served.http() as http:
        headers = http.post("/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": sample}).headers
    found = {name.removeprefix("x-tilewhisper-"): value for name, value in headers.items() if "tilewhisper" in name}
    assert float(found.pop("rtf")) > 0
    assert found == {
        "model": "tiny.en", "policy": "torch", "backends": "torch", "emulated": "false", "fallbacks": "0"
    }  # fmt: skip


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny.en", "whisper-1"]
    model = client.models.retrieve("tiny.en")
    assert (model.id, model.object, model.owned_by) == ("tiny.en", "model", "tilewhisper")
    assert model.created > 1_700_000_000
    for name in ("whisper-1", "openai/whisper-tiny.en", "base"):
        assert client.models.retrieve(name).model_extra["root"] == "tiny.en"


def test_an_english_model_refuses_to_translate(client, sample):
    with pytest.raises(openai.BadRequestError, match="English-only and cannot translate") as error:
        client.audio.translations.create(file=sample, model="whisper-1")
    assert error.value.param == "model"


@pytest.mark.slow
def test_translation():
    name = require_weights("base")
    from conftest import GERMAN

    with WhisperModel(name, policy="torch") as model, running(lambda *a, **k: Lent(model), models=("base",)) as server:
        answer = server.openai().audio.translations.create(
            file=GERMAN, model="whisper-1", response_format="verbose_json"
        )
        german = server.openai().audio.transcriptions.create(
            file=GERMAN, model="whisper-1", response_format="verbose_json"
        )
    assert isinstance(answer, TranslationVerbose)
    assert (answer.language, german.language) == ("english", "german")
    assert answer.text != german.text


@pytest.mark.parametrize(
    ("fields", "kind", "param", "message"),
    [
        ({"model": "gpt-5"}, openai.NotFoundError, "model", "the models are tiny.en, and whisper-1"),
        ({"temperature": 7}, openai.BadRequestError, "temperature", "must be a number >= 0 and <= 1, got '7'"),
        ({"language": "klingon"}, openai.BadRequestError, "language", "unknown language 'klingon'"),
        ({"language": "de"}, openai.BadRequestError, "language", "does not support"),
        ({"response_format": "xml"}, openai.BadRequestError, "response_format", "json or text or srt"),
        ({"timestamp_granularities": ["word"]}, openai.BadRequestError, "timestamp_granularities", "verbose_json"),
        ({"prompt": "word " * 10_000}, openai.BadRequestError, "prompt", "at most 8192 characters, got 50000"),
        ({"file": ("a.wav", b"")}, openai.BadRequestError, "file", "empty"),
        ({"file": ("a.wav", b"not audio" * 99)}, openai.BadRequestError, "file", "the file: "),
    ],
)
def test_errors_are_the_clients_own(create, fields, kind, param, message):
    with pytest.raises(kind, match=re.escape(message)) as error:
        create(**fields)
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"
    assert "/proc" not in str(error.value)
    assert "/tmp" not in str(error.value)


def test_keys(lent, sample):
    with running(lent, api_keys=("first", "zweiter-schlüssel")) as server, server.http() as http:
        for wrong in ("none", "firs", "first1"):
            with pytest.raises(openai.AuthenticationError) as error:
                server.openai(api_key=wrong).models.list()
            assert error.value.code == "invalid_api_key"
        assert server.openai(api_key="first").models.list().data
        assert http.get("/v1/models").json()["error"]["code"] == "missing_api_key"
        assert http.get("/v1/models", headers={"Authorization": "Basic first"}).status_code == 401
        assert http.get("/v1/models", headers={"Authorization": "Bearer zweiter-schlüssel".encode()}).status_code == 200
        for closed in ("/metrics", "/v1/models/tiny.en"):
            assert http.get(closed).status_code == 401
        assert http.post("/inference", files={"file": sample}).status_code == 401
        assert http.get("/health").status_code in (200, 503)
