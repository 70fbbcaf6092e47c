"""Requests that are wrong: each gets a clear error in OpenAI's shape, and nothing is left on disk."""

import io
import json
import socket
import tempfile
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import SAMPLE
from running_server import running, wait_for

from tilewhisper.engine.serving import uploads

TRANSCRIPTIONS = "/v1/audio/transcriptions"
BOUNDARY = "----b"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


@pytest.fixture(scope="module")
def http(served):
    with served.http() as client:
        yield client


def error_of(answer, status: int, param: str | None = None) -> str:
    """The message of an answer, whose error has OpenAI's shape and shows nothing of the server."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("server_error" if status >= 500 else error["type"])
    assert error["param"] == param
    for secret in (tempfile.gettempdir() + "/", "/proc", "Traceback", ".py", str(Path.cwd())):
        assert secret not in answer.text
    return error["message"]


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("sound.wav", bytes(5000))
    return file.getvalue()


def silent_film() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        picture = out.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        for frame in [*[av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")] * 5, None]:
            out.mux(picture.encode(frame))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"\0" * 5000, "the file: "),
        (zipped(), "the file: "),
        (silent_film(), "the file: has no audio track"),
        (SAMPLE.read_bytes()[:40], "the file: "),
        (b"https://example.com/talk.mp3", "the file: "),
        (b"/etc/passwd", "the file: "),
    ],
    ids=["empty", "zeros", "zip named wav", "video without sound", "header only", "URL", "path"],
)
def test_files_that_are_not_audio(http, content, message):
    answer = http.post(TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": ("talk.wav", content)})
    assert error_of(answer, 400, "file").startswith(message)
    assert answer.json()["error"]["code"] == "invalid_audio"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"model": ""}, "model", "is empty"),
        ({}, "model", "is missing"),
        ({"language": ""}, "language", "is empty"),
        ({"temperature": ""}, "temperature", "is empty"),
        ({"temperature": "-0.1"}, "temperature", "must be a number >= 0 and <= 1"),
        ({"temperature": "warm"}, "temperature", "must be a number"),
        ({"temperature": "nan"}, "temperature", "must be a number"),
        ({"temperature": "0.001"}, "temperature", "temperature must be 0 or a number >= 0.01"),
        ({"temperature": ["0", "1"]}, "temperature", "is given twice"),
        ({"stream": "perhaps"}, "stream", "must be true or false"),
        ({"stream": "true", "response_format": "srt"}, "stream", "needs response_format json or text, got srt"),
        ({"include[]": "everything"}, "include", "must be logprobs"),
        ({"include[]": "logprobs", "response_format": "text"}, "include", "needs response_format json, got text"),
        (
            {"timestamp_granularities[]": "line", "response_format": "verbose_json"},
            "timestamp_granularities",
            "word or",
        ),
        ({"timestamp_granularities": "word"}, "timestamp_granularities", "needs response_format verbose_json"),
        ({"chunking_strategy": "never"}, "chunking_strategy", "must be auto or an object"),
        ({"chunking_strategy": "{"}, "chunking_strategy", "is not valid JSON"),
        ({"chunking_strategy": '{"type": "semantic"}'}, "chunking_strategy", "must be auto or an object"),
        ({"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "2"}, "chunking_strategy", "<= 1"),
        ({"chunking_strategy": '{"type":"server_vad","silence_duration_ms":1.5}'}, "chunking_strategy", "a whole"),
        ({"chunking_strategy": '{"type":"server_vad","loudness":1}'}, "chunking_strategy", "unknown key 'loudness'"),
        ({"chunking_strategy": "auto", "chunking_strategy[type]": "server_vad"}, "chunking_strategy", "both"),
        ({"languge": "en"}, "languge", "unknown field 'languge'; did you mean language"),
        ({"language[x]": "en"}, "language[x]", "unknown field 'language[x]'"),
        ({"diarize": "true"}, "diarize", "unknown field 'diarize'; the fields are file, model,"),
    ],
)
def test_fields_that_are_wrong(http, sample, fields, param, message):
    fields = fields if "model" in fields or not fields else {"model": "whisper-1", **fields}
    answer = http.post(TRANSCRIPTIONS, data=fields, files={"file": sample})
    assert message in error_of(answer, 400, param)


def test_translations_have_fewer_fields(http, sample):
    fields = {"model": "whisper-1", "language": "en"}
    answer = http.post("/v1/audio/translations", data=fields, files={"file": sample})
    assert "unknown field 'language'" in error_of(answer, 400, "language")


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, "truncated_upload"),
        (b"nothing of the kind", 400, "malformed_multipart"),
        (part("file", b"RIFF", "a.wav"), 400, "truncated_upload"),
        (part("file", b"RIFF" * 9000, "a.wav")[:-900], 400, "truncated_upload"),
        (part("model", b"whisper-1") + END, 400, None),
        (part("file", b"no file name") + END, 400, None),
        (part("", b"x") + END, 400, "malformed_multipart"),
        (part("model", b"\xff\xfe") + END, 400, "malformed_multipart"),
        (part("model", b"x", "model.txt") + END, 400, None),
        (part("file", b"x", "a") + part("file", b"x", "b") + END, 400, None),
        (b"".join(part(f"f{i}", b"x") for i in range(65)) + END, 400, "malformed_multipart"),
        (part("prompt", b"x" * (uploads.MAX_FIELD_BYTES + 1)) + END, 413, None),
        (f"--{BOUNDARY}\r\n".encode() + b"x" * 100_000, 400, "malformed_multipart"),
        (f"--{BOUNDARY}\r\n\r\nvalue\r\n".encode() + END, 400, "malformed_multipart"),
    ],
)
def test_bodies_that_are_no_form(http, body, status, message):
    answer = http.post(TRANSCRIPTIONS, content=body, headers=MULTIPART)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    error_of(answer, status, error["param"])
    assert error["code"] == message or (message is None and error["code"] != "malformed_multipart")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "audio/wav"}, 415),
        ({}, 415),
        ({"content-type": "multipart/form-data"}, 400),
        ({"content-type": "multipart/form-data; boundary="}, 400),
        ({"content-type": "multipart/form-data; boundary=" + "x" * 1000}, 400),
    ],
)
def test_content_types(http, headers, status):
    error_of(http.post(TRANSCRIPTIONS, content=json.dumps({"model": "whisper-1"}), headers=headers), status)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", TRANSCRIPTIONS, 405),
        ("DELETE", "/v1/models/tiny.en", 405),
        ("OPTIONS", TRANSCRIPTIONS, 405),
        ("GET", "/docs", 404),
    ],
)
def test_addresses_and_methods(http, method, path, status):
    answer = http.request(method, path)
    error_of(answer, status)
    assert "access-control-allow-origin" not in answer.headers
    assert ("allow" in answer.headers) == (status == 405)


def test_the_unexpected_is_an_error_without_details(lent, monkeypatch):
    with running(lent) as server, server.http() as http:
        monkeypatch.setattr(server.server.pool.names, "served", None)
        assert error_of(http.get("/v1/models"), 500) == "the server failed; its log has the reason"


def test_uploads_above_the_limit(lent, sample):
    with running(lent, max_upload_bytes=100_000) as server, server.http() as http:
        answer = http.post(TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": sample})
        assert "larger than 0.0953674 MB" in error_of(answer, 413, "file")
        chunked = iter([part("file", b"x" * 60_000, "a.wav")[:-2], *[b"x" * 60_000] * 4, b"\r\n", END])
        error_of(http.post(TRANSCRIPTIONS, content=chunked, headers=MULTIPART), 413, "file")


def test_a_length_above_the_limit_is_refused_before_the_body(served):
    with socket.create_connection(served.address, timeout=10) as connection:
        head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 30}\r\n"
        connection.sendall(f"{head}Content-Type: {MULTIPART['content-type']}\r\n\r\n".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_audio_above_the_limit(lent, sample):
    with running(lent, max_audio_seconds=5.0) as server, server.http() as http:
        answer = http.post(TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": sample})
        assert "longer than 0.0833333 minutes" in error_of(answer, 413, "file")


def test_uploads_that_stall(lent):
    with running(lent, upload_idle_seconds=0.2) as server, socket.create_connection(server.address, timeout=10) as slow:
        head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n"
        slow.sendall(f"{head}Content-Type: {MULTIPART['content-type']}\r\n\r\n".encode() + part("file", b"x", "a"))
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_a_full_disk(served, http, sample, monkeypatch):
    full = Path("/dev/full").open("r+b", 0)  # noqa: SIM115 (closed by the server)
    monkeypatch.setattr(uploads.tempfile, "TemporaryFile", lambda **options: full)
    answer = http.post(TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": sample})
    assert "no room left for temporary files" in error_of(answer, 507)


def test_a_full_disk_while_the_audio_is_read(served, http, sample, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tilewhisper.models.audio.spill.np.ascontiguousarray", full)
    answer = http.post(TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": sample})
    assert "no room left for temporary files" in error_of(answer, 507)


@pytest.mark.skipif(not uploads._OPEN_FILES.is_dir(), reason="only Linux opens a file without a name again")
def test_no_file_is_left(served, http, sample, tmp_path, monkeypatch):
    """Also not while a request runs: its file has no name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = open_files()
    http.post(TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": ("a", b"x" * 2_000_000)})
    http.post(TRANSCRIPTIONS, content=part("file", b"x" * 2_000_000, "a")[:-9], headers=MULTIPART)
    with socket.create_connection(served.address, timeout=10) as leaving:
        head = f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
        leaving.sendall(f"{head}Content-Type: {MULTIPART['content-type']}\r\n\r\n".encode())
        leaving.sendall(part("file", b"x" * 3_000_000, "a"))
        wait_for(lambda: open_files() > before + 1)
        assert not [*tmp_path.iterdir()]
    wait_for(lambda: open_files() <= before)
    assert not [*tmp_path.iterdir()]


def test_names_by_which_a_file_is_sent_do_not_matter(served, http):
    """Names are not paths of the server, and the content decides the format."""
    file = ("../../etc/passwd\0.exe", SAMPLE.read_bytes(), "application/x-msdownload")
    answer = http.post(TRANSCRIPTIONS, data={"model": "whisper-1"}, files={"file": file})
    assert answer.status_code == 200, answer.text
