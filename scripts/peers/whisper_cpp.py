"""whisper.cpp through pywhispercpp, in the precision of its weights."""

import numpy as np
import numpy.typing as npt
from peers.base import Setup, Transcript
from pywhispercpp.model import Model


class Peer:
    def __init__(self, setup: Setup) -> None:
        self._model = Model(
            setup.weights,
            n_threads=setup.threads,
            language=setup.language,
            temperature_inc=0.0,
            params_sampling_strategy=int(setup.beam_size > 1),
            greedy={"best_of": 1},
            beam_search={"beam_size": setup.beam_size, "patience": -1.0},  # -1: openai-whisper's
            print_progress=False,
        )

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        found = self._model.transcribe(samples)
        # Its segments are stripped, and their times are hundredths of a second.
        return Transcript(
            " ".join(segment.text for segment in found),
            [(segment.t0 / 100, segment.t1 / 100) for segment in found],
        )
