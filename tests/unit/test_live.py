"""Live transcription: real speech in pieces, dropped and repeated audio, silence, language, and bounded memory."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import SAMPLE, SAMPLE_WORDS

pytest.importorskip("silero_vad", reason="live transcription needs pip install 'tilewhisper[vad]'")

from tilewhisper import Final, LiveOptions, LiveTranscriber, Partial, SpeechStarted, SpeechStopped
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.pipeline.agreement import agreed, revisions
from tilewhisper.engine.pipeline.live_decoder import LiveDecoder
from tilewhisper.engine.pipeline.phrases import PhraseDetector
from tilewhisper.engine.results import Word
from tilewhisper.models.audio.vad import FRAME_SAMPLES
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLE_RATE

SECOND = SAMPLE_RATE


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """The sample, and 1.5 s of silence."""
    return np.pad(soundfile.read(SAMPLE, dtype="float32")[0], (0, SECOND * 3 // 2))


@pytest.fixture
def live(engine) -> LiveTranscriber:
    return LiveTranscriber(engine("tiny.en"))


def fed(live: LiveTranscriber, samples: np.ndarray, size: int = SECOND // 10, at: float | None = None) -> list:
    events = live.feed(samples[:size], at=at)
    for first in range(size, len(samples), size):
        events += live.feed(samples[first : first + size])
    return events


def text_of(events: list) -> str:
    return "".join(event.text for event in events if isinstance(event, Final))


def words_of(events: list) -> list[Word]:
    return [word for event in events if isinstance(event, Final) for word in event.words]


@pytest.mark.slow
def test_speech_in_pieces_of_100_ms(live, speech):
    events = fed(live, speech)
    assert SAMPLE_WORDS in text_of(events)
    assert isinstance(events[0], SpeechStarted) and isinstance(events[-1], SpeechStopped)
    first_text = next(event for event in events if isinstance(event, Partial | Final))
    assert isinstance(first_text, Partial), "text is shown before it is final"
    words = words_of(events)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= len(speech) / SECOND - 1.4
    assert "".join(word.word for word in words) == text_of(events)
    assert live.finish() == []


@pytest.mark.slow
def test_one_long_piece_is_decoded_once_per_phrase(engine, speech):
    calls, transcribe = [], engine("tiny.en").transcribe

    def counted(*args, **options):
        calls.append(options)
        return transcribe(*args, **options)

    live = LiveTranscriber(SimpleNamespace(transcribe=counted))
    assert SAMPLE_WORDS in text_of(live.feed(speech))
    assert len(calls) <= 2  # two sentences


@pytest.mark.slow
def test_times_after_dropped_audio_and_repeated_audio(live, speech):
    events = fed(live, speech, SECOND, at=100.0)
    again = live.feed(speech, at=100.0)  # all of it was fed before
    assert again == []
    events += fed(live, speech, SECOND, at=200.0)
    texts = text_of(events)
    assert texts.count(SAMPLE_WORDS) == 2
    words = words_of(events)
    assert 100 <= words[0].start < 101
    assert [event.time for event in events if isinstance(event, SpeechStarted)][-1] >= 200
    assert 200 < words[-1].end < 208


@pytest.mark.slow
def test_a_gap_ends_the_phrase(live, speech):
    events = fed(live, speech[: 5 * SECOND], SECOND)
    assert not isinstance(events[-1], SpeechStopped)
    after = live.feed(speech[:1600], at=60.0)
    assert isinstance(after[-1], SpeechStopped) and after[-1].time <= 5


@pytest.mark.slow
def test_text_after_a_phrase_that_was_ended_in_the_middle_is_not_repeated(live, speech):
    middle = round(3.88 * SECOND)  # between two words
    events = fed(live, speech[:middle], SECOND) + live.finish() + fed(live, speech[middle:], SECOND) + live.finish()
    words = "".join(c for c in text_of(events).lower() if c.isalpha() or c == " ").split()
    assert words.count("questions") == words.count("meeting") == words.count("report") == 1


@pytest.mark.slow
def test_discarded_words_are_not_reported(live, speech):
    shown = fed(live, speech[: 2 * SECOND], SECOND)
    events = live.discard()
    assert not words_of(events) and isinstance(events[-1], SpeechStopped)
    assert [event.text for event in shown + events if isinstance(event, Partial)][-1] == ""
    assert live.discard() == live.finish() == []


def test_silence_and_noise_give_no_text_and_take_no_memory(engine):
    live = LiveTranscriber(engine("tiny.en"))
    noise = 0.01 * np.random.default_rng(0).standard_normal(30 * SECOND).astype(np.float32)
    for block in (np.zeros(30 * SECOND, np.float32), noise):
        assert text_of(fed(live, block, SECOND)) == ""
        assert live._audio.end - live._audio.first <= 2 * SECOND


@pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((2, 2), np.float32), [1, 2], b"ab"])
def test_samples_of_another_form_are_refused(engine, wrong):
    with pytest.raises(OptionError, match="float32 array"):
        LiveTranscriber(engine("tiny.en")).feed(wrong)


# ---- the parts


def words(text: str) -> list[Word]:
    return [Word(number, number + 1, f" {word}", 1.0) for number, word in enumerate(text.split())]


@pytest.mark.parametrize(
    ("before", "now", "count"),
    [
        ("so, we went", "So we went home", 3),
        ("we want", "we went", 1),
        ("", "we", 0),
        ("it is 5", "it is 50", 2),
        ("- yes", "yes", 0),
    ],
)
def test_agreement_ignores_case_and_punctuation(before, now, count):
    assert agreed(words(before), words(now)) == count
    assert revisions(words(before), words(now)) == len(before.split()) - count


def test_a_phrase_begins_with_speech_and_ends_with_silence():
    detector = PhraseDetector(VadOptions(min_silence_duration_ms=96))
    seen = []
    for number, probability in enumerate([0.9, 0.1, 0.9, 0.9, 0.9, 0.4, 0.1, 0.4, 0.4, 0.9]):
        detector.step(number * FRAME_SAMPLES, probability)
        seen.append((detector.start, detector.quiet, detector.ended((number + 1) * FRAME_SAMPLES)))
    start, quiet = 2 * FRAME_SAMPLES, 6 * FRAME_SAMPLES
    assert seen[:4] == [(None, None, False)] * 4, "a single frame of speech is no phrase"
    assert seen[4:6] == [(start, None, False)] * 2
    assert seen[6:9] == [(start, quiet, False), (start, quiet, False), (start, quiet, True)]
    assert seen[9] == (start, None, False), "speech again"


class Model:
    """Answers with the given languages, one after the other, and remembers what was asked."""

    def __init__(self, *languages: tuple[str, float]) -> None:
        self.languages = list(languages)
        self.asked: list[str | None] = []

    def transcribe(self, audio, **options):
        self.asked.append(options["language"])
        code, probability = self.languages.pop(0) if options["language"] is None else (options["language"], 1.0)
        segment = SimpleNamespace(words=words("ja"), compression_ratio=1.0)
        return iter([segment]), SimpleNamespace(language=code, language_probability=probability)


def test_the_language_is_detected_until_it_is_sure():
    model = Model(("nl", 0.4), ("de", 0.9), ("de", 0.9))
    decoder = LiveDecoder(model, LiveOptions())
    lengths = (3 * SECOND, SECOND, 3 * SECOND, SECOND)  # too unsure, too short, sure, given
    found = [decoder.decode(np.zeros(n, np.float32), (), "", checked=True).language for n in lengths]
    assert found == ["nl", "de", "de", "de"]
    assert model.asked == [None, None, None, "de"]
