"""The flags of `transcribe` that say what is decoded and how, as data: openai-whisper's, whisper-ctranslate2's, ours.

A flag that is not given is not passed on, so that the defaults are those of Python: what a row says of its default is
for the help. Imports nothing heavy: `--help` and bad flags are answered without torch.
"""

from argparse import SUPPRESS, ArgumentTypeError, Namespace, _ActionsContainer
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION
from tilewhisper.models.audio.vad_options import VadOptions

Kind = Callable[[str], Any]


@dataclass(frozen=True)
class Flag:
    """`name` is the option's own, in Python too; `default` is the word that stands for its default."""

    name: str
    kind: Kind
    default: str
    help: str
    also: str = ""
    """What others call it."""
    choices: tuple[str, ...] | None = None

    def add_to(self, group: _ActionsContainer) -> None:
        names = [f"--{name}" for name in (self.name, self.also) if name]
        default = "" if self.default == "None" else f" (default: {self.default})"
        bare: dict[str, Any] = {"nargs": "?", "const": True} if self.kind is truth else {}
        group.add_argument(
            *names,
            dest=self.name,
            type=self.kind,
            default=SUPPRESS,
            choices=self.choices,
            metavar=None if self.choices else _METAVARS.get(self.kind, "N"),
            help=self.help + default,
            **bare,
        )


def text(word: str) -> str:
    return word


