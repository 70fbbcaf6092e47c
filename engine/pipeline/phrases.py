"""Phrases of live speech: where the speech probabilities of a stream begin and end one.

Positions are samples of the stream. The rules are those of `models.audio.vad`: a frame at the threshold is speech, a
frame below `silence_below` is silence, and a frame in between is what the frame before it was.
"""

from tilewhisper.models.audio.vad import FRAME_SAMPLES
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLES_PER_MS

MIN_SPEECH_FRAMES = 3
"""Frames of speech in a row that begin a phrase: a click is shorter than 96 ms, a word is longer."""


class PhraseDetector:
    """Follows the frames of a stream, one after the other."""

    def __init__(self, options: VadOptions) -> None:
        self._options = options
        self._run = 0  # frames of speech in a row, before a phrase
        self.start: int | None = None
        """Where the speech of the open phrase began; None in silence."""
        self.quiet: int | None = None
        """Where the silence at the end of the open phrase began; None while there is speech."""

    def step(self, position: int, probability: float) -> None:
        """Take the frame that begins at `position`."""
        if self.start is None:
            self._run = self._run + 1 if probability >= self._options.threshold else 0
            if self._run >= MIN_SPEECH_FRAMES:
                self.start, self.quiet = position - (self._run - 1) * FRAME_SAMPLES, None
        elif probability >= self._options.threshold:
            self.quiet = None
        elif probability < self._options.silence_below and self.quiet is None:
            self.quiet = position

    def silence(self, position: int) -> int:
        """The samples of silence at the end of the open phrase, up to `position`."""
        return 0 if self.quiet is None else position - self.quiet

    def ended(self, position: int) -> bool:
        """Whether enough silence has followed the phrase, up to `position`."""
        enough = max(self._options.min_silence_duration_ms * SAMPLES_PER_MS, FRAME_SAMPLES)
        return self.start is not None and self.silence(position) >= enough

    def close(self) -> None:
        """End the phrase."""
        self.start, self.quiet, self._run = None, None, 0
