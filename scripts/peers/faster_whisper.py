"""faster-whisper: CTranslate2 converts the float16 weights to `compute_type` on loading, by default int8.

The option `batch_size` selects its batched mode, which cuts the audio by voice activity, decodes so many chunks
together, and by default leaves out timestamps within a chunk: with them its word errors went from 7.4 to 12.2 % (150 s
joined, tiny.en).
"""

import numpy as np
import numpy.typing as npt
from faster_whisper import BatchedInferencePipeline, WhisperModel
from peers.base import Setup, Transcript


class Peer:
    def __init__(self, setup: Setup) -> None:
        options = {"compute_type": "int8", **setup.options}
        compute_type = options.pop("compute_type")
        model = WhisperModel(setup.weights, device="cpu", compute_type=compute_type, cpu_threads=setup.threads)
        self._model = BatchedInferencePipeline(model) if "batch_size" in options else model
        self._options = {"language": setup.language, "beam_size": setup.beam_size, **options}

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        segments, _ = self._model.transcribe(samples, temperature=0.0, **self._options)
        found = list(segments)
        return Transcript(
            "".join(segment.text for segment in found),
            [(segment.start, segment.end) for segment in found],
            sum(len(segment.tokens) for segment in found),
        )
