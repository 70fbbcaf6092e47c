"""The JSON files beside the weights: tokenizer and preprocessor, which several formats share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tilewhisper.models.checkpoint.export.model import ExportedModel
from tilewhisper.models.constants import (
    FRAMES_PER_WINDOW,
    HOP_LENGTH,
    N_FFT,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    WINDOW_SECONDS,
)


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


def write_tokenizer(model: ExportedModel, folder: Path) -> None:
    """Write tokenizer.json for the library `tokenizers`."""
    (folder / "tokenizer.json").write_text(model.tokenizer.to_json(), "utf-8")


def write_preprocessor(model: ExportedModel, folder: Path) -> None:
    """Write preprocessor_config.json for transformers' feature extractor and faster-whisper's."""
    write(
        folder / "preprocessor_config.json",
        {
            "chunk_length": WINDOW_SECONDS,
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": model.config.num_mel_bins,
            "hop_length": HOP_LENGTH,
            "n_fft": N_FFT,
            "n_samples": WINDOW_SAMPLES,
            "nb_max_frames": FRAMES_PER_WINDOW,
            "padding_side": "right",
            "padding_value": 0.0,
            "processor_class": "WhisperProcessor",
            "return_attention_mask": False,
            "sampling_rate": SAMPLE_RATE,
        },
    )
