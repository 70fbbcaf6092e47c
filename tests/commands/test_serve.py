"""`tilewhisper serve`: what it refuses before it listens, and how it stops."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from conftest import require_weights

from tilewhisper.engine.commands import serve

PROGRAM = [sys.executable, "-c", "from tilewhisper.engine.commands.main import program; program()", "serve"]


def health(url: str) -> dict:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:  # while it loads
        return json.load(error)


def test_a_server_says_where_it_listens_and_ends_with_status_0():
    require_weights("tiny.en")
    command = [*PROGRAM, "--model", "tiny.en", "--policy", "torch", "--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        assert line.startswith("tilewhisper serves tiny.en (policy torch) at http://0.0.0.0:")
        assert health(line.split()[-1])["status"] in ("loading", "ready")
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("tilewhisper: warning: --host 0.0.0.0 can be reached by other machines, and no key")
    assert len(err.splitlines()) == 1, err


def test_a_default_model_that_does_not_load_ends_the_server(tilewhisper):
    require_weights("tiny.en")
    done = tilewhisper("serve", "--model", "tiny.en", "--policy", "npu", "--npu", "xdna2", "--port", "0")
    assert done.status == 2
    assert len(done.errors) == 1, done.err
    assert "the model tiny.en cannot be loaded: " in done.errors[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "bsae"], "unknown model 'bsae'"),
        (["--model", "/no/such/model"], "/no/such/model: no such file"),
        (["--policy", "fast"], "no policy 'fast'"),
        (["--api_key_file", "/no/such/keys"], "--api_key_file /no/such/keys: cannot be read (No such file"),
        (["--host", "no.such.host.invalid"], "--host no.such.host.invalid: is no address"),
        (["--port", "65536"], "must be a port from 0 to 65535"),
        (["--max_upload_mb", "0"], "must be a number > 0"),
        (["--max_waiting", "-1"], "must be a whole number >= 0"),
        (["--wyoming", "http://x"], "--wyoming"),
    ],
)
def test_requests_that_cannot_be_met(tilewhisper, flags, message):
    require_weights("tiny.en")
    words = flags if "--model" in flags else ["--model", "tiny.en", *flags]
    done = tilewhisper("serve", *words)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert not done.out


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"# none\n\n", "has no key"), (b"a b\n", "must not have spaces"), (b"\xff\xfe", "is not text in UTF-8")],
)
def test_key_files_that_have_no_key(tilewhisper, tmp_path, content, message):
    keys = tmp_path / "keys"
    keys.write_bytes(content)
    done = tilewhisper("serve", "--model", "tiny.en", "--api_key_file", keys)
    assert done.status == 2
    assert message in done.err


def test_a_port_in_use(tilewhisper):
    require_weights("tiny.en")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = tilewhisper("serve", "--model", "tiny.en", "--port", port)
    assert done.status == 2
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in done.err


def test_a_missing_package_is_named(tilewhisper, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    done = tilewhisper("serve", "--model", "tiny.en")
    assert done.status == 2
    assert "serve needs prometheus_client: pip install 'tilewhisper[serve]'" in done.err


def test_answers_do_not_wait_for_acknowledgements():
    """asyncio sets TCP_NODELAY only where the listening socket names its protocol."""
    with serve._listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
