"""The front end: decode an audio file, find its speech if requested, compute its log-mel spectrogram.

Audio is streamed block by block, so that memory does not grow with the file. Where speech has to be found first, the
samples wait in a `SpillBuffer`, because a file object or a pipe can be read only once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tilewhisper.engine.progress import OnRead
from tilewhisper.engine.report import Clock, StageName
from tilewhisper.models.audio import reader, vad
from tilewhisper.models.audio.facts import AudioFacts, AudioLog
from tilewhisper.models.audio.log_mel import LogMel
from tilewhisper.models.audio.recording import Samples
from tilewhisper.models.audio.spill import SpillBuffer
from tilewhisper.models.audio.vad import SpeechSpan, Timeline
from tilewhisper.models.audio.vad_options import VadOptions
from tilewhisper.models.constants import SAMPLE_RATE, WINDOW_SAMPLES

BLOCK_SAMPLES = WINDOW_SAMPLES


class AudioSource:
    """A source of audio that can be read once, and how it is to be read."""

    def __init__(
        self, audio: Any, *, strict: bool = False, track: int | str | None = None, on_read: OnRead | None = None
    ) -> None:
        self.on_read: OnRead = on_read or (lambda seconds: None)
        self._log = AudioLog()
        self._stream = reader.stream(audio, self._log, strict_audio=strict, audio_track=track)

    def blocks(self, clock: Clock) -> Iterator[Samples]:
        """The samples, in blocks. Raises AudioError."""
        samples = 0
        while True:
            with clock(StageName.DECODE_AUDIO):
                block = next_block(self._stream)
            if block is None:
                return
            samples += len(block)
            self.on_read(samples / SAMPLE_RATE)
            yield block

    @property
    def facts(self) -> AudioFacts:
        """How it was read, known after the last block."""
        return self._log.facts()


@dataclass(frozen=True)
class AudioFeatures:
    """One file's audio as the model takes it."""

    mel: LogMel
    seconds: float
    """Duration of the whole file."""
    facts: AudioFacts
    """How the file was read."""
    speech: tuple[SpeechSpan, ...] | None = None
    """Spans of speech in the file; None without VAD."""
    timeline: Timeline | None = None
    """Maps times in `mel` to times in the file where `mel` holds the speech alone; None where it holds all audio."""


def read_audio(source: AudioSource, n_mels: int, clock: Clock) -> AudioFeatures:
    """All of the file's audio. Raises AudioError."""
    mel = LogMel(n_mels)
    for block in source.blocks(clock):
        with clock(StageName.LOG_MEL):
            mel.append(block)
    with clock(StageName.LOG_MEL):
        mel.finish()
    return AudioFeatures(mel, mel.samples / SAMPLE_RATE, source.facts)


def read_speech(source: AudioSource, n_mels: int, clock: Clock, options: VadOptions, *, cut_out: bool) -> AudioFeatures:
    """The file's audio and its spans of speech; with `cut_out` the speech alone, joined without the silence.

    Raises AudioError and VadUnavailable.
    """
    buffer = SpillBuffer()
    for block in source.blocks(clock):
        buffer.append(block)
    samples = len(buffer)

    def searched() -> Iterator[Samples]:
        for block in _read(buffer, SpeechSpan(0, samples)):
            source.on_read(samples / SAMPLE_RATE)
            yield block

    with clock(StageName.VAD):
        probabilities = vad.speech_probabilities(searched())
        speech = tuple(vad.speech_spans(probabilities, samples, options))
    mel = LogMel(n_mels)
    with clock(StageName.LOG_MEL):
        for span in speech if cut_out else [SpeechSpan(0, samples)]:
            for block in _read(buffer, span):
                mel.append(block)
        mel.finish()
    return AudioFeatures(mel, samples / SAMPLE_RATE, source.facts, speech, Timeline(speech) if cut_out else None)


def next_block(blocks: Iterator[Samples]) -> Samples | None:
    """The next samples of a stream, None at its end."""
    return next(blocks, None)


def _read(buffer: SpillBuffer, span: SpeechSpan) -> Iterator[Samples]:
    for first in range(span.start, span.end, BLOCK_SAMPLES):
        yield buffer.read(first, min(first + BLOCK_SAMPLES, span.end))
