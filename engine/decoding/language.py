"""Language detection: the probabilities of the language tokens right after start-of-transcript."""

from collections.abc import Mapping, Sequence

import torch

from tilewhisper.engine.decoding.decoder import CrossKV, Decoder


@torch.inference_mode()
def detect_language(
    decoder: Decoder, windows: Sequence[CrossKV], sot: int, languages: Mapping[str, int]
) -> list[dict[str, float]]:
    """Each window's language probabilities by code, most probable first."""
    state = decoder.start()
    state.add(windows)
    codes, ids = list(languages), list(languages.values())
    probabilities = decoder.logits(decoder.step([[sot]] * len(windows), state))[:, ids].softmax(dim=-1)
    order = probabilities.argsort(dim=-1, descending=True, stable=True)
    return [
        {codes[i]: float(row[i]) for i in places} for row, places in zip(probabilities, order.tolist(), strict=True)
    ]
