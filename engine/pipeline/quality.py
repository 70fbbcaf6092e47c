"""Checks of a decoded window's text against the options' thresholds; `fallback` acts on them."""

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions

MIN_EVIDENCE = 0.3
"""Nats per text token by which a window's audio must make its text more probable than silence does, where no-speech is
probable. base on noise and chords: -0.12 to 0.21 for 40 texts it was sure of ("1 oz 1 oz 1 oz", "I'm sorry, I'm
sorry"); on speech: above 1 for correct words, down to 0.3 s of speech or 80 dB below full scale."""


def needs_fallback(decoded: DecodedWindow, options: TranscriptionOptions) -> bool:
    """Whether a higher temperature may give a better text. Silence is dropped anyway, so it never needs one."""
    return fails_checks(decoded, options) and not is_silence(decoded, options)


def fails_checks(decoded: DecodedWindow, options: TranscriptionOptions) -> bool:
    """Whether the text repeats itself or the model was unsure of it."""
    ratio, logprob = options.compression_ratio_threshold, options.log_prob_threshold
    repeats = ratio is not None and decoded.compression_ratio > ratio
    return repeats or (logprob is not None and decoded.avg_logprob < logprob)


def is_silence(decoded: DecodedWindow, options: TranscriptionOptions) -> bool:
    """Whether no-speech is probable and the model is unsure of all tokens (openai-whisper's rule) or of the text alone.

    Timestamps and end-of-text are nearly certain and lift the mean of the "you" that Whisper hallucinates on silence
    above the threshold (tiny.en: -0.70 over all tokens, -1.41 over the text; a mains hum: -0.85 and -1.74; speech at
    -80 dB: -0.85 and -0.84).
    """
    if not may_be_silence(decoded.no_speech_prob, options):
        return False
    threshold = options.log_prob_threshold
    return threshold is None or min(decoded.avg_logprob, decoded.text_logprob) < threshold


def may_be_silence(no_speech_prob: float, options: TranscriptionOptions) -> bool:
    """Whether no-speech is probable, whatever the text."""
    return options.no_speech_threshold is not None and no_speech_prob > options.no_speech_threshold
