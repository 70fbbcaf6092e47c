"""A window's prompt: the text before it, and the start of its own text.

In the order the decoder reads it: start-of-previous, hotwords, previous text; the tokens of language and task; a
prefix. All but the tokens of language and task share half of the text context; the other half is for the window's own
tokens. The rules are openai-whisper's; hotwords and the prefix are faster-whisper's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.models.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """What the decoder reads before it decodes a window."""

    before: tuple[int, ...] = ()
    """Tokens before the window's own text."""
    prefix: tuple[int, ...] = ()
    """Tokens that the window's own text begins with."""

    def with_task(self, task: Sequence[int]) -> "Prompt":
        """The prompt with the tokens of language and task, `Tokenizer.prompt`, after the text before the window."""
        return replace(self, before=(*self.before, *task))


class History:
    """The text of one file so far, as the next window sees it."""

    def __init__(self, options: TranscriptionOptions, tokenizer: Tokenizer, text_context: int) -> None:
        self._options, self._sot_prev = options, tokenizer.sot_prev
        self._half = text_context // 2 - 1
        initial = _tokens(options.initial_prompt, tokenizer)
        self._carried = initial[-self._half :] if options.carry_initial_prompt else []
        self._previous = [] if options.carry_initial_prompt else initial
        self._prefix = _prefix(options, tokenizer, self._half)
        self._hotwords = _tokens(options.hotwords, tokenizer)

    def next_prompt(self) -> Prompt:
        """The next window's prompt. The first window alone has the prefix, which replaces the hotwords."""
        prefix, self._prefix = self._prefix, []
        always = [*([] if prefix else self._hotwords), *self._carried][: self._half]
        left = max(0, self._half - len(always) - len(prefix))
        seen = [*always, *self._previous[max(0, len(self._previous) - left) :]]
        return Prompt((self._sot_prev, *seen) if seen else (), tuple(prefix))

    def add(self, tokens: Iterable[int], temperature: float) -> None:
        """Add the last window's text; forget all of it where it is too much of a guess to condition on."""
        options = self._options
        self._previous.extend(tokens)
        if not options.condition_on_previous_text or temperature > options.prompt_reset_on_temperature:
            self._previous.clear()


def _prefix(options: TranscriptionOptions, tokenizer: Tokenizer, limit: int) -> list[int]:
    """The prefix's tokens; with timestamps it starts at 0.00."""
    prefix = _tokens(options.prefix, tokenizer)[: limit - 1]
    return prefix if options.without_timestamps or not prefix else [tokenizer.timestamp_begin, *prefix]


def _tokens(text: str | Iterable[int] | None, tokenizer: Tokenizer) -> list[int]:
    if isinstance(text, str):
        return tokenizer.encode(f" {text.strip()}") if text.strip() else []
    return [*(text or ())]
