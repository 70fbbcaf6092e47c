"""transformers' `generate` in float32: the reference for tokens, not for speed."""

import numpy as np
import numpy.typing as npt
import torch
from peers.base import Setup, Transcript, check_greedy

from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper


class Peer:
    def __init__(self, setup: Setup) -> None:
        check_greedy(setup)
        torch.set_num_threads(setup.threads)
        self._model = TransformersWhisper(setup.weights)
        self._language = setup.language

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        generated = self._model.generate(samples, self._language)
        return Transcript(generated.text, [], len(generated.tokens))
