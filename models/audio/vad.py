"""Voice activity detection: silero-vad's speech probabilities, turned into speech spans by faster-whisper's rules.

Samples are 16 kHz mono. The network is installed with `tilewhisper[vad]` and runs in ONNX Runtime on one thread. Its
file is read without importing the package, because importing silero-vad's loader limits torch to one thread in the
whole process.
Sequential transcription removes the silence, concatenates the spans and maps times back with a `Timeline`. Batched
transcription joins the spans to `chunks` of at most 30 s, each a contiguous part of the file.
"""

import bisect
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewhisper.models.audio.recording import Samples, join
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLE_RATE, SAMPLES_PER_MS, WINDOW_SAMPLES
from tilewhisper.models.errors import VadUnavailable

FRAME_SAMPLES = 512  # samples per probability: 32 ms
CONTEXT_SAMPLES = 64  # samples before the frame that the network sees as well
STATE_SIZE = 128  # of the network's LSTM
FRAMES_PER_RUN = 128  # 4 s: as fast as 16 s, which take 17 MB instead of 5
PAUSE_SAMPLES = SAMPLE_RATE  # so much silence cut out is a pause: a segment across it would be too long in the file
SHORT_SILENCE = 98 * SAMPLES_PER_MS  # a span that grows too long is cut at a silence longer than this

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SpeechSpan:
    """Samples start..end-1 of the file."""

    start: int
    end: int


class SpeechDetector:
    """Speech probabilities of a stream of samples, as they arrive. Raises VadUnavailable without the extra."""

    def __init__(self) -> None:
        self._session = _session()
        self._hidden = self._cell = np.zeros((1, 1, STATE_SIZE), np.float32)
        self._pending = np.zeros(CONTEXT_SAMPLES, np.float32)

    def feed(self, samples: Samples) -> Probabilities:
        """The probabilities (frames,) of the frames of 512 samples that are complete with these samples (n,)."""
        self._pending = join((self._pending, samples))
        complete = (len(self._pending) - CONTEXT_SAMPLES) // FRAME_SAMPLES
        found = [np.zeros(0, np.float32)]
        for first in range(0, complete, FRAMES_PER_RUN):
            last = min(first + FRAMES_PER_RUN, complete)
            found.append(self._run(self._pending[first * FRAME_SAMPLES : last * FRAME_SAMPLES + CONTEXT_SAMPLES]))
        self._pending = self._pending[complete * FRAME_SAMPLES :].copy()
        return np.concatenate(found)

    def finish(self) -> Probabilities:
        """The probability of the last frame, padded with zeros, if it has any samples."""
        left = len(self._pending) - CONTEXT_SAMPLES
        return self.feed(np.zeros(-left % FRAME_SAMPLES, np.float32))

    def _run(self, samples: Samples) -> Probabilities:
        """The probabilities of whole frames, which begin with the last 64 samples of the frame before."""
        windows = np.lib.stride_tricks.sliding_window_view(samples, CONTEXT_SAMPLES + FRAME_SAMPLES)
        frames = np.ascontiguousarray(windows[::FRAME_SAMPLES])
        inputs = {"input": frames, "h": self._hidden, "c": self._cell}
        values, self._hidden, self._cell = self._session.run(["speech_probs", "hn", "cn"], inputs)
        found: Probabilities = values.reshape(-1)
        return found


def speech_probabilities(blocks: Iterable[Samples]) -> Probabilities:
    """Compute the speech probability of each frame of 512 samples, (frames,); the last frame is padded with zeros.

    `blocks` are consecutive samples; memory does not grow with their total length. Raises `VadUnavailable` when the
    extra is not installed.
    """
    detector = SpeechDetector()
    return np.concatenate([*map(detector.feed, blocks), detector.finish()])


def speech_spans(probabilities: Probabilities, n_samples: int, options: VadOptions) -> list[SpeechSpan]:
    """The speech in audio of `n_samples` samples, in order and without overlap."""
    speech = list(_unpadded_spans(probabilities, n_samples, options))
    return _padded(speech, n_samples, options.speech_pad_ms * SAMPLES_PER_MS)


def within_speech(start: float, end: float, spans: Sequence[SpeechSpan]) -> tuple[float, float]:
    """The seconds of the file from `start` to `end` without the silence before the first speech in them and after the
    last; unchanged where they hold no speech."""
    first = bisect.bisect_right(spans, start * SAMPLE_RATE, key=lambda span: span.end)
    after = bisect.bisect_left(spans, end * SAMPLE_RATE, key=lambda span: span.start)
    if first >= after:
        return start, end
    return max(start, spans[first].start / SAMPLE_RATE), min(end, spans[after - 1].end / SAMPLE_RATE)


def chunks(spans: Sequence[SpeechSpan], max_samples: int = WINDOW_SAMPLES) -> list[SpeechSpan]:
    """Join neighbouring spans, with the silence between them, to chunks of at most `max_samples`.

    Unless it is the last, a chunk ends at the longest silence in the second half of `max_samples`. Compared with
    chunks as long as possible, on 450 s of clips joined in 4 orders, word error rates are 14.3 instead of 14.8 (base)
    and 17.5 instead of 17.0 (tiny.en) in 90% of the time, since the cost of attention grows with the length squared.
    A span longer than `max_samples` is cut into equal parts; `VadOptions(max_speech_duration_s=30)` cuts it at its
    silences before that.
    """
    parts = [part for span in spans for part in _equal_parts(span, max_samples)]
    joined: list[SpeechSpan] = []
    first = 0
    while first < len(parts):
        after = _chunk_end(parts, first, max_samples)
        joined.append(SpeechSpan(parts[first].start, parts[after - 1].end))
        first = after
    return joined


