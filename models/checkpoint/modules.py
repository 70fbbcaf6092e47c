"""Whisper's module tree: names, dimensions and parameters, without a forward pass.

Names and state-dict keys are transformers', without the output projection, which is the token embedding. The engine
runs the modules. transformers' own classes are not used, because importing them takes longer than transcribing a minute
of speech.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from tilewhisper.models.checkpoint.config import ModelConfig
from tilewhisper.models.checkpoint.stored_tensor import whole
from tilewhisper.models.errors import CheckpointError

_META = torch.device("meta")  # shapes without memory, until weights are assigned


class _Uninitialised:
    """Skips random initialisation, which on the `meta` device would import torch's compiler (1.3 s)."""

    def reset_parameters(self) -> None:
        pass


class Linear(_Uninitialised, nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # An operator that gets a weight in its file would import torch.distributed first: 40 MB and 0.3 s.
        return F.linear(x, whole(self.weight), self.bias)


class Conv1d(_Uninitialised, nn.Conv1d):
    pass


class Embedding(_Uninitialised, nn.Embedding):
    pass


class LayerNorm(_Uninitialised, nn.LayerNorm):
    pass


class Attention(nn.Module):
    """The projections of multi-head attention; the key projection has no bias."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.num_heads = heads
        self.head_dim = d_model // heads
        self.scaling: float = self.head_dim**-0.5
        self.k_proj = Linear(d_model, d_model, bias=False, device=_META)
        self.v_proj = Linear(d_model, d_model, device=_META)
        self.q_proj = Linear(d_model, d_model, device=_META)
        self.out_proj = Linear(d_model, d_model, device=_META)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each preceded by a layer norm."""

    def __init__(self, d_model: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.self_attn = Attention(d_model, heads)
        self.self_attn_layer_norm = LayerNorm(d_model, device=_META)
        self.fc1 = Linear(d_model, ffn, device=_META)
        self.fc2 = Linear(ffn, d_model, device=_META)
        self.final_layer_norm = LayerNorm(d_model, device=_META)


class DecoderLayer(EncoderLayer):
    """An encoder layer with cross-attention between self-attention and feed-forward."""

    def __init__(self, d_model: int, heads: int, ffn: int) -> None:
        super().__init__(d_model, heads, ffn)
        self.encoder_attn = Attention(d_model, heads)
        self.encoder_attn_layer_norm = LayerNorm(d_model, device=_META)


class Encoder(nn.Module):
    """Two convolutions, position embeddings, layers, a layer norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model, layer = config.d_model, (config.d_model, config.encoder_attention_heads, config.encoder_ffn_dim)
        self.conv1 = Conv1d(config.num_mel_bins, d_model, 3, padding=1, device=_META)
        self.conv2 = Conv1d(d_model, d_model, 3, stride=2, padding=1, device=_META)
        self.embed_positions = Embedding(config.max_source_positions, d_model, device=_META)
        self.layers = nn.ModuleList(EncoderLayer(*layer) for _ in range(config.encoder_layers))
        self.layer_norm = LayerNorm(d_model, device=_META)


class Decoder(nn.Module):
    """Token and position embeddings, layers, a layer norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model, layer = config.d_model, (config.d_model, config.decoder_attention_heads, config.decoder_ffn_dim)
        self.embed_tokens = Embedding(config.vocab_size, d_model, device=_META)
        self.embed_positions = Embedding(config.max_target_positions, d_model, device=_META)
        self.layers = nn.ModuleList(DecoderLayer(*layer) for _ in range(config.decoder_layers))
        self.layer_norm = LayerNorm(d_model, device=_META)


class EncoderDecoder(nn.Module):
    """Encoder and decoder; transformers' WhisperModel."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


class Whisper(nn.Module):
    """All modules of a checkpoint, in evaluation mode and without gradients."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = EncoderDecoder(config)
        self.train(False).requires_grad_(False)


def build(config: ModelConfig, state: Mapping[str, torch.Tensor], name: str) -> Whisper:
    """Build the model around the tensors, without initialising or copying them.

    Raises CheckpointError, with the checkpoint's `name`, when tensors are missing, unexpected or of a wrong shape.
    """
    model = Whisper(config)
    _check({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}, state, name)
    model.load_state_dict(dict(state), strict=True, assign=True)
    return model.requires_grad_(False)


def _check(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, torch.Tensor], name: str) -> None:
    faults = [f"missing {key}" for key in expected if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in expected]
    faults += [
        f"{key} is {tuple(state[key].shape)}, expected {shape}"
        for key, shape in expected.items()
        if key in state and tuple(state[key].shape) != shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise CheckpointError(
            f"{name}: the weights do not fit a Whisper model: {'; '.join(faults[:3])}{more}; download them again"
        )
