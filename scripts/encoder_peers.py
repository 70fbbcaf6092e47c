"""A checkpoint's encoder in ONNX Runtime and OpenVINO: converted here, float32, with torch's number of threads."""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Encode = Callable[[], Tensor]
"""One encoder pass over a fixed window: the final states (1, 1500, d_model)."""


def open_peers(encoder: Any, mel: Tensor, left_out: dict[str, str]) -> Iterator[tuple[str, Encode]]:
    """Yield the name, with version, and the pass of each installed peer; add the others and the reason to `left_out`.

    `encoder` is transformers' Whisper encoder, `mel` a window (1, n_mels, 3000).
    """
    module = _States(encoder)
    for name, convert in (("ONNX Runtime", _onnx_runtime), ("OpenVINO", _openvino)):
        try:
            with _no_warnings():
                peer_version, encode = convert(module, mel)
        except ModuleNotFoundError as e:
            left_out[name] = f"{e.name} is not installed: pip install 'tilewhisper[peers]'"
        else:
            yield f"{name} {peer_version} float32", encode


class _States(torch.nn.Module):
    """The encoder in the form that converters expect: one tensor in, one tensor out."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mel: Tensor) -> Tensor:
        states: Tensor = self.encoder(mel).last_hidden_state
        return states


def _onnx_runtime(encoder: _States, mel: Tensor) -> tuple[str, Encode]:
    import onnxruntime
    import onnxscript  # noqa: F401 (the export needs it; imported here so that a missing package is reported)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "encoder.onnx")
        torch.onnx.export(encoder, (mel,), file, input_names=["mel"], dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {"mel": mel.numpy()}
    return version("onnxruntime"), lambda: torch.from_numpy(session.run(None, feed)[0])


def _openvino(encoder: _States, mel: Tensor) -> tuple[str, Encode]:
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # its default is bfloat16 where the processor has it
    }
    compiled = openvino.compile_model(openvino.convert_model(encoder, example_input=mel), "CPU", config)
    request, window = compiled.create_infer_request(), mel.numpy()
    return version("openvino"), lambda: torch.from_numpy(request.infer([window])[0])


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Silence the converters' general warnings; errors still propagate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
