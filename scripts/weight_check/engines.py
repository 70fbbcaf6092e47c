"""Other engines on weights in their own format: the text tokens of a clip, decoded greedily without timestamps.

openai-whisper and faster-whisper pad a short clip's log-mel window with zeros; transformers and whisper.cpp pad its
samples, which makes other tokens likely. They get the zeros here, so that a difference is one of the weights.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewhisper.models.audio.log_mel import LogMel

Samples = npt.NDArray[np.float32]
Decode = Callable[[Samples], list[int]]
"""Samples (n,) at 16 kHz, at most 30 s, to tokens; those from end-of-text up may be among them."""


def ctranslate2(weights: Path, language: str, threads: int) -> Decode:
    """CTranslate2 through faster-whisper, computing in the type of the file."""
    from faster_whisper import WhisperModel

    model = WhisperModel(str(weights), device="cpu", compute_type="default", cpu_threads=threads)

    def decode(samples: Samples) -> list[int]:
        segments, _ = model.transcribe(
            samples, language=language, beam_size=1, temperature=0.0, without_timestamps=True
        )
        return [token for segment in segments for token in segment.tokens]

    return decode


def whisper_cpp(weights: Path, language: str, threads: int) -> Decode:
    """whisper.cpp through pywhispercpp."""
    import _pywhispercpp as native
    from pywhispercpp.model import Model

    model = Model(
        str(weights),
        n_threads=threads,
        language=language,
        temperature_inc=0.0,
        greedy={"best_of": 1},
        no_timestamps=True,
        suppress_nst=True,
        print_progress=False,
        redirect_whispercpp_logs_to=None,
    )

    def decode(samples: Samples) -> list[int]:
        context, mel = model._ctx, _window(samples, native.whisper_model_n_mels(model._ctx))
        native.whisper_set_mel(context, mel.ravel(), mel.shape[1], mel.shape[0])
        native.whisper_full(context, model._params, np.zeros(0, np.float32), 0)
        return [
            native.whisper_full_get_token_id(context, segment, token)
            for segment in range(native.whisper_full_n_segments(context))
            for token in range(native.whisper_full_n_tokens(context, segment))
        ]

    return decode


def openai_whisper(weights: Path, language: str, threads: int) -> Decode:
    """openai-whisper in float32."""
    import torch
    import whisper

    torch.set_num_threads(threads)
    model = whisper.load_model(str(weights), "cpu")

    def decode(samples: Samples) -> list[int]:
        result = whisper.transcribe(
            model, samples, language=language, temperature=0.0, fp16=False, without_timestamps=True
        )
        return [token for segment in result["segments"] for token in segment["tokens"]]

    return decode


def transformers(weights: Path, language: str, threads: int) -> Decode:
    """transformers in float32."""
    import torch
    from transformers import WhisperForConditionalGeneration

    torch.set_num_threads(threads)
    model: Any = WhisperForConditionalGeneration.from_pretrained(weights, dtype=torch.float32).eval()
    spoken = {"language": language, "task": "transcribe"} if model.generation_config.is_multilingual else {}

    @torch.inference_mode()
    def decode(samples: Samples) -> list[int]:
        mel = torch.from_numpy(_window(samples, model.config.num_mel_bins))[None]
        return list(model.generate(mel, num_beams=1, do_sample=False, **spoken)[0].tolist())

    return decode


def _window(samples: Samples, n_mels: int) -> npt.NDArray[np.float32]:
    """The log-mel window (n_mels, 3000) of at most 30 s, with zeros after the samples."""
    spectrogram = LogMel(n_mels)
    spectrogram.append(samples)
    spectrogram.finish()
    return spectrogram.window(0).contiguous().numpy()


ENGINES: Mapping[str, Callable[[Path, str, int], Decode]] = {
    "ctranslate2": ctranslate2,
    "ggml": whisper_cpp,
    "openai": openai_whisper,
    "transformers": transformers,
}
"""By the format that the engine reads."""
