"""onnx-asr in float32, of up to 30 s and without timestamps, which it does not decode.

It reads one decoder file with and without a cache, which `tilewhisper convert` does not write: given the decoder
without a cache, it computes all earlier tokens again at every step.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_asr
import onnxruntime
from peers.base import Setup, Transcript, check_greedy

_NAMES = {"decoder_model.onnx": "decoder_model_merged.onnx"}


class Peer:
    def __init__(self, setup: Setup) -> None:
        check_greedy(setup)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = setup.threads, 1
        weights = Path(setup.weights)
        # Beside the weights: ONNX Runtime does not follow a link out of the model's folder.
        with tempfile.TemporaryDirectory(dir=weights.parent) as folder:
            for file in weights.iterdir():
                Path(folder, _NAMES.get(file.name, file.name)).hardlink_to(file)
            _write_vocabulary(json.loads((weights / "tokenizer.json").read_text("utf-8")), Path(folder))
            self._model = onnx_asr.load_model(
                "whisper", folder, sess_options=options, providers=["CPUExecutionProvider"]
            )
        self._language = setup.language

    def transcribe(self, samples: npt.NDArray[np.float32]) -> Transcript:
        return Transcript(self._model.recognize(samples, language=self._language), [])


def _write_vocabulary(tokenizer: dict[str, Any], folder: Path) -> None:
    """Split a tokenizer.json into the two files that onnx-asr reads."""
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    for name, tokens in (("vocab.json", tokenizer["model"]["vocab"]), ("added_tokens.json", added)):
        file = folder / name
        file.unlink(missing_ok=True)
        file.write_text(json.dumps(tokens), encoding="utf-8")
