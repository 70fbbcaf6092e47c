"""OpenAI's layout of a model, which its `.pt` and whisper.cpp's ggml share: sizes, tensor names, order of tokens.

Both engines derive the ids of special tokens from the number of tokens, and the feed-forward width from the model's.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from tilewhisper.models.checkpoint.export.model import ExportedModel
from tilewhisper.models.checkpoint.formats.openai_names import openai_name
from tilewhisper.models.constants import TIMESTAMPS
from tilewhisper.models.errors import ExportError
from tilewhisper.models.tokenizer.languages import LANGUAGES

_EMBEDDING = "decoder.embed_tokens.weight"


def check(model: ExportedModel, engine: str) -> None:
    """Raise ExportError for a model that `engine` would read wrongly: other tokens or another feed-forward width."""
    other = "convert it to transformers or ctranslate2, which can"
    if max(model.tokenizer.vocabulary.values()) >= _n_vocab(model) or not _has_openai_tokens(model):
        raise ExportError(f"{engine} cannot express this model's tokens, which differ from OpenAI's: {other}")
    for width in (model.config.encoder_ffn_dim, model.config.decoder_ffn_dim):
        if width != 4 * model.config.d_model:
            raise ExportError(
                f"{engine} cannot express this model's feed-forward width of {width}, which is not 4 times its width "
                f"of {model.config.d_model}: {other}"
            )


def sizes(model: ExportedModel) -> dict[str, int]:
    """The model's sizes by their names in a `.pt`, in ggml's order."""
    config = model.config
    return {
        "n_vocab": _n_vocab(model),
        "n_audio_ctx": config.max_source_positions,
        "n_audio_state": config.d_model,
        "n_audio_head": config.encoder_attention_heads,
        "n_audio_layer": config.encoder_layers,
        "n_text_ctx": config.max_target_positions,
        "n_text_state": config.d_model,
        "n_text_head": config.decoder_attention_heads,
        "n_text_layer": config.decoder_layers,
        "n_mels": config.num_mel_bins,
    }


def shapes(model: ExportedModel) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by its name in OpenAI's layout, in the order of `tensors`."""
    cut = {_EMBEDDING: (_n_vocab(model), model.config.d_model)}
    return {openai_name(name): cut.get(name, model.shape(name)) for name in model.names}


def tensors(model: ExportedModel) -> Iterator[tuple[str, Tensor]]:
    """Each tensor, in float32, with its name in OpenAI's layout."""
    for name, shape in zip(model.names, shapes(model).values(), strict=True):
        yield openai_name(name), model.read(name)[: shape[0]]


def _n_vocab(model: ExportedModel) -> int:
    """The tokens of the layout: an embedding that is padded has more rows, which no token uses."""
    return model.tokenizer.timestamp_begin + TIMESTAMPS


def _has_openai_tokens(model: ExportedModel) -> bool:
    tokenizer = model.tokenizer
    codes = list(LANGUAGES)[: len(tokenizer.languages)]
    languages = [tokenizer.languages.get(code, -1) for code in codes]
    ids = [tokenizer.eot, tokenizer.sot, *languages, tokenizer.translate, tokenizer.transcribe, tokenizer.sot_lm]
    ids += [tokenizer.sot_prev, tokenizer.no_speech, tokenizer.no_timestamps]
    return ids == list(range(tokenizer.eot, tokenizer.eot + len(ids)))
