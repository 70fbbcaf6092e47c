"""Write ONNX models with the names of Hugging Face's exporter (optimum): encoder, decoder, decoder with a cache.

    encoder_model.onnx            input_features (batch, mels, 3000) -> last_hidden_state (batch, 1500, width)
    decoder_model.onnx            input_ids (batch, tokens), encoder_hidden_states -> logits (batch, tokens, vocabulary)
                                  and present.LAYER.{decoder,encoder}.{key,value} (batch, heads, positions, head width)
    decoder_with_past_model.onnx  input_ids, past_key_values.LAYER.… -> logits, present.LAYER.decoder.{key,value}

Both decoders share one file of weights. float16 models have float16 inputs and outputs. int8 quantises the projections
and the embedding by rows, and activations while they run, as ONNX Runtime's dynamic quantisation does.
"""

from __future__ import annotations

from pathlib import Path

import torch

from tilewhisper.models.checkpoint.export import transformers
from tilewhisper.models.checkpoint.export.model import ExportedModel
from tilewhisper.models.checkpoint.export.onnx_graph import DataFile, Graph
from tilewhisper.models.checkpoint.export.onnx_layers import Layers
from tilewhisper.models.constants import FRAMES_PER_POSITION

_CACHES = ("key", "value")


def write(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write the models, their weights, and the settings of a transformers folder."""
    write_graphs(model, folder, precision)
    transformers.write_settings(model, folder, "float16" if precision == "float16" else "float32")


def write_graphs(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write the models and their weights, in a precision of `Layers`."""
    with (folder / "encoder_model.onnx_data").open("wb") as file:
        data = DataFile(file, "encoder_model.onnx_data")
        _encoder(Layers(model, data, precision)).save(folder / "encoder_model.onnx")
    with (folder / "decoder_model.onnx_data").open("wb") as file:
        data = DataFile(file, "decoder_model.onnx_data")
        _decoder(Layers(model, data, precision), cached=False).save(folder / "decoder_model.onnx")
        _decoder(Layers(model, data, precision), cached=True).save(folder / "decoder_with_past_model.onnx")


def _encoder(layers: Layers) -> Graph:
    graph, config = layers.graph, layers.model.config
    frames = config.max_source_positions * FRAMES_PER_POSITION
    x = graph.input("input_features", ("batch", config.num_mel_bins, frames), layers.dtype)
    x = layers.convolution("encoder.conv2", layers.convolution("encoder.conv1", x, stride=1), stride=2)
    x = graph.node("Transpose", x, perm=[0, 2, 1])
    x = graph.node("Add", x, layers.parameter("encoder.embed_positions.weight"))
    heads = config.encoder_attention_heads
    for index in range(config.encoder_layers):
        layer = f"encoder.layers.{index}"
        attention = f"{layer}.self_attn"
        y = layers.norm(f"{attention}_layer_norm", x)
        keys, values = _keys_and_values(layers, attention, y, heads)
        x = graph.node("Add", x, layers.attention(attention, y, keys, values, heads))
        x = layers.feed_forward(layer, x)
    states = layers.norm("encoder.layer_norm", x)
    graph.output("last_hidden_state", states, ("batch", config.max_source_positions, config.d_model), layers.dtype)
    return graph


def _decoder(layers: Layers, *, cached: bool) -> Graph:
    """The decoder; `cached` has the keys and values of earlier tokens and of the encoder states as inputs."""
    graph, config, dtype = layers.graph, layers.model.config, layers.dtype
    heads, width = config.decoder_attention_heads, config.d_model
    ids = graph.input("input_ids", ("batch", "tokens"), torch.int64)
    states = "" if cached else graph.input("encoder_hidden_states", ("batch", "positions", width), dtype)
    sizes = {
        "decoder": ("batch", heads, "past" if cached else "tokens", width // heads),
        "encoder": ("batch", heads, "positions", width // heads),
    }

    def past(index: int, side: str) -> tuple[str, str]:
        key, value = (f"past_key_values.{index}.{side}.{cache}" for cache in _CACHES)
        return graph.input(key, sizes[side], dtype), graph.input(value, sizes[side], dtype)

    pasts = [(past(index, "decoder"), past(index, "encoder")) for index in range(config.decoder_layers) if cached]
    x, mask = _embedded(layers, ids, pasts[0][0][0] if cached else None)
    presents: list[tuple[str, str, str]] = []
    for index in range(config.decoder_layers):
        layer = f"decoder.layers.{index}"
        y = layers.norm(f"{layer}.self_attn_layer_norm", x)
        own = _keys_and_values(layers, f"{layer}.self_attn", y, heads)
        if cached:
            before = pasts[index][0]
            own = graph.node("Concat", before[0], own[0], axis=2), graph.node("Concat", before[1], own[1], axis=2)
        x = graph.node("Add", x, layers.attention(f"{layer}.self_attn", y, *own, heads, mask))
        attention = f"{layer}.encoder_attn"
        cross = pasts[index][1] if cached else _keys_and_values(layers, attention, states, heads)
        y = layers.norm(f"{attention}_layer_norm", x)
        x = layers.feed_forward(layer, graph.node("Add", x, layers.attention(attention, y, *cross, heads)))
        presents += [
            (f"present.{index}.decoder.{cache}", "total", value) for cache, value in zip(_CACHES, own, strict=True)
        ]
        if not cached:
            presents += [
                (f"present.{index}.encoder.{cache}", "positions", value)
                for cache, value in zip(_CACHES, cross, strict=True)
            ]
    logits = layers.logits(layers.norm("decoder.layer_norm", x))
    graph.output("logits", logits, ("batch", "tokens", config.vocab_size), dtype)
    for name, positions, value in presents:
        graph.output(name, value, ("batch", heads, positions, width // heads), dtype)
    return graph


def _keys_and_values(layers: Layers, attention: str, x: str, heads: int) -> tuple[str, str]:
    keys, values = (layers.heads(layers.linear(f"{attention}.{one}_proj", x), heads) for one in "kv")
    return keys, values


def _embedded(layers: Layers, ids: str, past_keys: str | None) -> tuple[str, str]:
    """Token embeddings with their positions, and the mask (tokens, total) that hides later tokens."""
    graph = layers.graph
    count = graph.node("Shape", ids, start=1, end=2)
    past = graph.node("Shape", past_keys, start=2, end=3) if past_keys else graph.constant([0])
    total = graph.node("Add", past, count)
    table = layers.parameter("decoder.embed_positions.weight")
    positions = graph.node("Slice", table, past, total, graph.constant([0]))
    start, end, step = (graph.node("Squeeze", one) for one in (past, total, graph.constant([1])))
    rows = graph.node("Unsqueeze", graph.node("Range", start, end, step), graph.constant([1]))
    columns = graph.node("Range", graph.constant(0), end, step)
    visible = graph.node("LessOrEqual", columns, rows)
    hidden = graph.constant(float("-inf"), layers.dtype)
    mask = graph.node("Where", visible, graph.constant(0.0, layers.dtype), hidden)
    return graph.node("Add", layers.embed(ids), positions), mask
