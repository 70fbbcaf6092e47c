"""A checkpoint of any known format as one thing: transformers' Whisper model, its tokenizer, its generation facts.

The model is float32, in evaluation mode, without gradients, and ready for transformers' own `generate`, which the
tests use as an oracle. Where the weights lie is `locate.py`'s affair, how they are read that of `formats/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration

from tilewhisper.models import formats
from tilewhisper.models.errors import CheckpointError
from tilewhisper.models.facts import GenerationFacts
from tilewhisper.models.formats import Weights
from tilewhisper.models.formats.binary import contents
from tilewhisper.models.locate import Source, locate
from tilewhisper.models.tokenizer import Tokenizer

__all__ = ["Checkpoint", "GenerationFacts", "load"]

_TIED = ("proj_out.weight", "model.decoder.embed_tokens.weight")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded model. `name` is the official name, hub id or path it was asked for by."""

    name: str
    source: Source
    model: WhisperForConditionalGeneration
    tokenizer: Tokenizer
    facts: GenerationFacts


def load(name_or_path: str | Path) -> Checkpoint:
    """Find, verify, read and build a checkpoint.

    Raises ModelNotFound for a name or path that is not to be had, CheckpointError for weights that are corrupt,
    incomplete, not Whisper's, or not the file their hash is known for.
    """
    source = locate(name_or_path)
    _verify(source)
    weights = formats.read(source)
    model = _build(weights, source.name)
    model.generation_config = _generation_config(weights)
    return Checkpoint(source.name, source, model, weights.tokenizer, weights.facts)


def _verify(source: Source) -> None:
    """Check the files against the hash they are known by, if they are."""
    if source.sha256 is None:
        return
    digest = hashlib.sha256()
    for file in source.files:
        digest.update(contents([file]))
    found = digest.hexdigest()
    if found != source.sha256:
        raise CheckpointError(
            f"{' + '.join(str(file) for file in source.files)}: not the known file of this name "
            f"(SHA-256 {found[:12]}…, expected {source.sha256[:12]}…): {source.remedy}"
        )


def _build(weights: Weights, name: str) -> WhisperForConditionalGeneration:
    """The model around the tensors themselves: nothing is initialised, nothing copied."""
    weights.config.dtype = torch.float32  # a half-precision folder says otherwise
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(weights.config)
    state = dict(weights.state)
    if _TIED[1] in state:
        state.setdefault(_TIED[0], state[_TIED[1]])
    _check_tensors({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}, state, name)
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    model.train(False).requires_grad_(False)
    return model


def _check_tensors(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, torch.Tensor], name: str) -> None:
    faults = [f"missing {key}" for key in expected if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in expected]
    faults += [
        f"{key} is {tuple(state[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise CheckpointError(f"{name}: the weights do not fit a Whisper model: {'; '.join(faults[:3])}{more}")


def _generation_config(weights: Weights) -> GenerationConfig:
    """What transformers' `generate` wants to know, from the tokenizer and the facts."""
    tokenizer, facts = weights.tokenizer, weights.facts
    languages = {
        "lang_to_id": {f"<|{code}|>": token for code, token in tokenizer.languages.items()},
        "task_to_id": {"transcribe": tokenizer.transcribe, "translate": tokenizer.translate},
    }
    return GenerationConfig(
        bos_token_id=tokenizer.eot,
        eos_token_id=tokenizer.eot,
        pad_token_id=tokenizer.eot,
        decoder_start_token_id=tokenizer.sot,
        prev_sot_token_id=tokenizer.sot_prev,
        no_timestamps_token_id=tokenizer.no_timestamps,
        is_multilingual=tokenizer.is_multilingual,
        suppress_tokens=list(facts.suppress_tokens),
        begin_suppress_tokens=list(facts.begin_suppress_tokens),
        alignment_heads=[list(pair) for pair in facts.alignment_heads],
        max_initial_timestamp_index=facts.max_initial_timestamp_index,
        max_length=weights.config.max_target_positions,
        return_timestamps=False,
        **(languages if tokenizer.is_multilingual else {}),
    )
