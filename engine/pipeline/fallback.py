"""What is tried at a window until its text is good: a cheap silence first, one temperature after the other.

A generator asks for each attempt to be decoded and is sent what came of it, so that attempts at many windows can share
the decoder's steps.
"""

from collections.abc import Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tilewhisper.engine.decoding.batch import Attempt, DecodedWindow
from tilewhisper.engine.decoding.decoder import CrossKV
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.quality import came_out_badly, is_silence, may_be_silence, needs_fallback
from tilewhisper.engine.pipeline.segmenter import Reply, WindowRequest

if TYPE_CHECKING:
    from tilewhisper.engine.pipeline.session import FileRun


def attempts(run: "FileRun", request: WindowRequest) -> Generator[Attempt, DecodedWindow, Reply]:
    """A window of a file, from its encoding to what is believed of it.

    One that was encoded with a cheap silence and comes out badly at the first temperature is encoded in full, and tried
    at all.
    """
    options, window = run.options, run.encode(request)
    language = run.language_of(window)
    plain = run.task_prompt(language)
    prompt = request.prompt.around(plain)
    first, later = options.temperatures[0], options.temperatures[1:]
    decoded = yield Attempt(window.heard, prompt, first)
    if window.encoded.approximate and came_out_badly(decoded, options):
        window = run.encode_again(request)
        decoded = yield from with_fallback(window.heard, prompt, options.temperatures, options)
    elif later and needs_fallback(decoded, options):
        decoded = yield from with_fallback(window.heard, prompt, later, options)
    # Text before a window makes the model sure of what it goes on with, in silence too: 40 s of zeros after speech gave
    # "Thank you for watching." at a log-probability of -0.71, and -3.23 without the text. So where no-speech is likely,
    # the window must be sure of its text by itself.
    if prompt != plain and may_be_silence(decoded, options):
        alone = yield Attempt(window.heard, plain, first)
        decoded = alone if is_silence(alone, options) else decoded
    return Reply(decoded, language, partial(run.align, window, language))


def with_fallback(
    window: CrossKV, prompt: Sequence[int], temperatures: Sequence[float], options: TranscriptionOptions
) -> Generator[Attempt, DecodedWindow, DecodedWindow]:
    """The first temperature whose result needs no other, else the last."""
    for temperature in temperatures:
        decoded = yield Attempt(window, prompt, temperature)
        if not needs_fallback(decoded, options):
            break
    return decoded
