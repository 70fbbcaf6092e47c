"""The page's files and its JSON routes, without a browser."""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SAMPLE, SAMPLE_WORDS, require_weights
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewhisper import WhisperModel
from tilewhisper.engine.serving.app import create_app
from tilewhisper.engine.serving.settings import ServerSettings
from tilewhisper.models.audio.reader import decode_audio

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "engine/serving/page"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of a server of tiny.en under policy `torch`."""
    with TestClient(create_app(ServerSettings((require_weights("tiny.en"),), policy="torch"))) as client:
        yield client


def upload(client: TestClient, path: str, audio: Path | bytes = SAMPLE, **fields: str):
    content = audio if isinstance(audio, bytes) else audio.read_bytes()
    return client.post(path, data={"model": "tiny.en", **fields}, files={"file": ("private-name.flac", content)})


def lines_of(answer) -> list[dict]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_the_page_may_load_nothing_from_elsewhere(client):
    policy = client.get("/").headers["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "media-src 'self' blob:" in policy, "the player plays the chosen file"
    assert not [rule for rule in policy if "unsafe" in rule or "http" in rule or "*" in rule]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_is_served_and_names_only_files_of_the_page(client, path):
    answer = client.get(f"/page/files/{path.name}")
    assert answer.text == path.read_text("utf-8")
    assert answer.headers["x-content-type-options"] == "nosniff"
    urls = set(re.findall(r"https?://[^\"'\s)]+", answer.text))
    assert urls <= {"http://www.w3.org/2000/svg"}, "an asset from elsewhere"
    named = re.findall(
        r"(?:from |import )\"\./([^\"]+)\"|\"page/files/([^\"]+)\"|new URL\(\"([^\"]+)\", import", answer.text
    )
    assert {name for names in named for name in names if name} <= {file.name for file in FILES}


def test_every_file_is_installed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    installed = {file for pattern in patterns["tilewhisper.engine.serving"] for file in FOLDER.parent.glob(pattern)}
    assert {*FILES} <= installed


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "%2e%2e/app.py"])
def test_nothing_else_is_served(client, name):
    assert client.get(f"/page/files/{name}").status_code == 404


def test_only_the_files_are_open_to_a_client_without_a_key():
    server = TestClient(create_app(ServerSettings(("tiny.en",), api_keys=("secret",))))  # not started: loads no model
    assert server.get("/").status_code == server.get("/page/files/main.js").status_code == 200
    for answer in (
        server.get("/page/encoder?model=tiny.en"),
        upload(server, "/page/transcriptions"),
        upload(server, "/page/encoder-error"),
    ):
        assert answer.status_code == 401


def test_the_encoder_is_described(client):
    answer = client.get("/page/encoder", params={"model": "tiny.en"}).json()
    assert answer["languages"] == {"en": "English"}
    sites = {site["site"]: site for site in answer["sites"]}
    assert len(sites) == 2 + 4 * 8
    assert sites["layers.3.fc2"] == {
        "site": "layers.3.fc2",
        "shape": "(1500, 1536) x (1536, 384)",
        "requested": "torch",
        "backend": "torch",
        "fallback": None,
    }
    backends = {backend["name"]: backend for backend in answer["backends"]}
    assert backends["torch"]["reason"] is None
    assert backends["torch"]["decodes"] and not backends["reference"]["decodes"]


def test_an_unknown_model_is_an_error(client):
    answer = client.get("/page/encoder", params={"model": "huge"})
    assert answer.status_code == 404
    assert "tiny.en" in answer.json()["error"]["message"]


def test_a_run_tells_its_segments_and_what_ran_where(client):
    answer = upload(client, "/page/transcriptions", backends="layers.1.fc1=int16\nlayers.1.fc2=int16")
    start, *segments, end = lines_of(answer)
    assert start == {
        "type": "start",
        "duration": pytest.approx(7.28, abs=0.01),
        "language": "English",
        "language_probability": None,
    }
    assert all(line["type"] == "segment" for line in segments)
    assert SAMPLE_WORDS in "".join(line["text"] for line in segments)
    report = end["report"]
    used = {site["site"]: [*site["used"]] for site in report["sites"]}
    assert {site for site, labels in used.items() if labels == ["int16"]} == {"layers.1.fc1", "layers.1.fc2"}
    assert all(site["seconds"] > 0 for site in report["sites"])
    assert report["rtf"] == pytest.approx(report["total"]["wall_seconds"] / report["audio_seconds"])
    assert report["cpu_seconds_per_audio_second"] > 0
    assert report["energy"]["reason"] or report["energy"]["joules_per_audio_minute"] > 0
    assert {"encode", "decode"} <= {stage["name"] for stage in report["stages"]}
    assert end["downloads"]["srt"].startswith("1\n00:00:00,000 --> ")
    assert SAMPLE_WORDS in json.loads(end["downloads"]["json"])["text"]
    assert not re.search(r"private-name|/tmp|/proc|/home|/root", answer.text), "a path of the server"


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"backends": "layers.1.fc1=tpu"}, 400, "unknown backend 'tpu'"),
        ({"backends": "layers.9.fc1=int8"}, 400, "matches no site"),
        ({"backends": "fc1"}, 400, "SITES=BACKEND"),
        ({"backends": "decoder=reference"}, 400, "cannot run a decoder"),
        ({"task": "sing"}, 400, "task must be transcribe or translate"),
        ({"language": "de"}, 400, "English"),
        ({"surprise": "1"}, 400, "unknown field"),
    ],
)
def test_a_run_that_cannot_be_is_refused_with_the_reason(client, fields, status, words):
    answer = upload(client, "/page/transcriptions", **fields)
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


def test_a_file_without_audio_is_refused(client):
    answer = upload(client, "/page/transcriptions", b"no audio at all")
    assert answer.status_code == 400
    assert "private-name" not in answer.text


def test_the_error_between_two_runs_is_that_of_their_encoder_states(client):
    def error(**sides):
        return upload(client, "/page/encoder-error", **sides).json()["error"]

    assert error(before="", after="") == 0
    found = error(before="layers.*.fc?=int8", after="")
    states = []
    for backends in (["layers.*.fc?=int8"], []):
        with WhisperModel("tiny.en", policy="torch", backends=backends) as model:
            states.append(model.encode(model.log_mel(decode_audio(str(SAMPLE)))[None, :, :3000]))
    assert found == pytest.approx(float((states[1] - states[0]).norm() / states[0].norm()), rel=1e-3)
    assert found > 1e-5


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=12)


@settings(max_examples=3)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=50, max_size=50))
def test_the_difference_of_texts_is_the_shortest(pairs):
    if not shutil.which("node"):
        pytest.skip("node is missing, which runs the page's functions outside a browser")
    script = f"""
        import {{ wordDiff }} from "{(FOLDER / "diff.js").as_uri()}";
        console.log(JSON.stringify({json.dumps(pairs)}.map(([a, b]) => wordDiff(a.join(" "), b.join(" ")))));
    """
    shown = subprocess.run(
        ["node", "--input-type=module"], input=script, capture_output=True, text=True, check=True, timeout=60
    )
    for (before, after), groups in zip(pairs, json.loads(shown.stdout), strict=True):
        of = {
            kind: [word for group in groups if group["kind"] in ("same", kind) for word in group["words"]]
            for kind in ("removed", "added", "same")
        }
        assert of["removed"] == before
        assert of["added"] == after
        assert len(of["same"]) == longest_common(before, after)


def longest_common(a: list[str], b: list[str]) -> int:
    """The number of words in the longest common subsequence, by the textbook's table."""
    row = [0] * (len(b) + 1)
    for x in a:
        following = [0]
        for i, y in enumerate(b):
            following.append(row[i] + 1 if x == y else max(row[i + 1], following[i]))
        row = following
    return row[-1]
