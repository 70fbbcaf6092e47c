"""OpenVINO GenAI's WhisperPipeline on the CPU with int8 weights per channel; the options are device properties.

By default it computes in bfloat16 where the processor has instructions for it, else in float32.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino_genai
from peers.base import Setup, Transcript


class Peer:
    def __init__(self, setup: Setup) -> None:
        self._pipeline = openvino_genai.WhisperPipeline(
            setup.weights, "CPU", INFERENCE_NUM_THREADS=setup.threads, PERFORMANCE_HINT="LATENCY", **setup.options
        )
        # An English-only model refuses both arguments.
        multilingual = json.loads(Path(setup.weights, "generation_config.json").read_text("utf-8"))["is_multilingual"]
        self._spoken = {"language": f"<|{setup.language}|>", "task": "transcribe"} if multilingual else {}
        self._beam_size = setup.beam_size

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        search = {"num_beams": self._beam_size, "do_sample": False}
        result = self._pipeline.generate(samples, return_timestamps=True, **search, **self._spoken)
        metrics = result.perf_metrics
        raw = metrics.whisper_raw_metrics
        before = sum(raw.features_extraction_durations) + sum(raw.encode_inference_durations)
        chunks = result.chunks or ()
        tokens = metrics.get_num_generated_tokens() + 2 * len(chunks)  # its count has no timestamps
        return Transcript(
            result.texts[0],
            [(chunk.start_ts, chunk.end_ts) for chunk in chunks],
            tokens,
            metrics.get_generate_duration().mean / 1e3 - before / 1e6,
            tokens * metrics.get_tpot().mean / 1e3,  # the mean excludes the first token, which includes the prompt
        )
