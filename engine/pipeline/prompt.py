"""What a window is told before it is decoded: the text before it, and how its own text begins.

In the order the decoder reads it: start-of-previous, hotwords, text; the tokens of the language and the task; a prefix.
All but the tokens in the middle share half of the text context, the other half is for what the window says. The rules
are openai-whisper's; hotwords and the prefix are faster-whisper's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """Tokens around those of language and task."""

    before: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()

    def around(self, task: Sequence[int]) -> tuple[int, ...]:
        """All a window's decoding starts with; `task` is `Tokenizer.prompt`."""
        return (*self.before, *task, *self.prefix)


class History:
    """One file's text so far, as far as the next window is to see it."""

    def __init__(self, options: TranscriptionOptions, tokenizer: Tokenizer, text_context: int) -> None:
        self._options, self._sot_prev = options, tokenizer.sot_prev
        self._half = text_context // 2 - 1
        initial = _tokens(options.initial_prompt, tokenizer)
        self._carried = initial[-self._half :] if options.carry_initial_prompt else []
        self._previous = [] if options.carry_initial_prompt else initial
        self._prefix = _prefix(options, tokenizer, self._half)
        self._hotwords = _tokens(options.hotwords, tokenizer)

    def next_prompt(self) -> Prompt:
        """The next window's. A prefix is the first one's only, and takes the place of the hotwords."""
        prefix, self._prefix = self._prefix, []
        always = [*([] if prefix else self._hotwords), *self._carried][: self._half]
        room = max(0, self._half - len(always) - len(prefix))
        seen = [*always, *self._previous[max(0, len(self._previous) - room) :]]
        return Prompt((self._sot_prev, *seen) if seen else (), tuple(prefix))

    def add(self, tokens: Iterable[int], temperature: float) -> None:
        """What the last window said; it is forgotten where it was too much of a guess to be shown to the next."""
        options = self._options
        self._previous.extend(tokens)
        if not options.condition_on_previous_text or temperature > options.prompt_reset_on_temperature:
            self._previous.clear()


def _prefix(options: TranscriptionOptions, tokenizer: Tokenizer, most: int) -> list[int]:
    """With timestamps, a text that is given starts at 0."""
    prefix = _tokens(options.prefix, tokenizer)[: most - 1]
    return prefix if options.without_timestamps or not prefix else [tokenizer.timestamp_begin, *prefix]


def _tokens(text: str | Iterable[int] | None, tokenizer: Tokenizer) -> list[int]:
    if isinstance(text, str):
        return tokenizer.encode(f" {text.strip()}") if text.strip() else []
    return [*(text or ())]
