"""Write a folder for OpenVINO GenAI's WhisperPipeline: encoder, decoder and tokenizer in OpenVINO's format.

The decoder is stateful, as the pipeline needs it: keys and values of earlier tokens are variables of the model instead
of inputs and outputs. Those of the encoder states are variables too, which are computed when the state is reset.
OpenVINO reads our ONNX models, and what differs is replaced in its graph. Attention is one operator there, so that
OpenVINO joins it with the variables of earlier keys and values. int8 has a scale for each row of a matrix; activations
stay float32.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13 as op
from openvino.op.util import Variable, VariableInfo

from tilewhisper.models.checkpoint.export import onnx, transformers
from tilewhisper.models.checkpoint.export.model import ExportedModel


def write(model: ExportedModel, folder: Path, precision: str) -> None:
    """Write the models and the settings of a transformers folder; float16 has float16 constants, to compute in any."""
    core = openvino.Core()
    with tempfile.TemporaryDirectory(dir=folder, prefix="onnx-") as unfinished:
        graphs = Path(unfinished)
        onnx.write_graphs(model, graphs, "int8 weights" if precision == "int8" else "float32")
        half = precision != "float32"
        encoder = core.read_model(graphs / "encoder_model.onnx")
        openvino.save_model(encoder, folder / "openvino_encoder_model.xml", compress_to_fp16=half)
        decoder = _stateful(
            core.read_model(graphs / "decoder_model.onnx"), core.read_model(graphs / "decoder_with_past_model.onnx")
        )
        _join_attention(decoder)
        openvino.save_model(decoder, folder / "openvino_decoder_model.xml", compress_to_fp16=half)
    transformers.write_settings(model, folder, "float32")
    _write_tokenizers(folder)


def _stateful(first: openvino.Model, cached: openvino.Model) -> openvino.Model:
    """The decoder with a cache, whose inputs of earlier keys and values are variables.

    Variables of encoder states start with the values that `first`, the decoder without a cache, computes.
    """
    of_states = {name: result.input_value(0) for result in first.results for name in _names(result.input_value(0))}
    results = {name: result for result in cached.results for name in _names(result.input_value(0))}
    parameters = {parameter.output(0).any_name: parameter for parameter in cached.get_parameters()}
    tokens = parameters.pop("input_ids")
    beams = op.parameter([-1], np.int32, name="beam_idx")
    beams.output(0).set_names({"beam_idx"})
    batch = op.gather(op.shape_of(tokens, output_type="i64"), op.constant(np.array([0])), op.constant(0))
    assignments = []
    for name, parameter in parameters.items():
        variable = _variable(name, parameter)
        present = name.replace("past_key_values", "present")
        if ".encoder." in name:
            value = op.read_value(of_states[present], variable)
            assignments.append(op.assign(value, variable))
        else:
            _, heads, _, width = parameter.get_partial_shape()
            shape = op.concat([batch, op.constant(np.array([heads.get_length(), 0, width.get_length()]))], 0)
            before = op.read_value(op.broadcast(op.constant(np.float32(0)), shape), variable)
            value = op.gather(before, beams, op.constant(0))  # each hypothesis goes on from that of its beam
            assignments.append(op.assign(results[present].input_value(0).get_node(), variable))
        for use in parameter.output(0).get_target_inputs():
            use.replace_source_output(value.output(0))
    states = first.input("encoder_hidden_states").get_node()
    return openvino.Model([results["logits"]], assignments, [tokens, states, beams], "decoder")


def _join_attention(model: openvino.Model) -> None:
    """Replace softmax(q k^T + mask) v, where q is scaled already, by one operator."""
    for softmax in model.get_ordered_ops():
        if softmax.get_type_name() != "Softmax":
            continue
        (use,) = softmax.output(0).get_target_inputs()
        mixed = use.get_node()
        scores, mask = softmax.input_value(0).get_node(), op.constant(np.float32(0))
        if scores.get_type_name() == "Add":
            scores, mask = scores.input_value(0).get_node(), scores.input_value(1)
        queries, keys = scores.input_value(0), scores.input_value(1).get_node().input_value(0)
        scale = op.constant(np.float32(1))
        joined = op.scaled_dot_product_attention(queries, keys, mixed.input_value(1), mask, scale)
        for use in mixed.output(0).get_target_inputs():
            use.replace_source_output(joined.output(0))


def _names(output: openvino.Output) -> set[str]:
    return set(output.get_names())


def _variable(name: str, parameter: openvino.Node) -> Variable:
    info = VariableInfo()
    info.data_shape, info.data_type = parameter.get_partial_shape(), parameter.get_element_type()
    info.variable_id = name
    return Variable(info)


def _write_tokenizers(folder: Path) -> None:
    """Write tokenizer and detokenizer as OpenVINO models; its converter takes only transformers' tokenizers."""
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    logging.getLogger("openvino_tokenizers").setLevel(logging.ERROR)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    models = convert_tokenizer(tokenizer, with_detokenizer=True, skip_special_tokens=True)
    for name, model in zip(("tokenizer", "detokenizer"), models, strict=True):
        openvino.save_model(model, folder / f"openvino_{name}.xml")
