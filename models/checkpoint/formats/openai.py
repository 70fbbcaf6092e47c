"""OpenAI's own `.pt`: a pickled {"dims": {…}, "model_state_dict": {…}}.

Read with `weights_only=True`, so that code inside the file never runs. The format has neither vocabulary nor generation
config: `find_tokenizer` searches the vocabulary, and `generation_config.derive` derives the config from it.
"""

from __future__ import annotations

from torch import Tensor

from tilewhisper.models.checkpoint.formats import Weights
from tilewhisper.models.checkpoint.formats.config import dims_of, model_config
from tilewhisper.models.checkpoint.formats.openai_names import renamed
from tilewhisper.models.checkpoint.formats.tokenizer_search import find_tokenizer
from tilewhisper.models.checkpoint.formats.torch_files import parameters, pickled
from tilewhisper.models.checkpoint.generation_config import derive
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.errors import CheckpointError


def read(source: Source) -> Weights:
    """Read a `.pt`. Raises CheckpointError."""
    state, heads = _content(source)
    dims = dims_of(state, heads, source.name)
    tokenizer = find_tokenizer(source.folder, n_vocab=dims[-1])
    dims = (*dims[:-1], tokenizer.n_vocab)
    return Weights(model_config(state, dims), state, tokenizer, derive(tokenizer, dims, source.files[0].stem))


def tensors(source: Source) -> dict[str, Tensor]:
    """Only the tensors of a `.pt`. Raises CheckpointError."""
    return _content(source)[0]


def _content(source: Source) -> tuple[dict[str, Tensor], int]:
    """The tensors, and the number of attention heads."""
    (path,) = source.files
    stored, mapped = pickled(path)
    try:
        heads = int(stored["dims"]["n_audio_head"])
        found = dict(stored["model_state_dict"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{source.name}: a PyTorch file, but not OpenAI's Whisper format: expected dims and model_state_dict; "
            "pass a Whisper .pt file"
        ) from error
    state = {renamed(str(name), source.name): tensor for name, tensor in found.items()}
    return parameters(state, path, mapped=mapped), heads
