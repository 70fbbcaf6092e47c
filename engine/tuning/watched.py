"""The engine's functions that `profile` times, and the names of their spans.

The only part of the profiler that knows the engine's functions: when one of them is renamed or moved, change it here.
"""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, NamedTuple

from tilewhisper.engine.decoding.batch import Batch
from tilewhisper.engine.decoding.decoder import Decoder
from tilewhisper.engine.decoding.logits import LogitsProcessor
from tilewhisper.engine.pipeline import frontend
from tilewhisper.engine.report import StageName
from tilewhisper.engine.routing.router import Router
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.kernels.decoder import DecoderBackend
from tilewhisper.models.audio.log_mel import LogMel

STEP = "step"
"""The span of one decoder step."""

ENCODER_PRODUCTS = (
    "conv_gelu", "linear", "norm_linear", "linear_gelu", "linear_add", "feed_forward", "matmul", "attention",
    "encoder_layer",
)  # fmt: skip
"""Methods of `Router`."""

DECODER_PRODUCTS = {
    "layers": ("decoder_layers",),
    "linear layer": ("linear", "norm_linear", "linear_gelu", "linear_add"),
    "self-attention": ("self_attention",),
    "cross-attention": ("cross_attention",),
    "pack cross-attention K/V": ("pack_cross_kv",),
}
"""Methods of a `DecoderBackend` by the name of their spans."""


class Category(StrEnum):
    RUN = "run"
    STAGE = "stage"
    ENCODER = "encoder"
    DECODER = "decoder"


class WatchedFunction(NamedTuple):
    owner: Any
    """An object, a class or a module."""
    function: str
    """The attribute of `owner` that holds the function."""
    category: Category
    span: str | Callable[..., str]
    """The span's name, or a function from the call's arguments to it."""


def watched_functions(model: WhisperModel) -> Iterator[WatchedFunction]:
    yield WatchedFunction(frontend, "next_block", Category.STAGE, StageName.DECODE_AUDIO)
    yield WatchedFunction(LogMel, "append", Category.STAGE, StageName.LOG_MEL)
    yield WatchedFunction(LogMel, "finish", Category.STAGE, StageName.LOG_MEL)
    yield WatchedFunction(model.runtime, "encode_window", Category.STAGE, StageName.ENCODE)
    yield WatchedFunction(model.runtime, "project_cross_kv", Category.STAGE, StageName.CROSS_KV)
    yield WatchedFunction(model.runtime, "detect_language", Category.STAGE, StageName.DETECT_LANGUAGE)
    yield WatchedFunction(model.runtime, "evidence", Category.STAGE, StageName.EVIDENCE)
    yield WatchedFunction(Batch, "step", Category.STAGE, _stage_of_step)
    yield WatchedFunction(model.runtime, "align", Category.STAGE, StageName.WORD_TIMES)
    for function in ENCODER_PRODUCTS:
        yield WatchedFunction(Router, function, Category.ENCODER, lambda router, launch, *_: launch.name)
    yield WatchedFunction(Decoder, "step", Category.DECODER, STEP)
    yield WatchedFunction(Decoder, "logits", Category.DECODER, "LM head")
    yield WatchedFunction(Decoder, "rescore", Category.DECODER, "rescore top-k")
    yield WatchedFunction(LogitsProcessor, "mask", Category.DECODER, "logits mask")
    yield WatchedFunction(LogitsProcessor, "prefer_timestamps", Category.DECODER, "logits mask")
    for function, span in _decoder_products(model.runtime.decoder_plan.backend):
        yield WatchedFunction(model.runtime.decoder_plan.backend, function, Category.DECODER, span)


def _stage_of_step(batch: Batch) -> StageName:
    """A step that reads any prompt tokens counts as prompt."""
    return StageName.PROMPT if batch.prompt_share else StageName.DECODE


def _decoder_products(backend: DecoderBackend) -> Iterator[tuple[str, str]]:
    """Names of methods and of their spans.

    The base class composes `decoder_layers` from the other methods, so its parts are timed instead of it; a backend
    that overrides it with one native call has no parts that could be timed.
    """
    composed = type(backend).decoder_layers is DecoderBackend.decoder_layers
    for span, functions in DECODER_PRODUCTS.items():
        yield from ((function, span) for function in functions if not (composed and span == "layers"))
