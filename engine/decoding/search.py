"""Which search decodes a window: beams at temperature 0, samples above."""

from tilewhisper.engine.decoding.beam import BeamSearch
from tilewhisper.engine.decoding.hypothesis import Search
from tilewhisper.engine.decoding.sampling import Sampling
from tilewhisper.engine.options import TranscriptionOptions


def search_at(temperature: float, options: TranscriptionOptions, eot: int) -> Search:
    """The search of these options at one temperature."""
    if temperature == 0:
        return BeamSearch(eot, options.beam_size, options.length_penalty, options.patience)
    return Sampling(eot, options.best_of, options.length_penalty, temperature, options.seed)