def truth(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ArgumentTypeError(f"expected True or False, not {word!r}")
    return word.lower() == "true"


def number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ArgumentTypeError(f"expected a number, not {word!r}") from None


def whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ArgumentTypeError(f"expected a whole number, not {word!r}") from None


def ids(word: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in word.split(",") if part.strip())
    except ValueError:
        raise ArgumentTypeError(f"expected token ids: -1 or 11,13, not {word!r}") from None


def _or(nothing: Any, kind: Kind) -> Kind:
    """The word None too; `nothing` is what it stands for."""
    return lambda word: nothing if word == "None" else kind(word)


number_or_none, whole_or_none, text_or_none = _or(None, number), _or(None, whole), _or(None, text)
# openai-whisper's None: one hypothesis, one sample, no weighing but by the length.
whole_or_one, number_or_one = _or(1, whole), _or(1.0, number)


def _vad(name: str, kind: Kind, help: str, also: str = "") -> Flag:
    return Flag(f"vad_{name}", kind, str(getattr(VadOptions, name)), help, also)


_METAVARS: dict[Kind, str] = {text: "TEXT", text_or_none: "TEXT", truth: "True|False", ids: "IDS"}

SPEECH = (
    Flag("language", text_or_none, "None", "code or English name; detected where none is given"),
    Flag("task", text, "transcribe", "translate is to English", choices=("transcribe", "translate")),
    Flag("initial_prompt", text_or_none, "None", "text that the first window sees as if it came before"),
    Flag("carry_initial_prompt", truth, "False", "show it to every window"),
    Flag("prefix", text_or_none, "None", "text that the first window begins with"),
    Flag("hotwords", text_or_none, "None", "words that every window sees as if they came before"),
    Flag("condition_on_previous_text", truth, "True", "whether a window sees the text before it"),
    Flag("prompt_reset_on_temperature", number, "0.5", "text that took a higher temperature is not shown on"),
    Flag("clip_timestamps", text, "0", "seconds to transcribe: start,end,start,end,…"),
    Flag("multilingual", truth, "False", "detect the language of every window"),
    Flag("language_detection_threshold", number_or_none, "0.5", "a language at least so probable is taken at once"),
    Flag("language_detection_segments", whole, "1", "the most windows heard to detect the language"),
    Flag(
        "audio_context", text, "auto", "how much of a short window's silence is encoded: full, sparse:S, silent or auto"
    ),
)
DECODING = (
    Flag("beam_size", whole_or_one, "5", "hypotheses followed at temperature 0; 1 is greedy"),
    Flag("patience", number_or_one, "1.0", "beam_size * patience finished hypotheses end a search"),
    Flag("length_penalty", number_or_one, "1.0", "hypotheses are compared by log-probability / length ** this"),
    Flag("best_of", whole_or_one, "5", "samples drawn above temperature 0, of which the best is taken"),
    Flag("seed", whole, "0", "of sampling: the same seed gives the same text"),
    Flag("compression_ratio_threshold", number_or_none, "2.4", "text that zlib shrinks more is tried again, hotter"),
    Flag(
        "log_prob_threshold",
        number_or_none,
        "-1.0",
        "text of a lower mean log-probability is tried again, hotter",
        also="logprob_threshold",
    ),
    Flag("no_speech_threshold", number_or_none, "0.6", "unsure text is dropped where silence is likelier than this"),
    Flag("repetition_penalty", number, "1.0", "above 1, tokens that came before become less likely"),
    Flag("no_repeat_ngram_size", whole, "0", "runs of so many tokens come once"),
    Flag("suppress_tokens", ids, "-1", "ids that never come; -1 is the model's list of symbols"),
    Flag("suppress_blank", truth, "True", "no window begins with a blank"),
    Flag("without_timestamps", truth, "False", "text only, a segment a window"),
    Flag("max_initial_timestamp", number, "1.0", "seconds: a window's first segment starts no later"),
    Flag("max_new_tokens", whole_or_none, "None", "the most tokens of a window; None is half the text context"),
    Flag("chunk_length", whole_or_none, "None", "seconds of audio in a window; None is 30"),
)
WORDS = (
    Flag("word_timestamps", truth, "False", "when each word is said"),
    Flag("prepend_punctuations", text, PUNCTUATION.prepended, "marks that go with the word after them"),
    Flag("append_punctuations", text, PUNCTUATION.appended, "marks that go with the word before them"),
    Flag("hallucination_silence_threshold", number_or_none, "None", "seconds of silence around unlikely text to skip"),
)
SUBTITLES = (
    Flag("highlight_words", truth, "False", "underline each word of srt and vtt as it is said"),
    Flag("max_line_width", whole_or_none, "None", "characters of a line"),
    Flag("max_line_count", whole_or_none, "None", "lines of a subtitle, with max_line_width"),
    Flag("max_words_per_line", whole_or_none, "None", "words of a subtitle"),
)
VAD_FILTER = Flag("vad_filter", truth, "False", "cut silence out before anything is decoded (tilewhisper[vad])")
VAD = (
    _vad("threshold", number, "a frame at or above this probability is speech", also="vad_onset"),
    _vad("neg_threshold", number_or_none, "a frame below it is silence; None is 0.15 less than the other"),
    _vad("min_speech_duration_ms", whole, "shorter speech is dropped"),
    _vad("max_speech_duration_s", number, "longer speech is cut"),
    _vad("min_silence_duration_ms", whole, "silence that ends a span of speech"),
    _vad("speech_pad_ms", whole, "added on each side of a span"),
)
HOTTER = (
    Flag("temperature", number, "0", "the first temperature; 0 takes what is likeliest"),
    Flag("temperature_increment_on_fallback", number_or_none, "0.2", "steps up to 1 for text that fails, or None"),
)
GROUPS = {
    "speech": SPEECH,
    "decoding": (*HOTTER, *DECODING),
    "silence": (VAD_FILTER, *VAD),
    "words, and subtitles of them": (*WORDS, *SUBTITLES),
}


def options(args: Namespace) -> dict[str, Any]:
    """What was asked, as fields of TranscriptionOptions; what was not is left out. Raises OptionError."""
    asked = _given(args, (*SPEECH, *DECODING, *WORDS, VAD_FILTER))
    if hotter := _given(args, HOTTER):
        asked["temperature"] = temperatures(**hotter)
    if vad := _given(args, VAD):
        asked["vad_parameters"] = {name.removeprefix("vad_"): value for name, value in vad.items()}
    return asked


def subtitle_options(args: Namespace) -> SubtitleOptions:
    """Raises OptionError, also where words are laid out that have no times."""
    asked = SubtitleOptions(**_given(args, SUBTITLES))
    asked.check(word_timestamps=getattr(args, "word_timestamps", False))
    return asked


def temperatures(temperature: float = 0.0, temperature_increment_on_fallback: float | None = 0.2) -> tuple[float, ...]:
    """openai-whisper's: up to 1, in steps. Raises OptionError."""
    step = temperature_increment_on_fallback
    if step is None:
        return (temperature,)
    if not step > 0:
        raise OptionError(f"temperature_increment_on_fallback must be above 0, or None, not {step:g}")
    import numpy as np

    return tuple(np.arange(temperature, 1 + 1e-6, step).tolist()) or (temperature,)


def _given(args: Namespace, flags: tuple[Flag, ...]) -> dict[str, Any]:
    return {flag.name: getattr(args, flag.name) for flag in flags if hasattr(args, flag.name)}
