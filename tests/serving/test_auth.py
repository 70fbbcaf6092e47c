"""Pages of other websites, which a browser lets send requests and open WebSockets to a server on this machine."""

import asyncio

import pytest
from running_server import running

websockets = pytest.importorskip("websockets")


@pytest.fixture
def client(served):
    with served.http() as http:
        yield http


def status(client, **headers) -> int:
    return client.post("/v1/audio/transcriptions", headers=headers).status_code


@pytest.mark.parametrize(
    "origin", ["https://example.com", "null", "http://127.0.0.1:1", "http://localhost.example.com"]
)
def test_other_pages_are_refused(client, origin):
    answer = client.post("/v1/audio/transcriptions", headers={"origin": origin})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_refused"
    assert "--cors_origin" in answer.json()["error"]["message"]


def test_a_name_that_a_website_points_here_is_refused(client):
    assert status(client, host="example.com:8000", origin="http://example.com:8000") == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "192.168.1.10"])
def test_the_servers_own_page_is_let_in(client, host):
    assert status(client, host=host, origin=f"http://{host}") == 415  # no form was sent


def test_clients_that_are_no_browsers_may_use_any_name(client):
    assert status(client, host="tilewhisper.example.com") == 415


def test_an_origin_that_was_allowed_is_let_in(lent):
    with running(lent, cors_origins=("https://example.com",)) as server, server.http() as http:
        assert status(http, origin="https://example.com") == 415
        assert status(http, origin="https://example.org") == 403


def test_a_page_with_a_key_may_come_from_anywhere(lent):
    with running(lent, api_keys=("key",)) as server, server.http() as http:
        assert status(http, origin="https://example.com") == 401
        assert status(http, origin="https://example.com", authorization="Bearer key") == 415


def test_websockets_of_other_pages_are_refused(served):
    async def connect(origin):
        host, port = served.address
        async with websockets.connect(f"ws://{host}:{port}/v1/realtime?intent=transcription", origin=origin):
            pass

    asyncio.run(connect(None))
    with pytest.raises(websockets.InvalidStatus, match="403"):
        asyncio.run(connect("https://example.com"))
