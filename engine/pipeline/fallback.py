"""Temperature fallback: decode a window at rising temperatures until its text passes the checks.

A generator yields each attempt and is sent its result, so that the scheduler can decode attempts at many windows
together.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import partial

from tilewhisper.engine.decoding.batch import Attempt, DecodedWindow
from tilewhisper.engine.pipeline.prompt import Prompt
from tilewhisper.engine.pipeline.quality import fails_checks, is_silence, may_be_silence, needs_fallback
from tilewhisper.engine.pipeline.segmenter import WindowRequest, WindowResult
from tilewhisper.engine.pipeline.session import Session, Window

Attempts = Generator[Attempt, DecodedWindow, WindowResult]


def decode_window(session: Session, request: WindowRequest) -> Attempts:
    """Encode a window and decode it until its text passes the checks, at the last temperature whatever it gives.

    A window that was encoded with an approximate tail and fails the checks at the first temperature is re-encoded with
    full context, and starts again.
    """
    options, window = session.options, session.encode(request)
    language = session.language_of(window)
    task = session.task_prompt(language)
    prompt = request.prompt.with_task(task)
    without_history = replace(prompt, before=task)
    first, later = options.temperatures[0], options.temperatures[1:]
    decoded = yield session.attempt(window, prompt, first)
    if window.approximate and fails_checks(decoded, options):
        window = session.reencode(request)
        decoded = yield from _at_rising_temperatures(session, window, prompt, options.temperatures)
    elif later and needs_fallback(decoded, options):
        decoded = yield from _at_rising_temperatures(session, window, prompt, later)
    # The text before a window makes the model sure of its continuation, in silence too: 40 s of zeros after speech gave
    # "Thank you for watching." at a log-probability of -0.71, and -3.23 without the text before. So where no-speech is
    # probable, the window must be sure of its text without it.
    if prompt != without_history and may_be_silence(decoded.no_speech_prob, options):
        alone = yield session.attempt(window, without_history, first)
        decoded = alone if is_silence(alone, options) else decoded
    doubted = may_be_silence(decoded.no_speech_prob, options) and not is_silence(decoded, options)
    supported = not doubted or session.supports(window, prompt, decoded.tokens)
    return WindowResult(decoded, language, partial(session.align, window, language), supported)


def _at_rising_temperatures(
    session: Session, window: Window, prompt: Prompt, temperatures: Sequence[float]
) -> Generator[Attempt, DecodedWindow, DecodedWindow]:
    """The first result that needs no fallback, else the last."""
    for temperature in temperatures:
        decoded = yield session.attempt(window, prompt, temperature)
        if not needs_fallback(decoded, session.options):
            break
    return decoded
