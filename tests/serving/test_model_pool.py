"""The pool of models: names, loading once, errors, unloading, and the memory limit. Models are stand-ins."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from running_server import Running, running, wait_for

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.engine.serving.model_names import ModelNames, served_name
from tilewhisper.engine.serving.model_pool import ModelPool, ModelState
from tilewhisper.engine.serving.settings import ServerSettings
from tilewhisper.models.errors import CheckpointError

MEGABYTE = 1 << 20


class FakeModel(SimpleNamespace):
    """Has the parts of a model that the pool uses."""

    def __init__(self, name: str, bytes: int) -> None:
        runtime = SimpleNamespace(weight_bytes=bytes)
        super().__init__(name=name, closed=False, runtime=runtime, backend_labels=("fake",))

    def start_loop(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Loader:
    """Makes stand-ins, and counts them."""

    def __init__(self, bytes: int = 0) -> None:
        self.loaded: list[FakeModel] = []
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self._bytes = bytes

    def __call__(self, name, **options):
        assert self.open.wait(20)
        if self.error:
            raise self.error
        self.loaded.append(FakeModel(name, self._bytes))
        return self.loaded[-1]


@pytest.fixture
def loader():
    return Loader()


@pytest.fixture
def make(loader):
    """Make a pool of stand-ins; it is closed after the test."""
    pools = []

    def pool(*models: str, **settings) -> ModelPool:
        pools.append(ModelPool(ServerSettings(models or ("tiny.en",), **settings), loader))
        return pools[-1]

    yield pool
    loader.open.set()
    for one in pools:
        one.close()


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("base", "base"),
        ("tiny.en", "tiny.en"),
        ("whisper-1", "base"),
        ("openai/whisper-base", "base"),
        ("whisper-tiny.en", "tiny.en"),
        ("turbo", "large-v3-turbo"),
        ("large-v3-turbo", "large-v3-turbo"),
        ("small", "base"),
        ("openai/whisper-large-v3", "base"),
        ("my/own-whisper", "my/own-whisper"),
    ],
)
def test_names(name, served):
    assert ModelNames(["base", "tiny.en", "large-v3-turbo", "my/own-whisper"]).resolve(name) == served


@pytest.mark.parametrize("name", ["gpt-4o-transcribe", "", "own-whisper", "BASE", "../base", "whisper-2"])
def test_other_names_are_refused_with_the_list(name):
    with pytest.raises(RequestError, match=r"the models are base, tiny.en, and whisper-1") as error:
        ModelNames(["base", "tiny.en"]).resolve(name)
    assert (error.value.status, error.value.param, error.value.code) == (404, "model", "model_not_found")


@pytest.mark.parametrize(
    ("model", "name"),
    [("/data/models/mine", "mine"), ("./mine.pt", "mine"), ("org/name", "org/name"), ("C:\\models\\mine", "mine")],
)
def test_paths_are_served_by_their_last_part(model, name):
    assert served_name(model) == name


def test_two_models_of_one_name_are_refused():
    with pytest.raises(OptionError, match="two models have the same name"):
        ModelNames(["/a/mine", "/b/mine"])


def test_a_model_with_other_backends_makes_room_for_the_next(make, loader):
    pool = make(backends=("conv1=torch",))
    for backends in ((), ("*.fc1=int8",), ("*.fc1=int16",)):
        with pool.lease("tiny.en", backends):
            pass
    wait_for(lambda: loader.loaded[1].closed)
    assert [model.closed for model in loader.loaded] == [False, True, False]
    with pool.lease("tiny.en"), pool.lease("tiny.en", ("*.fc1=int16",)):
        assert len(loader.loaded) == 3, "both are still there"


def test_a_model_is_loaded_once_for_all_who_wait(make, loader):
    pool = make()
    loader.open.clear()

    def use(_):
        with pool.lease("whisper-1") as model:
            return model

    with ThreadPoolExecutor(4) as threads:
        models = threads.map(use, range(4))
        wait_for(lambda: pool.state("tiny.en") is ModelState.LOADING)
        loader.open.set()
        assert {id(model) for model in models} == {id(loader.loaded[0])}
    assert len(loader.loaded) == 1
    assert pool.state("tiny.en") is ModelState.READY


def test_a_client_that_leaves_does_not_end_the_loading_for_others(make, loader):
    pool = make()
    loader.open.clear()

    async def use():
        async with pool.leased("tiny.en") as model:
            return model

    async def both():
        leaving, staying = asyncio.create_task(use()), asyncio.create_task(use())
        await asyncio.sleep(0.01)
        leaving.cancel()
        loader.open.set()
        return await staying

    assert asyncio.run(both()) is loader.loaded[0]


def test_an_error_of_loading_is_reported_to_all_and_tried_again(make, loader):
    pool = make()
    loader.error = CheckpointError("/secret/model.bin: is corrupt")
    for _ in range(2):
        with pytest.raises(RequestError) as error, pool.lease("tiny.en"):
            pass
        assert error.value.status == 500
        assert "secret" not in error.value.message
        assert pool.state("tiny.en") is ModelState.FAILED
    loader.error = None
    with pool.lease("tiny.en") as model:
        assert model is loader.loaded[0]


def test_overrides_are_models_of_their_own(make, loader):
    pool = make(backends=("decoder=torch",))
    with pool.lease("tiny.en"), pool.lease("tiny.en", ["layers.0.*=torch"]), pool.lease("tiny.en"):
        assert len(loader.loaded) == 2


def test_idle_models_are_unloaded_and_loaded_again(make, loader):
    pool = make(unload_after=0.05)
    with pool.lease("tiny.en") as model:
        time.sleep(0.1)
        pool.unload_idle()
        assert not model.closed, "it is in use"
    pool.unload_idle()
    assert not model.closed, "it was just in use"
    time.sleep(0.1)
    pool.unload_idle()
    wait_for(lambda: model.closed)
    assert pool.state("tiny.en") is ModelState.UNLOADED
    with pool.lease("tiny.en") as again:
        assert again is not model


def test_without_a_limit_nothing_is_unloaded(make):
    pool = make()
    with pool.lease("tiny.en") as model:
        pass
    pool.unload_idle()
    assert not model.closed


@pytest.fixture
def sizes(monkeypatch):
    """Every model takes 10 MB."""
    monkeypatch.setattr(ModelPool, "_weight_bytes", lambda self, served: 10 * MEGABYTE)
    return Loader(10 * MEGABYTE)


def test_the_least_recently_used_model_makes_room(sizes):
    pool = ModelPool(ServerSettings(("base", "tiny", "small"), memory_limit=25 * MEGABYTE), sizes)
    for name in ("base", "tiny", "base", "small"):
        with pool.lease(name):
            pass
    assert [(model.name, model.closed) for model in sizes.loaded] == [("base", False), ("tiny", True), ("small", False)]
    pool.close()
    assert all(model.closed for model in sizes.loaded)


def test_a_model_that_is_larger_than_its_files_makes_room_once_it_is_loaded(monkeypatch):
    monkeypatch.setattr(ModelPool, "_weight_bytes", lambda self, served: MEGABYTE)
    load = Loader(10 * MEGABYTE)
    pool = ModelPool(ServerSettings(("base", "tiny"), memory_limit=15 * MEGABYTE), load)
    for name in ("base", "tiny"):
        with pool.lease(name):
            pass
    wait_for(lambda: load.loaded[0].closed)
    assert not load.loaded[1].closed
    pool.close()


def test_models_in_use_are_not_unloaded_for_others(sizes):
    pool = ModelPool(ServerSettings(("base", "tiny"), memory_limit=15 * MEGABYTE), sizes)
    with pool.lease("base"):
        with pytest.raises(RequestError, match="other models are in use") as error, pool.lease("tiny"):
            pass
        assert (error.value.status, error.value.headers) == (503, {"Retry-After": "10"})
    with pool.lease("tiny"):
        assert [model.closed for model in sizes.loaded] == [True, False]
    pool.close()


def test_a_model_above_the_limit_is_refused(sizes):
    pool = ModelPool(ServerSettings(("base",), memory_limit=5 * MEGABYTE), sizes)
    with pytest.raises(RequestError, match="takes 10 MB, and the memory limit of this server is 5 MB"):
        pool._enter("base", ())
    pool.close()


def test_a_closed_pool_refuses(make):
    pool = make()
    pool.close()
    with pytest.raises(RequestError, match="shutting down"), pool.lease("tiny.en"):
        pass


def health(server: Running) -> tuple[int, str, str]:
    with server.http() as http:
        answer = http.get("/health")
    return answer.status_code, answer.json()["status"], answer.json()["models"][0]["state"]


def test_health_says_loading_then_ready(loader):
    loader.open.clear()
    with running(loader) as server:
        wait_for(lambda: health(server) == (503, "loading", "loading"))
        loader.open.set()
        wait_for(lambda: health(server) == (200, "ready", "ready"))
        with server.http() as http:
            assert http.get("/health").json()["models"] == [
                {"name": "tiny.en", "state": "ready", "backends": ["fake"], "emulated": False}
            ]
            assert http.head("/health").status_code == 200


def test_health_says_failed(loader):
    loader.error = CheckpointError("broken")
    with running(loader) as server:
        wait_for(lambda: health(server) == (503, "failed", "failed"))


def test_idle_models_of_a_running_server_are_unloaded(loader, monkeypatch):
    monkeypatch.setattr("tilewhisper.engine.serving.app._SWEEP_SECONDS", 0.02)
    with running(loader, unload_after=0.05) as server:
        wait_for(lambda: health(server) == (200, "ready", "unloaded"))
    assert loader.loaded[0].closed
