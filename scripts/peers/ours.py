"""tilewhisper. The option `policy` routes the encoder, the others are those of `WhisperModel.transcribe`."""

import numpy as np
import numpy.typing as npt
from peers.base import Setup, Transcript

from tilewhisper.engine import WhisperModel


class Peer:
    def __init__(self, setup: Setup) -> None:
        self._options = dict(setup.options)
        policy = self._options.pop("policy")
        self._language = setup.language
        self._model = WhisperModel(setup.weights, policy=policy, cpu_threads=setup.threads)

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        segments, _ = self._model.transcribe(samples, self._language, beam_size=1, temperature=0, **self._options)
        found = list(segments)
        decode = next(stage for stage in segments.report().stages if stage.name == "decode")
        return Transcript(
            "".join(segment.text for segment in found),
            [(segment.start, segment.end) for segment in found],
            sum(len(segment.tokens) for segment in found),
            decode.wall_seconds,
        )
