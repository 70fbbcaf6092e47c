"""From a file to what is transcribed of it: decoded audio, its speech if only that is wanted, a log-mel spectrogram.

The file comes as a stream and is worked on block by block: memory does not grow with it. Where speech is to be found
first, the samples lie in a `Spool` meanwhile, since a file object or a pipe can be read only once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilewhisper.engine.report import Clock, StageName
from tilewhisper.models.audio import reader, vad
from tilewhisper.models.audio.log_mel import LogMel
from tilewhisper.models.audio.recording import Samples
from tilewhisper.models.audio.spill import Spool
from tilewhisper.models.audio.vad import Span, Timeline
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLE_RATE

BLOCK_SAMPLES = 30 * SAMPLE_RATE


@dataclass(frozen=True)
class Sound:
    """A file as it was heard."""

    mel: LogMel
    seconds: float
    """Of the whole file."""
    speech: tuple[Span, ...] | None = None
    """Where somebody speaks; None where nobody asked."""
    timeline: Timeline | None = None
    """From `mel`, which has the speech alone, back to the file; None where `mel` has the file as it is."""


def listen(source: Any, n_mels: int, clock: Clock) -> Sound:
    """The whole file. Raises AudioError."""
    mel = LogMel(n_mels)
    for block in _blocks(source, clock):
        with clock(StageName.LOG_MEL):
            mel.append(block)
    with clock(StageName.LOG_MEL):
        mel.finish()
    return Sound(mel, mel.samples / SAMPLE_RATE)


def listen_to_speech(source: Any, n_mels: int, clock: Clock, options: VadOptions, *, cut_out: bool) -> Sound:
    """The file, and where its speech is; with `cut_out` the speech alone, end to end. Raises AudioError and
    VadUnavailable."""
    spool = Spool()
    for block in _blocks(source, clock):
        spool.append(block)
    samples = len(spool)
    with clock(StageName.VAD):
        found = vad.speech_probabilities(_read(spool, Span(0, samples)))
        speech = tuple(vad.speech_spans(found, samples, options))
    mel = LogMel(n_mels)
    with clock(StageName.LOG_MEL):
        for span in speech if cut_out else [Span(0, samples)]:
            for block in _read(spool, span):
                mel.append(block)
        mel.finish()
    return Sound(mel, samples / SAMPLE_RATE, speech, Timeline(speech) if cut_out else None)


def next_block(blocks: Iterator[Samples]) -> Samples | None:
    """The next samples of a stream, None at its end."""
    return next(blocks, None)


def _blocks(source: Any, clock: Clock) -> Iterator[Samples]:
    blocks = reader.stream(source)
    while True:
        with clock(StageName.DECODE_AUDIO):
            block = next_block(blocks)
        if block is None:
            return
        yield block


def _read(spool: Spool, span: Span) -> Iterator[Samples]:
    for first in range(span.start, span.end, BLOCK_SAMPLES):
        yield spool.read(first, min(first + BLOCK_SAMPLES, span.end))
