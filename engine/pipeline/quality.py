"""Is a window's text good? By its figures and the options' thresholds; `attempts` is what follows."""

from tilewhisper.engine.decoding.batch import DecodedWindow
from tilewhisper.engine.options import TranscriptionOptions


def needs_fallback(decoded: DecodedWindow, options: TranscriptionOptions) -> bool:
    """Whether another temperature may do better. Silence needs none, however badly it came out: it is dropped, so
    this asks `is_silence` itself, and no window is decoded six times to be thrown away."""
    return came_out_badly(decoded, options) and not is_silence(decoded, options)


def came_out_badly(decoded: DecodedWindow, options: TranscriptionOptions) -> bool:
    """Whether the text repeats itself or the model was unsure of it."""
    ratio, logprob = options.compression_ratio_threshold, options.log_prob_threshold
    repeats = ratio is not None and decoded.compression_ratio > ratio
    return repeats or (logprob is not None and decoded.avg_logprob < logprob)


def is_silence(decoded: DecodedWindow, options: TranscriptionOptions) -> bool:
    """Whether no-speech is likely and the model unsure of all it wrote, which is openai-whisper's rule, or of the text
    alone: timestamps and the end are near certain, and lift the mean of the "you" that Whisper hears in silence above
    the threshold (tiny.en: -0.70 over all, -1.41 over the text; a mains hum: -0.85 and -1.74; speech at -80 dB: -0.85
    and -0.84).
    """
    if not may_be_silence(decoded, options):
        return False
    least = options.log_prob_threshold
    return least is None or min(decoded.avg_logprob, decoded.text_logprob) < least


def may_be_silence(decoded: DecodedWindow, options: TranscriptionOptions) -> bool:
    """Whether no-speech is likely, whatever the text."""
    return options.no_speech_threshold is not None and decoded.no_speech_prob > options.no_speech_threshold
