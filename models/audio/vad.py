"""Where speech is: silero-vad's probabilities, cut into spans by faster-whisper's options and rules.

Samples are 16 kHz mono. The network comes by pip (`tilewhisper[vad]`) and runs in ONNX Runtime, one thread. The package
is not imported, only its file read: importing its loader sets torch to one thread, for the whole process.
Spans go two ways to a transcription: cut out and laid end to end, with a `Timeline` back to the file (sequential mode);
or gathered to `chunks` of at most 30 s, each a stretch of the file as it is (batched mode).
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
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import VadUnavailable

FRAME = 512  # samples to a probability
CONTEXT = 64  # samples before its own that a frame sees
STATE = 128
FRAMES_PER_RUN = 512  # 16 s: one call's overhead is spread over it, and its memory is small
PER_MS = SAMPLE_RATE // 1000  # samples
CUT_TOLERANCE = 0.5  # seconds
SHORT_SILENCE = 98 * PER_MS  # a span that grows too long is cut in a silence longer than that

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Span:
    """Samples start..end-1 of the file."""

    start: int
    end: int


def speech_probabilities(blocks: Iterable[Samples]) -> Probabilities:
    """One probability for every 512 samples of the audio that comes in `blocks`, the last filled up with zeros.

    Memory is flat in the audio's length. Raises `VadUnavailable` where the extra is not installed.
    """
    session = _session()
    hidden = cell = np.zeros((1, 1, STATE), np.float32)
    found = [np.zeros(0, np.float32)]
    for frames in _framed(blocks):
        values, hidden, cell = session.run(["speech_probs", "hn", "cn"], {"input": frames, "h": hidden, "c": cell})
        found.append(values.reshape(-1))
    return np.concatenate(found)


def speech_spans(probabilities: Probabilities, n_samples: int, options: VadOptions) -> list[Span]:
    """Where the audio of `n_samples` samples has speech, in order, apart from each other."""
    return _padded(list(_speech(probabilities, n_samples, options)), n_samples, options.speech_pad_ms * PER_MS)


def chunks(spans: Sequence[Span], max_samples: int = 30 * SAMPLE_RATE) -> list[Span]:
    """Neighbouring spans, and the silence between them, joined to at most `max_samples`; where more follows, up to the
    longest silence in the second half of that.

    Beside as long as possible, clips joined to 4 orders of 450 s gave word errors of 14.3 in place of 14.8 (base) and
    17.5 in place of 17.0 (tiny.en), in nine tenths of the time: attention's grows with the square of the length.
    A longer span is cut into equal parts; `max_speech_duration_s=30` has it cut in its silences before.
    """
    parts = [part for span in spans for part in _parts(span, max_samples)]
    joined: list[Span] = []
    first = 0
    while first < len(parts):
        after = _chunk_end(parts, first, max_samples)
        joined.append(Span(parts[first].start, parts[after - 1].end))
        first = after
    return joined


class Timeline:
    """Times in the spans laid end to end, back to times in the file. Seconds."""

    def __init__(self, spans: Sequence[Span]) -> None:
        lengths = [span.end - span.start for span in spans]
        self._ends = [*accumulate(lengths)]
        self._silence = [span.end - end for span, end in zip(spans, self._ends, strict=True)]
        self.duration = sum(lengths) / SAMPLE_RATE

    def restore(self, seconds: float, *, is_end: bool = False) -> float:
        """Where two spans meet, an end belongs to the one before, everything else to the one after."""
        return seconds + self._offset(seconds, is_end)

    def restore_segment(self, start: float, end: float) -> tuple[float, float]:
        """Move a segment, whose ends may lie just beyond the speech it belongs to.

        The model's timestamps miss the silence that was cut out by some hundredths of a second. A span ends with up to
        0.4 s of padding without speech, so a part of a segment up to `CUT_TOLERANCE` beyond a cut holds no speech: it
        would stretch the segment over the whole pause.
        """
        for cut in (samples / SAMPLE_RATE for samples in self._ends[:-1]):
            if start < cut < end:
                before, after = cut - start, end - cut
                if before <= CUT_TOLERANCE and before < after:
                    start = cut
                elif after <= CUT_TOLERANCE:
                    end = cut
        return self.restore(start), self.restore(end, is_end=True)

    def restore_word(self, start: float, end: float) -> tuple[float, float]:
        """A word is moved as a whole, with the span its middle lies in: no word is as long as a pause between two."""
        offset = self._offset((start + end) / 2, False)
        return start + offset, end + offset

    def _offset(self, seconds: float, is_end: bool) -> float:
        if not self._ends:
            return 0.0
        # A timestamp is exact to the sample, the float it comes in is not.
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
        raise VadUnavailable("the VAD filter needs silero-vad and onnxruntime: pip install 'tilewhisper[vad]'")
    model = Path(package.origin).with_name("data") / "silero_vad_16k_sequence.onnx"
    if not model.is_file():
        raise VadUnavailable(f"the installed silero-vad has no {model.name}: pip install --upgrade 'tilewhisper[vad]'")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _framed(blocks: Iterable[Samples]) -> Iterator[npt.NDArray[np.float32]]:
    """Runs of frames, (frames, 64 + 512), each with the end of the one before in front."""
    size = FRAME * FRAMES_PER_RUN
    pending = np.zeros(CONTEXT, np.float32)
    for block in blocks:
        pending = join((pending, block))
        while len(pending) >= CONTEXT + size:
            yield _frames(pending[: CONTEXT + size])
            pending = pending[size:]
    if left := len(pending) - CONTEXT:
        yield _frames(np.pad(pending, (0, -left % FRAME)))


def _frames(samples: Samples) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(samples, CONTEXT + FRAME)[::FRAME])


def _speech(probabilities: Probabilities, n_samples: int, options: VadOptions) -> Iterator[Span]:
    """The spans before padding."""
    shortest = options.min_speech_duration_ms * PER_MS
    longest = options.max_speech_duration_s * SAMPLE_RATE - FRAME - 2 * options.speech_pad_ms * PER_MS
    start: int | None = None  # of the span that is open
    quiet: int | None = None  # where the silence began that may end it
    cut: int | None = None  # the last silence in it that is long enough to cut a long span there
    resumed: int | None = None  # where speech went on after `cut`
    for frame, probability in enumerate(probabilities):
        here = frame * FRAME
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
            yield Span(start, here if cut is None else cut)
            # Where speech has not gone on yet, the next span begins when it does.
            start, quiet, cut, resumed = resumed, None, None, None
            if start is None:
                continue
        if probability >= options.silence_below:
            continue
        quiet = here if quiet is None else quiet
        if here - quiet > SHORT_SILENCE and cut != quiet:
            cut, resumed = quiet, None
        if here - quiet >= options.min_silence_duration_ms * PER_MS:
            if quiet - start > shortest:
                yield Span(start, quiet)
            start = quiet = cut = resumed = None
    if start is not None and n_samples - start > shortest:
        yield Span(start, n_samples)


def _padded(spans: Sequence[Span], n_samples: int, pad: int) -> list[Span]:
    """Each span longer by `pad` samples on each side, or by half of the silence to its neighbour."""
    gaps = [after.start - before.end for before, after in pairwise(spans)]
    margins = [pad if gap >= 2 * pad else gap // 2 for gap in gaps]
    return [
        Span(max(0, span.start - before), min(n_samples, span.end + after))
        for span, before, after in zip(spans, [pad, *margins], [*margins, pad], strict=False)
    ]


def _chunk_end(parts: Sequence[Span], first: int, longest: int) -> int:
    """The part after the last of the chunk that begins with `first`."""

    def ended_by(length: int) -> int:
        return bisect.bisect_right(parts, parts[first].start + length, lo=first, key=lambda part: part.end)

    most = ended_by(longest)
    if most == len(parts):
        return most
    least = min(ended_by(longest // 2) + 1, most)
    return max(range(least, most + 1), key=lambda n: (parts[n].start - parts[n - 1].end, n))


def _parts(span: Span, longest: int) -> Iterator[Span]:
    length = span.end - span.start
    count = -(-length // longest)
    edges = [span.start + length * i // count for i in range(count + 1)]
    yield from (Span(start, end) for start, end in pairwise(edges))
