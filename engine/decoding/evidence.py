"""How much a window's audio speaks for a text: Whisper completes noise with text that it writes on silence as well."""

from collections.abc import Sequence

import torch

from tilewhisper.engine.decoding.decoder import CrossKV, Decoder


@torch.inference_mode()
def text_logprob(decoder: Decoder, window: CrossKV, prompt: Sequence[int], tokens: Sequence[int], eot: int) -> float:
    """The mean log-probability of the text tokens (below `eot`) among `tokens`, given the window's audio."""
    state = decoder.start()
    state.add([window])
    places = [place for place, token in enumerate(tokens) if token < eot]
    hidden = decoder.step([[*prompt, *tokens]], state)[[len(prompt) - 1 + place for place in places]]
    text = [tokens[place] for place in places]
    logits = decoder.logits(hidden)
    decoder.make_exact(logits, hidden, text)
    return float(logits.log_softmax(dim=-1).gather(1, torch.tensor(text)[:, None]).mean())
