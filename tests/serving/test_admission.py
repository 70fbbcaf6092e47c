"""The queue, time limits, and requests whose clients leave: what is refused, and when work ends."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from conftest import SAMPLE
from running_server import running, wait_for

from tilewhisper.engine.serving.work import Work

TRANSCRIPTIONS = "/v1/audio/transcriptions"


class Steps:
    """Counts a model's decode steps, and holds them while it is closed."""

    def __init__(self, batch) -> None:
        self.count = 0
        self._step, self._open = batch.step, threading.Event()
        self._open.set()

    def __call__(self):
        self.count += 1
        assert self._open.wait(60)
        return self._step()

    def hold(self) -> None:
        self._open.clear()

    def go_on(self) -> None:
        self._open.set()


@pytest.fixture
def steps(lent, monkeypatch):
    batch = lent()._scheduler._batch
    steps = Steps(batch)
    monkeypatch.setattr(batch, "step", steps)
    yield steps
    steps.go_on()


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def wait_for_a_step(server, steps):
    """Until a request is decoded: the first step may still be one of the test before."""
    wait_for(lambda: server.server.works and steps.count)


def post(server, fields=(), file=None):
    """The answer to a request, or the exception of a connection that ends."""
    with server.http() as http:
        files = {"file": file or ("sample.flac", SAMPLE.read_bytes())}
        return http.post(TRANSCRIPTIONS, data={"model": "whisper-1", **dict(fields)}, files=files)


def body(server, **fields):
    """A request as bytes, for a client that leaves."""
    with server.http() as http:
        files = {"file": ("sample.flac", SAMPLE.read_bytes())}
        request = http.build_request("POST", TRANSCRIPTIONS, data={"model": "whisper-1", **fields}, files=files)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST {TRANSCRIPTIONS} HTTP/1.1\r\n{head}\r\n".encode() + request.read()


def test_a_full_queue_is_answered_with_429(lent, steps, threads):
    with running(lent, max_running=1, max_waiting=1) as server:
        steps.hold()
        answers = [threads.submit(post, server) for _ in range(2)]
        wait_for(lambda: server.server.admission.active == 1 and server.server.admission.waiting == 1)
        refused = post(server)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError):
            server.openai().audio.transcriptions.create(file=SAMPLE, model="whisper-1")
        steps.go_on()
        assert [answer.result().status_code for answer in answers] == [200, 200]
        assert post(server).status_code == 200


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}])
def test_a_client_that_leaves_frees_its_place_within_two_steps(served, steps, fields):
    admission = served.server.admission
    steps.hold()
    with socket.create_connection(served.address) as leaving:
        leaving.sendall(body(served, **fields))
        wait_for_a_step(served, steps)
        (work,) = served.server.works
    wait_for(work._stopped.is_set)
    before = steps.count
    steps.go_on()
    wait_for(lambda: not admission.active and not served.server.works)
    assert steps.count <= before + 2


def test_a_client_that_leaves_ends_the_reading_of_its_audio(served, long_wav, monkeypatch):
    """After the block that is read at the moment; here, each block waits for the test."""
    blocks, go_on = [], threading.Semaphore(0)
    check = Work._check_audio

    def slow(self, seconds):
        blocks.append(seconds)
        assert go_on.acquire(timeout=60)
        check(self, seconds)

    monkeypatch.setattr(Work, "_check_audio", slow)
    with socket.create_connection(served.address) as leaving:
        leaving.sendall(body(served))
        wait_for(lambda: blocks)
        (work,) = served.server.works
    wait_for(work._stopped.is_set)
    go_on.release(9)
    wait_for(lambda: not served.server.works)
    assert len(blocks) == 1


def test_a_client_that_leaves_the_queue_is_never_decoded(lent, steps, threads):
    with running(lent, max_running=1) as server:
        steps.hold()
        first = threads.submit(post, server)
        wait_for(lambda: server.server.admission.active)
        with socket.create_connection(server.address) as leaving:
            leaving.sendall(body(server))
            wait_for(lambda: len(server.server.works) == 2)
        wait_for(lambda: server.server.admission.waiting == 0)
        steps.go_on()
        assert first.result().status_code == 200


def test_a_request_has_a_time_limit(lent, steps, threads):
    with running(lent, request_seconds=0.5) as server:
        steps.hold()
        answer = threads.submit(post, server)
        wait_for(lambda: server.server.works)
        (work,) = server.server.works
        wait_for(work._stopped.is_set)
        steps.go_on()
        assert answer.result().status_code == 504
        assert answer.result().json()["error"]["code"] == "timeout"
        assert answer.result().headers["x-should-retry"] == "false", "the client would send the long file again"


def test_a_stream_reports_the_error_that_ends_it(lent, steps, threads, long_wav):
    def consume(server):
        return [*server.openai().audio.transcriptions.create(file=long_wav, model="whisper-1", stream=True)]

    with running(lent, request_seconds=60) as server:
        steps.hold()
        events = threads.submit(consume, server)
        wait_for_a_step(server, steps)
        server.server.stop_all()  # as at the end of a shutdown
        steps.go_on()
        with pytest.raises(openai.APIError, match="shutting down"):
            events.result()


def test_a_shutdown_lets_requests_finish_and_refuses_new_ones(lent, steps, threads):
    with running(lent, shutdown_seconds=30) as server:
        steps.hold()
        answer = threads.submit(post, server)
        wait_for_a_step(server, steps)
        server.server.shutting_down.set()
        server.server.admission.closed = True
        refused = post(server)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        with server.http() as http:
            assert http.get("/health").json()["status"] == "stopping"
        steps.go_on()
        assert answer.result().status_code == 200


def test_a_request_of_a_server_that_stops_is_ended(lent, steps, threads):
    with running(lent) as server:
        steps.hold()
        answer = threads.submit(post, server)
        wait_for_a_step(server, steps)
        server.server.stop_all()
        steps.go_on()
        assert answer.result().status_code == 503


def test_requests_that_arrive_at_different_times_share_steps(served, steps, threads):
    steps.hold()
    answers = [threads.submit(post, served)]
    wait_for_a_step(served, steps)
    answers += [threads.submit(post, served, {"response_format": "verbose_json"}) for _ in range(3)]
    wait_for(lambda: served.server.admission.active == 4)
    time.sleep(0.1)  # until they are submitted
    steps.go_on()
    alone = answers[0].result().json()["text"]
    assert [answer.result().json()["text"] for answer in answers] == [alone] * 4
    batched = steps.count
    post(served)
    assert batched < 2.5 * (steps.count - batched), "four requests took the steps of four"


def test_live_sessions_have_places_of_their_own(lent):
    with running(lent, max_live=1) as server:
        admission = server.server.admission
        with admission.live_place():
            assert admission.live == 1
            with pytest.raises(Exception, match="1 live sessions run"), admission.live_place():
                pass
        assert admission.live == 0
