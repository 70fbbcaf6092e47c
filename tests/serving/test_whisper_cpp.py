"""whisper.cpp's `/inference`: its fields are honoured or refused, and its answers have its shape."""

import pytest
from conftest import SAMPLE_WORDS

from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.engine.serving.whisper_cpp import asked


@pytest.fixture(scope="module")
def http(served):
    with served.http() as client:
        yield client


@pytest.mark.parametrize("kind", ["json", "text", "srt", "vtt"])
def test_formats(http, sample, kind):
    answer = http.post("/inference", files={"file": sample}, data={"response_format": kind})
    assert answer.status_code == 200, answer.text
    assert SAMPLE_WORDS in (answer.json()["text"] if kind == "json" else answer.text)
    assert answer.headers["x-tilewhisper-model"] == "tiny.en"


def test_verbose_json_has_words_in_its_segments(http, sample):
    body = http.post("/inference", files={"file": sample}, data={"response_format": "verbose_json"}).json()
    assert (body["task"], body["language"], body["detected_language"]) == ("transcribe", "english", "english")
    words = [word for segment in body["segments"] for word in segment["words"]]
    assert "".join(word["word"] for word in words).strip() == body["text"]
    assert set(words[0]) == {"word", "start", "end", "probability"}


def test_fields_become_options():
    fields = {
        "language": "de", "translate": "true", "prompt": "Guten Tag", "temperature": "0.2", "temperature_inc": "0.4",
        "beam_size": "2", "best_of": "-1", "no_context": "1", "no_timestamps": "true", "offset_t": "1500",
        "duration": "2000", "logprob_thold": "-0.5", "no_speech_thold": "0.3", "vad": "true",
    }  # fmt: skip
    options = asked(fields.items(), 5).options
    assert (options.language, options.task, options.initial_prompt) == ("de", "translate", "Guten Tag")
    assert options.temperature == (0.2, 0.6, 1.0)
    assert (options.beam_size, options.best_of) == (2, 5)
    assert (options.condition_on_previous_text, options.without_timestamps, options.vad_filter) == (False, True, True)
    assert options.clips == ((1.5, 3.5),)
    assert (options.log_prob_threshold, options.no_speech_threshold) == (-0.5, 0.3)


@pytest.mark.parametrize("value", [None, "-1"])
def test_the_servers_beam_size_holds_where_none_is_given(value):
    assert asked([("beam_size", value)] if value else [], 3).options.beam_size == 3


@pytest.mark.parametrize(
    ("fields", "temperatures"),
    [
        ({}, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        ({"temperature_inc": "0"}, (0.0,)),
        ({"temperature": "0.5", "temperature_inc": "0"}, (0.5,)),
        ({"temperature": "1"}, (1.0,)),
    ],
)
def test_temperatures(fields, temperatures):
    assert asked(fields.items(), 5).options.temperature == temperatures


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", "7", "temperature must be a number"),
        ("temperature_inc", "0.001", "temperature_inc must be 0 or >= 0.01"),
        ("beam_size", "0", "beam_size must be >= 1"),
        ("beam_size", "2.5", "beam_size must be a whole number"),
        ("response_format", "lrc", "response_format must be json or text"),
        ("translate", "si", "translate must be true or false"),
        ("detect_language", "true", "detect_language is not supported"),
        ("diarize", "true", "unknown field 'diarize'"),
        ("offset_t", "-1", "offset_t must be a number"),
        ("prompt", "x" * 9000, "prompt must have at most"),
    ],
)
def test_fields_that_are_wrong(name, value, message):
    with pytest.raises(RequestError) as error:
        asked([(name, value)], 5)
    assert error.value.status == 400
    assert error.value.message.startswith(message)
    assert error.value.param == name
