"""The page in headless Chromium, on a server of its own: what a visitor does, sees, and hears by a screen reader."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE, SAMPLE_WORDS, SHARED, require_weights
from running_server import Running, running, wait_for

from tilewhisper import WhisperModel

playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install 'tilewhisper[browser]'")
axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright", reason="as playwright")
from playwright.sync_api import Browser, Page, expect  # noqa: E402

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
Scheme = Literal["light", "dark"]
SECONDS = 60
"""For anything that has to appear; a busy machine is not a defect."""
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
JFK = SHARED / "jfk.flac"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    require_weights("tiny.en")
    with running(WhisperModel, policy="cpu") as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    """Chromium whose microphone plays the sample again and again."""
    if CHROMIUM is None:
        pytest.skip("Chromium is missing: apt install chromium")
    spoken = tmp_path_factory.mktemp("microphone") / "sample.wav"
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    soundfile.write(spoken, np.pad(samples, (rate // 2, 2 * rate)), rate)
    expect.set_options(timeout=1000 * SECONDS)
    fake_microphone = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", *fake_microphone, f"--use-file-for-fake-audio-capture={spoken}"],
        )
        yield browser
        browser.close()


class Visit:
    """Opens the page, and collects all requests and the errors of the console."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser, self._url = browser, url
        self.pages: list[Page] = []
        self.requests: list[str] = []
        self.errors: list[str] = []

    def __call__(
        self, url: str | None = None, size: str = "desktop", scheme: Literal["light", "dark"] = "light"
    ) -> Page:
        width, height = SIZES[size]
        page = self._browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(1000 * SECONDS)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(url or self._url)
        self.pages.append(page)
        return page

    def forgive(self, status: int) -> None:
        """Forget errors of the console that only say that the server answered with this status."""
        self.errors = [text for text in self.errors if f"status of {status}" not in text]


@pytest.fixture
def visit(browser, server) -> Iterator[Visit]:
    """Opens the page; at the end, nothing went to another host and the console has no errors."""
    visit = Visit(browser, server.url)
    yield visit
    for page in visit.pages:
        page.close()
    assert visit.requests
    assert not [url for url in visit.requests if not re.match(r"(blob:)?(http|ws)://127\.0\.0\.1:\d+/", url)]
    assert not visit.errors


def transcribe(page: Page, audio: Path = SAMPLE, words: str = SAMPLE_WORDS) -> None:
    expect(page.get_by_label("Encoder: layers by products")).to_be_visible()
    page.get_by_label("Choose a file").set_input_files(audio)
    expect(page.get_by_label("Segments")).to_contain_text(words)
    expect(page.get_by_role("status").filter(has_text="is complete")).to_be_visible()


@pytest.mark.parametrize(
    ("audio", "words"),
    [
        (SAMPLE, SAMPLE_WORDS),
        pytest.param(
            JFK, "ask what you can do", marks=pytest.mark.skipif(not JFK.is_file(), reason=f"{JFK} is missing")
        ),
    ],
    ids=["sample", "jfk"],
)
def test_a_file_becomes_text_that_plays_and_can_be_saved(visit, audio, words):
    page = visit()
    transcribe(page, audio, words)
    segments = page.get_by_label("Segments").get_by_role("button")
    segments.last.click()
    expect(segments.last).to_have_attribute("aria-current", "true")
    assert page.evaluate("!document.getElementById('player').paused")
    for format, start in (("SRT", "1\n00:00:0"), ("VTT", "WEBVTT\n\n"), ("TXT", ""), ("JSON", '{"text": ')):
        with page.expect_download() as download:
            page.get_by_role("button", name=format).click()
        assert download.value.suggested_filename == f"{audio.stem}.{format.lower()}"
        text = Path(download.value.path()).read_text("utf-8")
        assert text.startswith(start)
        assert words in " ".join(text.split())


