"""How far two models' encodings of the same audio are apart."""

from pathlib import Path

from torch import Tensor

from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.models.audio import reader
from tilewhisper.models.audio.log_mel import window
from tilewhisper.models.audio.recording import join
from tilewhisper.models.constants import WINDOW_SAMPLES


def first_states(model: WhisperModel, audio: Path) -> Tensor:
    """The encoder states (1, 1500, d_model) of the first 30 s of a file. Raises ModelsError and EngineError."""
    blocks, count = [], 0
    for block in reader.stream(audio):
        blocks.append(block)
        count += len(block)
        if count >= WINDOW_SAMPLES:
            break  # the rest of the file is not decoded
    mel = window(model.log_mel(join(blocks)[:WINDOW_SAMPLES]), 0)
    return model.encode(mel[None])
