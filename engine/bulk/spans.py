"""Cut long recordings into spans, which workers share: each cut is at the quietest place near its due time.

Every span is decoded from the start of its file, so there are few.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tilewhisper.engine.bulk.work import Content, Item, Span
from tilewhisper.models.audio.reader import stream
from tilewhisper.models.audio.recording import Samples
from tilewhisper.models.constants import SAMPLE_RATE

SPAN_SECONDS = 1800.0
"""About the length of a span; a recording up to half longer is not cut."""
MOST_SPANS = 16
"""Of one recording."""
SEARCH_SECONDS = 60.0
"""How far from its due time a cut may be."""
PLACES_PER_SECOND = 10
QUIET_PLACES = 5
"""Length of the quiet place: half a second."""
LEAST_BYTES_PER_SECOND = 500
"""4 kbit/s: no codec in use takes less, so a small file is known to be short without being decoded."""


def spans_of(item: Item, content: Content, copy: Path, span_seconds: float = SPAN_SECONDS) -> list[Span]:
    """The spans of an item, in order; the same content is always cut at the same places. Raises AudioError.

    `copy` is where the content is on this machine.
    """
    cuts: list[float] = []
    if content.size > 1.5 * span_seconds * LEAST_BYTES_PER_SECOND:
        cuts = _cuts(_energies(stream(copy)), item.start, item.end, span_seconds)
    starts, ends = [item.start, *cuts], [*cuts, item.end]
    return [
        Span(item, content, start, end, number, len(starts))
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _energies(blocks: Iterable[Samples]) -> Samples:
    """The mean square of each tenth of a second, without a rest."""
    size = SAMPLE_RATE // PLACES_PER_SECOND
    rest, found = np.zeros(0, np.float32), [np.zeros(0, np.float32)]
    for block in blocks:
        samples = np.concatenate([rest, block])
        whole = len(samples) // size * size
        found.append(np.square(samples[:whole].reshape(-1, size)).mean(axis=1))
        rest = samples[whole:]
    return np.concatenate(found)


def _cuts(energies: Samples, start: float, end: float | None, span_seconds: float) -> list[float]:
    """Times between `start` and `end` of equal distance, each moved to the middle of the quietest place around it."""
    seconds = len(energies) / PLACES_PER_SECOND
    last = seconds if end is None else min(end, seconds)
    if last - start <= 1.5 * span_seconds:
        return []
    spans = min(MOST_SPANS, round((last - start) / span_seconds))
    quiet = np.convolve(energies, np.ones(QUIET_PLACES), "valid")
    reach = min(SEARCH_SECONDS, (last - start) / spans / 4)
    cuts = []
    for number in range(1, spans):
        due = start + (last - start) * number / spans
        first = round((due - reach) * PLACES_PER_SECOND)
        place = first + int(np.argmin(quiet[first : round((due + reach) * PLACES_PER_SECOND)]))
        cuts.append((place + QUIET_PLACES / 2) / PLACES_PER_SECOND)
    return cuts
