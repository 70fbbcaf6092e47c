"""openai-whisper in float32."""

import numpy as np
import numpy.typing as npt
import torch
import whisper
from peers.base import Setup, Transcript


class Peer:
    def __init__(self, setup: Setup) -> None:
        torch.set_num_threads(setup.threads)
        self._model = whisper.load_model(setup.weights, "cpu")
        self._options = {"language": setup.language, "temperature": 0.0, "fp16": False}
        if setup.beam_size > 1:
            self._options["beam_size"] = setup.beam_size

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        result = whisper.transcribe(self._model, samples, **self._options)
        segments = result["segments"]
        return Transcript(
            result["text"],
            [(float(segment["start"]), float(segment["end"])) for segment in segments],
            sum(len(segment["tokens"]) for segment in segments),
        )
