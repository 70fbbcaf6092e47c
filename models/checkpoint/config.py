"""The dimensions of a Whisper model, named as in transformers. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from tilewhisper.models.checkpoint.catalog import Dims


@dataclass(frozen=True)
class ModelConfig:
    """The dimensions that `modules.build` needs."""

    vocab_size: int
    num_mel_bins: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_source_positions: int
    max_target_positions: int

    @property
    def dims(self) -> Dims:
        """The dimensions that identify most official models."""
        return (
            self.d_model,
            self.encoder_layers,
            self.decoder_layers,
            self.encoder_attention_heads,
            self.num_mel_bins,
            self.vocab_size,
        )
