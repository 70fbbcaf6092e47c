"""This engine: the option `policy` routes it, all others are arguments of `WhisperModel.transcribe`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from peers.base import PeerError, Setup, Transcript

from tilewhisper import WhisperModel
from tilewhisper.engine.report import RunReport
from tilewhisper.engine.results import Segment


class Peer:
    def __init__(self, setup: Setup) -> None:
        self._options: dict[str, Any] = {"beam_size": setup.beam_size, "temperature": 0, **setup.options}
        policy = self._options.pop("policy")
        self._language = setup.language
        self._model = WhisperModel(setup.weights, policy=policy, cpu_threads=setup.threads)

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        segments, _ = self._model.transcribe(samples, self._language, **self._options)
        return _transcript(list(segments), segments.report())

    def transcribe_many(self, recordings: Sequence[npt.NDArray[np.float32]]) -> list[Transcript]:
        transcripts = self._model.transcribe_many(recordings, language=self._language, **self._options)
        return [_transcript(transcript.segments, transcript.report) for transcript in transcripts]


def _transcript(segments: Sequence[Segment], report: RunReport | None) -> Transcript:
    if report is None:
        raise PeerError("a recording was not transcribed")
    return Transcript(
        "".join(segment.text for segment in segments),
        [(segment.start, segment.end) for segment in segments],
        sum(len(segment.tokens) for segment in segments),
        report.decoder_seconds,
        next(stage.wall_seconds for stage in report.stages if stage.name == "decode"),
    )