class Timeline:
    """Map times in the concatenated spans back to times in the file. All times are in seconds."""

    def __init__(self, spans: Sequence[SpeechSpan]) -> None:
        lengths = [span.end - span.start for span in spans]
        self._ends = [*accumulate(lengths)]  # of each span in the concatenation, in samples
        self._silence = [span.end - end for span, end in zip(spans, self._ends, strict=True)]  # removed before its end
        self.duration = sum(lengths) / SAMPLE_RATE
        gaps = [after.start - before.end for before, after in pairwise(spans)]
        self.pauses = tuple(
            end / SAMPLE_RATE for end, gap in zip(self._ends, gaps, strict=False) if gap >= PAUSE_SAMPLES
        )
        """Where in the concatenation at least a second of silence is missing."""

    def restore(self, seconds: float, *, is_end: bool = False) -> float:
        """The time in the file. At a cut between two spans, an end belongs to the first span, a start to the second."""
        return seconds + self._offset(seconds, is_end)

    def restore_word(self, start: float, end: float) -> tuple[float, float]:
        """The start and end of a word in the file.

        Both move with the span that contains the word's middle, so that no word is stretched over removed silence.
        """
        offset = self._offset((start + end) / 2, False)
        return start + offset, end + offset

    def _offset(self, seconds: float, is_end: bool) -> float:
        if not self._ends:
            return 0.0
        # Timestamps are whole samples; their floats are off by rounding errors.
        sample = round(seconds * SAMPLE_RATE)
        span = bisect.bisect_left(self._ends, sample) if is_end else bisect.bisect_right(self._ends, sample)
        return self._silence[min(span, len(self._ends) - 1)] / SAMPLE_RATE


@lru_cache
def _session() -> Any:
    package = importlib.util.find_spec("silero_vad")
    try:
        import onnxruntime
    except ImportError:
        package = None
    if package is None or package.origin is None:
        raise VadUnavailable(
            "vad_filter needs silero-vad and onnxruntime, which are not installed: pip install 'tilewhisper[vad]'"
        )
    model = Path(package.origin).with_name("data") / "silero_vad_16k_sequence.onnx"
    if not model.is_file():
        raise VadUnavailable(
            f"the installed silero-vad is too old, it has no {model.name}: pip install --upgrade 'tilewhisper[vad]'"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _unpadded_spans(probabilities: Probabilities, n_samples: int, options: VadOptions) -> Iterator[SpeechSpan]:
    shortest = options.min_speech_duration_ms * SAMPLES_PER_MS
    padding = 2 * options.speech_pad_ms * SAMPLES_PER_MS
    longest = options.max_speech_duration_s * SAMPLE_RATE - FRAME_SAMPLES - padding
    start: int | None = None  # of the open span
    quiet: int | None = None  # start of the silence that may end the span
    cut: int | None = None  # start of the last silence at which the span may be cut when it grows too long
    resumed: int | None = None  # where speech continues after `cut`
    for frame, probability in enumerate(probabilities):
        here = frame * FRAME_SAMPLES
        if probability >= options.threshold:
            if start is None:
                start = here
                continue
            if quiet is not None and cut is not None and resumed is None:
                resumed = here
            quiet = None
        if start is None:
            continue
        if here - start > longest:
            yield SpeechSpan(start, here if cut is None else cut)
            # None if speech has not continued yet: the next span then starts when it does.
            start, quiet, cut, resumed = resumed, None, None, None
            if start is None:
                continue
        if probability >= options.silence_below:
            continue
        quiet = here if quiet is None else quiet
        if here - quiet > SHORT_SILENCE and cut != quiet:
            cut, resumed = quiet, None
        if here - quiet >= options.min_silence_duration_ms * SAMPLES_PER_MS:
            if quiet - start > shortest:
                yield SpeechSpan(start, quiet)
            start = quiet = cut = resumed = None
    if start is not None and n_samples - start > shortest:
        yield SpeechSpan(start, n_samples)


def _padded(spans: Sequence[SpeechSpan], n_samples: int, pad: int) -> list[SpeechSpan]:
    """Extend each span on both sides by `pad` samples, or by half of the gap to its neighbour if that is less."""
    gaps = [after.start - before.end for before, after in pairwise(spans)]
    margins = [pad if gap >= 2 * pad else gap // 2 for gap in gaps]
    return [
        SpeechSpan(max(0, span.start - before), min(n_samples, span.end + after))
        for span, before, after in zip(spans, [pad, *margins], [*margins, pad], strict=False)
    ]


def _chunk_end(parts: Sequence[SpeechSpan], first: int, longest: int) -> int:
    """One past the index of the last part in the chunk that starts with part `first`."""

    def ended_by(length: int) -> int:
        return bisect.bisect_right(parts, parts[first].start + length, lo=first, key=lambda part: part.end)

    most = ended_by(longest)
    if most == len(parts):
        return most
    least = min(ended_by(longest // 2) + 1, most)
    return max(range(least, most + 1), key=lambda n: (parts[n].start - parts[n - 1].end, n))


def _equal_parts(span: SpeechSpan, longest: int) -> Iterator[SpeechSpan]:
    length = span.end - span.start
    count = -(-length // longest)
    edges = [span.start + length * i // count for i in range(count + 1)]
    yield from (SpeechSpan(start, end) for start, end in pairwise(edges))
