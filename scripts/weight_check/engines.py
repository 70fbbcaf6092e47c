"""The engines that weight formats belong to: greedy text tokens of up to 30 s of English, without timestamps.

Each takes what `export.write` made (a folder, or the one file in it) and the checkpoint it was made from, and returns a
function from samples (n,) at 16 kHz to tokens. The libraries are imported when they are used.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from weight_check.greedy import first_window

from tilewhisper.models.checkpoint.loader import Checkpoint

Samples = npt.NDArray[np.float32]
Decode = Callable[[Samples], list[int]]


def faster_whisper(folder: Path, checkpoint: Checkpoint) -> Decode:
    from faster_whisper import WhisperModel

    exact = "float" in folder.name and "int8" not in folder.name
    model = WhisperModel(str(folder), device="cpu", compute_type="float32" if exact else "default", cpu_threads=2)

    def decode(samples: Samples) -> list[int]:
        segments, _ = model.transcribe(samples, "en", beam_size=1, temperature=0.0, without_timestamps=True)
        return [token for segment in segments for token in segment.tokens]

    return decode


def whisper_cpp(file: Path, checkpoint: Checkpoint) -> Decode:
    import _pywhispercpp as binding
    from pywhispercpp.model import Model

    quiet = {"redirect_whispercpp_logs_to": None, "print_progress": False}
    plain = {"temperature_inc": 0.0, "greedy": {"best_of": 1}, "no_timestamps": True, "suppress_nst": True}
    model: Any = Model(str(file), n_threads=2, language="en", **cast("dict[str, Any]", quiet | plain))

    def decode(samples: Samples) -> list[int]:
        model.transcribe(samples)
        context = model._ctx
        return [
            binding.whisper_full_get_token_id(context, segment, index)
            for segment in range(binding.whisper_full_n_segments(context))
            for index in range(binding.whisper_full_n_tokens(context, segment))
        ]

    return decode


def openai_whisper(file: Path, checkpoint: Checkpoint) -> Decode:
    import whisper

    model = whisper.load_model(str(file), "cpu")

    def decode(samples: Samples) -> list[int]:
        found = model.transcribe(samples, language="en", temperature=0.0, without_timestamps=True, fp16=False)
        return [token for segment in found["segments"] for token in segment["tokens"]]

    return decode


def transformers(folder: Path, checkpoint: Checkpoint) -> Decode:
    from transformers import WhisperForConditionalGeneration

    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    spoken = {"language": "en", "task": "transcribe"} if checkpoint.tokenizer.is_multilingual else {}

    def decode(samples: Samples) -> list[int]:
        tokens = model.generate(first_window(samples, checkpoint), num_beams=1, do_sample=False, **spoken)
        return list(tokens[0].tolist())

    return decode


def onnx_runtime(folder: Path, checkpoint: Checkpoint) -> Decode:
    from weight_check.onnx_whisper import OnnxWhisper

    return OnnxWhisper(folder, checkpoint).decode


def openvino_genai(folder: Path, checkpoint: Checkpoint) -> Decode:
    """Its results have no tokens: they are those of the text."""
    import openvino_genai

    exact = {} if folder.name == "int8" else {"INFERENCE_PRECISION_HINT": "f32"}
    pipeline = openvino_genai.WhisperPipeline(folder, "CPU", INFERENCE_NUM_THREADS=2, **exact)
    spoken = {"language": "<|en|>", "task": "transcribe"} if checkpoint.tokenizer.is_multilingual else {}

    def decode(samples: Samples) -> list[int]:
        return checkpoint.tokenizer.encode(pipeline.generate(samples, num_beams=1, **spoken).texts[0])

    return decode


PACKAGES: Mapping[str, str] = {
    "ctranslate2": "faster_whisper",
    "ggml": "pywhispercpp",
    "openai": "whisper",
    "transformers": "transformers",
    "onnx": "onnxruntime",
    "openvino": "openvino_genai",
}
"""The package of each format's engine."""

ENGINES: Mapping[str, Callable[[Path, Checkpoint], Decode]] = {
    "ctranslate2": faster_whisper,
    "ggml": whisper_cpp,
    "openai": openai_whisper,
    "transformers": transformers,
    "onnx": onnx_runtime,
    "openvino": openvino_genai,
}
"""By the names of `export.FORMATS`."""