def test_a_cell_is_switched_by_the_keyboard_and_both_runs_are_compared(visit):
    page = visit()
    transcribe(page)
    grid = page.get_by_label("Encoder: layers by products")
    grid.get_by_role("button", name="Whole encoder").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowRight", "ArrowDown", "End"):
        page.keyboard.press(key)
    expect(page.locator("#selection")).to_have_text("layer 1, second feed-forward product")
    page.keyboard.press("Tab")  # out of the grid, to the first backend
    page.keyboard.press("Enter")
    expect(page.locator("#changes")).to_contain_text("1 of 35 changed")
    changed = grid.get_by_role("button", name="layer 1, second feed-forward product: torch")
    expect(changed).to_contain_text("changed")
    page.get_by_role("button", name="Run again", exact=True).click()

    comparison = page.get_by_role("region", name="Comparison")
    expect(comparison).to_contain_text("relative difference of the states")
    expect(comparison.get_by_role("cell").filter(has_text="int16 → torch")).to_have_count(1)
    for part in ("The texts are equal.", "Real-time factor", "Run 1", "Run 2"):
        expect(comparison).to_contain_text(part)
    error = float(re.search(r"([\d.e-]+) % relative", comparison.inner_text())[1])
    assert 0 < error < 1, "percent: int16 is that near to float32"
    expect(changed).to_contain_text(re.compile(r"\d (ms|µs)"))
    page.get_by_role("button", name="Undo the changes").click()
    expect(page.locator("#changes")).to_contain_text("unchanged")


def test_a_recording_is_transcribed(visit):
    page = visit()
    expect(page.get_by_label("Encoder: layers by products")).to_be_visible()
    page.get_by_role("button", name="Record").click()
    expect(page.get_by_role("button", name="Stop recording")).to_be_visible()
    page.wait_for_timeout(9000)  # the sample, which the fake microphone plays from its start
    page.get_by_role("button", name="Stop recording").click()
    expect(page.get_by_label("Segments")).to_contain_text("coming to the meeting")


def test_speech_becomes_captions(visit):
    page = visit()
    page.get_by_role("tab", name="Live captions").click()
    expect(page.get_by_label("Model")).to_have_value("tiny.en")
    page.get_by_role("button", name="Start captions").click()
    expect(page.locator("#captions .partial").filter(has_text=re.compile(r"\w")).first).to_be_attached()
    captions = page.get_by_role("log", name="Captions so far").locator("span:not(.partial)")
    expect(captions.filter(has_text="coming to the meeting").first).to_be_visible()
    expect(captions.filter(has_text=SAMPLE_WORDS).first).to_be_visible()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("button", name="Start captions")).to_be_enabled()
    expect(page.get_by_role("alert")).to_be_empty()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as text").click()
    assert "coming to the meeting" in Path(download.value.path()).read_text("utf-8")


def test_a_run_can_be_cancelled(visit, server, tmp_path):
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    soundfile.write(tmp_path / "long.flac", np.tile(samples, 40), rate)
    page = visit()
    expect(page.get_by_label("Encoder: layers by products")).to_be_visible()
    page.get_by_label("Choose a file").set_input_files(tmp_path / "long.flac")
    expect(page.get_by_label("Segments")).to_contain_text("coming to the meeting")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status").filter(has_text="Cancelled")).to_be_visible()
    wait_for(lambda: not server.server.works)


@pytest.mark.parametrize("audio", [b"this is no audio", b""], ids=["text", "empty"])
def test_an_error_of_the_server_is_announced(visit, audio):
    page = visit()
    file = {"name": "talk.mp3", "mimeType": "audio/mpeg", "buffer": audio}
    page.get_by_label("Choose a file").set_input_files(file)
    expect(page.get_by_role("alert")).to_contain_text("file")
    expect(page.get_by_role("button", name="Transcribe again")).to_be_visible()
    visit.forgive(400)


def test_a_server_with_keys_is_used_with_a_key(visit, server, lent):
    with running(lent, policy="torch", api_keys=("secret",)) as guarded:
        page = visit(guarded.url)
        for key in ("wrong", "secret"):
            page.get_by_label("API key").fill(key)
            page.keyboard.press("Enter")
            if key == "wrong":
                expect(page.get_by_role("alert")).to_contain_text("wrong")
        expect(page.get_by_label("API key")).to_be_hidden()
        transcribe(page)
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0, "the key is kept in memory only"
        page.close()
    visit.forgive(401)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_stands_in_the_way_of_any_visitor(visit, size, scheme):
    """axe-core's serious and critical findings, and scrolling sideways, in every state of the page."""
    page = visit(size=size, scheme=scheme)
    transcribe(page)
    page.get_by_role("button", name="Whole encoder").click()
    page.get_by_role("button", name=re.compile("^int8")).click()
    page.get_by_role("button", name="Run again", exact=True).click()
    expect(page.get_by_role("region", name="Comparison")).to_contain_text("relative difference")
    page.get_by_text("As a table").first.click()
    check_accessible(page)
    page.get_by_role("tab", name="Live captions").click()
    check_accessible(page)


def check_accessible(page: Page) -> None:
    found = axe_playwright.Axe().run(page).response["violations"]
    bad = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not [(each["id"], [node["html"] for node in each["nodes"]]) for each in bad]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
