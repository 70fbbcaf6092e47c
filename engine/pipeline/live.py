"""Transcribe speech while it is spoken: a growing window is decoded again and again, and its agreed words are final.

A window begins with a phrase. It is decoded every `interval` seconds of new speech, and at once when the speaker
pauses. A word is final when two successive hypotheses agree on it, or when a pause follows it, and the model is sure of
it; at the end of the phrase all are. Final words are the decoder's prefix from then on, so that later text continues
them. At a pause, or when it grows too long, the window is cut after its final words.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.pipeline.growing_window import GrowingWindow
from tilewhisper.engine.pipeline.live_audio import LatestAudio
from tilewhisper.engine.pipeline.live_decoder import LiveDecoder, Transcribes
from tilewhisper.engine.pipeline.live_events import Event, Partial, SpeechStarted, SpeechStopped
from tilewhisper.engine.pipeline.live_options import LiveOptions
from tilewhisper.engine.pipeline.phrases import PhraseDetector
from tilewhisper.engine.results import Word
from tilewhisper.models.audio.recording import Samples
from tilewhisper.models.audio.vad import FRAME_SAMPLES, SpeechDetector
from tilewhisper.models.constants import SAMPLE_RATE, SAMPLES_PER_MS

FIRST = 350 * SAMPLES_PER_MS
"""Samples of speech before the first hypothesis of a phrase."""
PAUSE = 32 * SAMPLES_PER_MS
"""Samples of silence after which the window is decoded at once, because the phrase may have ended."""
FINAL_PAUSE = 96 * SAMPLES_PER_MS
"""Samples of silence after which the words before it are final."""
SHORTEST = 2250 * SAMPLES_PER_MS
"""Samples that a window must have for a short pause to make its words final: a few words alone are easily misheard."""
SURE = 0.3
"""Least probability of a word that is final because a short pause follows; a less probable word, and all after it, wait
for the end of the phrase. 60 clips (base, int8, simulated; word errors of whole files 13.50): with SHORTEST and SURE of
0 s and 0.4, 15.02 % and a median delay of 245 ms; 1.5 s, 0.35: 15.21, 235; 1.5 s, 0.4: 14.35, 275; 2.25 s, 0.3: 14.45,
239; 3 s, 0.4: 13.69, 320."""
CUT_AFTER = 12 * SAMPLE_RATE
"""A longer window is cut at its next pause."""
LONGEST = 20 * SAMPLE_RATE
"""A window of this length is cut after its final words without a pause."""
UNSURE = 2.0
"""Seconds at the end of a window that is cut without a pause whose words are not made final by one hypothesis."""
LONGEST_STEP = 15 * SAMPLE_RATE
"""Samples that are taken at once."""
JITTER = 50 * SAMPLES_PER_MS
"""Stated times may differ by this much from the samples fed before without meaning a gap or an overlap."""
FILLED = 500 * SAMPLES_PER_MS
"""Gaps up to this length are filled with silence; a longer one ends the phrase."""
CONTEXT_CHARACTERS = 200
"""Of the text before a window, shown to the decoder."""


class LiveTranscriber:
    """The transcription of one stream. Not thread-safe; any number of streams may share one model."""

    def __init__(self, model: Transcribes, language: str | None = None, options: LiveOptions | None = None) -> None:
        """`language` overrides that of the options. Raises VadUnavailable without the extra `vad`."""
        options = options or LiveOptions()
        self._options = options if language is None else replace(options, language=language)
        self._decoder = LiveDecoder(model, self._options)
        self._history = self._options.prompt or ""
        self._spoken = 0.0
        self._shown: tuple[Word, ...] = ()
        self._window: GrowingWindow | None = None
        self._seek(0)

    def feed(self, samples: Any, at: float | None = None) -> list[Event]:
        """Take the next samples, float32 (n,) at 16 kHz of any length; return the events that they cause.

        `at` is the time of the first one in seconds of the stream, where it is known: after dropped samples times go on
        correctly, and samples that were fed before are left out. Raises OptionError, ModelsError and EngineError.
        """
        block = _checked(samples)
        events: list[Event] = []
        if at is not None:
            missing = round(at * SAMPLE_RATE) - self._audio.end
            if missing > FILLED:
                events += self.finish()
                self._seek(self._audio.end + missing)
            elif missing > JITTER:
                block = np.concatenate([np.zeros(missing, np.float32), block])
            elif missing < -JITTER:
                block = block[-missing:]
        for first in range(0, len(block), LONGEST_STEP):
            events += self._take(block[first : first + LONGEST_STEP])
        return events

    def finish(self) -> list[Event]:
        """End the open phrase as silence would, and return its last events. The stream may go on afterwards."""
        return list(self._end_phrase(self._audio.end)) if self._window else []

    def discard(self) -> list[Event]:
        """End the open phrase without its words that are not final."""
        if self._window is None:
            return []
        self._window.tail, self._window.decoded = (), self._audio.end
        return [*self._end_phrase(self._audio.end)]

    def _seek(self, position: int) -> None:
        """Go on with the samples from `position` on, which do not follow those before."""
        self._audio = LatestAudio(position)
        self._detector = SpeechDetector()
        self._phrases = PhraseDetector(self._options.vad)
        self._judged = position  # samples whose speech probability is known
        self._decoded = position  # samples that were decoded with phrases before

    def _take(self, samples: Samples) -> Iterator[Event]:
        self._audio.append(samples)
        for probability in self._detector.feed(samples):
            self._phrases.step(self._judged, float(probability))
            self._judged += FRAME_SAMPLES
            if self._window is None and self._phrases.start is not None:
                yield self._begin_phrase(self._phrases.start)
            elif self._phrases.ended(self._judged):
                yield from self._end_phrase(self._judged)
            elif self._window and self._judged - self._window.first >= LONGEST:
                yield from self._shorten(self._window)
        if self._window:
            yield from self._decode_if_due(self._window)
            self._audio.forget_before(self._window.first)
        else:
            self._audio.forget_before(self._judged - self._margin)

    @property
    def _margin(self) -> int:
        """Samples before the first word that belong to the phrase."""
        return self._options.vad.speech_pad_ms * SAMPLES_PER_MS

    def _begin_phrase(self, start: int) -> Event:
        self._window = GrowingWindow(max(self._decoded, self._audio.first, start - self._margin), self._spoken)
        self._window.decoded = start
        return SpeechStarted(start / SAMPLE_RATE)

    def _end_phrase(self, end: int) -> Iterator[Event]:
        window, quiet = self._window, self._phrases.quiet
        assert window is not None
        if window.decoded < (end if quiet is None else min(quiet + PAUSE, end)):
            yield from self._decode(window, end, checked=True)
        yield from self._make_final(window)
        yield SpeechStopped((end if quiet is None else quiet) / SAMPLE_RATE)
        self._remember(window)
        self._decoded = end if quiet is None else quiet
        self._window = None
        self._phrases.close()

    def _decode_if_due(self, window: GrowingWindow) -> Iterator[Event]:
        end, quiet = self._audio.end, self._phrases.quiet
        if quiet is None:
            interval = self._options.interval * SAMPLE_RATE if window.final or window.tail else FIRST
            if end - window.decoded >= interval:
                yield from self._decode(window, end, checked=False)
            return
        if self._phrases.silence(self._judged) < PAUSE:
            return
        if window.decoded < quiet + PAUSE:
            yield from self._decode(window, end, checked=True)
        if self._phrases.silence(self._judged) >= FINAL_PAUSE and quiet - window.first >= SHORTEST:
            yield from self._make_final(window, window.sure(SURE))
            if not window.tail and end - window.first >= CUT_AFTER:
                self._cut(window, quiet + PAUSE)

    def _decode(self, window: GrowingWindow, end: int, *, checked: bool) -> Iterator[Event]:
        samples = self._audio.read(window.first, end)
        hypothesis = self._decoder.decode(samples, window.final, self._history, checked=checked)
        if final := window.accept(hypothesis, end):
            yield final
        yield from self._show(window.tail)

    def _make_final(self, window: GrowingWindow, count: int | None = None) -> Iterator[Event]:
        if final := window.make_final(count):
            yield final
        yield from self._show(window.tail)

    def _show(self, words: tuple[Word, ...]) -> Iterator[Event]:
        """The words that are not final, if others were shown before."""
        if [word.word for word in words] != [word.word for word in self._shown]:
            yield Partial("".join(word.word for word in words), words)
        self._shown = words

    def _shorten(self, window: GrowingWindow) -> Iterator[Event]:
        """Cut a window that is too long after its final words."""
        if window.decoded < self._judged - UNSURE * SAMPLE_RATE or not window.final:
            yield from self._decode(window, self._judged, checked=True)
        if not window.final:
            sure = [word for word in window.tail if word.end <= self._judged / SAMPLE_RATE - UNSURE]
            yield from self._make_final(window, len(sure))
        self._cut(window, round(window.final[-1].end * SAMPLE_RATE) if window.final else self._judged)

    def _cut(self, window: GrowingWindow, position: int) -> None:
        """Begin a new window at `position`; the words that are not final go on in it."""
        self._remember(window)
        self._window = GrowingWindow(position, self._spoken)
        self._window.tail, self._window.decoded = window.tail, window.decoded

    def _remember(self, window: GrowingWindow) -> None:
        """Keep the end of the text before the next window."""
        if window.final:
            self._history = (self._history + "".join(word.word for word in window.final))[-CONTEXT_CHARACTERS:]
            self._spoken = window.final[-1].end


def _checked(samples: Any) -> Samples:
    """Raises OptionError."""
    block = np.asarray(samples)
    if block.dtype != np.float32 or block.ndim != 1:
        raise OptionError(
            f"samples must be a float32 array (n,) at 16 kHz, full scale at 1, got {block.dtype} {block.shape}"
        )
    return block
