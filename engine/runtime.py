"""A loaded, routed model: encode, detect the language, prepare attempts, align. Knows no file and no thread.

Not thread-safe: `pipeline.scheduler` runs everything here in one loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from torch import Tensor

from tilewhisper.engine.decoding.batch import Attempt, Batch, DecodedWindow, decode
from tilewhisper.engine.decoding.decoder import CrossKV, Decoder
from tilewhisper.engine.decoding.evidence import text_logprob
from tilewhisper.engine.decoding.language import DetectedLanguage, detect_language
from tilewhisper.engine.decoding.logits import LogitsProcessor
from tilewhisper.engine.decoding.search import search_at
from tilewhisper.engine.encoding.audio_context import AUTO_STEP, FULL, AudioContext, parse
from tilewhisper.engine.encoding.encoder import Encoder
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.report import Stage
from tilewhisper.engine.routing.modules import apply_policy
from tilewhisper.engine.routing.policy import Policy
from tilewhisper.engine.routing.prepared import WeightPreparation
from tilewhisper.engine.routing.router import Counts, SitePlan, plan_decoder
from tilewhisper.engine.startup import Startup
from tilewhisper.engine.timestamps.alignment import TokenTimes, token_probabilities, token_times
from tilewhisper.engine.timestamps.cross_attention import CrossAttention
from tilewhisper.kernels.base import Backend
from tilewhisper.models.audio.log_mel import log_mel
from tilewhisper.models.checkpoint.loader import Checkpoint
from tilewhisper.models.constants import FRAMES_PER_POSITION, FRAMES_PER_WINDOW, POSITIONS, WINDOW_SAMPLES


@dataclass(frozen=True)
class ModelDescription:
    """What reports say about a loaded model."""

    name: str
    reason: str
    """Why this model is used: requested, or the rule of the default."""
    weights: str
    """Origin of the weights."""
    policy: str
    backend_overrides: tuple[str, ...]
    startup: Startup
    load: Stage


class Runtime:
    """One checkpoint under one policy."""

    def __init__(self, checkpoint: Checkpoint, policy: Policy, create: Callable[[str], Backend]) -> None:
        """Route the checkpoint's modules. Raises PolicyError and KernelError."""
        modules: Any = checkpoint.model.model
        preparation = WeightPreparation(checkpoint.packed)
        self.tokenizer = checkpoint.tokenizer
        self.generation_config = checkpoint.generation_config
        self.config = checkpoint.model.config
        self.decoder_plan = plan_decoder(policy.decoder, create)
        # The decoder first: its token embedding (265 MB of large-v3 in float32) is packed while nothing else is there.
        self.decoder = Decoder(modules.decoder, self.decoder_plan.backend, preparation)
        self._routed = apply_policy(checkpoint.model, policy, create, preparation)
        self._encoder = Encoder(modules.encoder, self._routed)
        heads = self.generation_config.alignment_heads
        self._cross_attention = CrossAttention(modules.decoder, self.decoder_plan.backend, heads)
        self.mapped = preparation.all_found
        """Whether all weights were mapped from those that an earlier start packed."""
        self.weight_bytes = preparation.nbytes
        """Bytes of the weights that backends use."""
        self.stored = preparation.save()
        """Whether weights were packed and stored, so that a new runtime maps them."""
        # Attempts of equal options share one processor, so that the batch processes their rows together.
        self._processor = cache(partial(LogitsProcessor.create, self.tokenizer))

    @property
    def n_mels(self) -> int:
        return int(self.config.num_mel_bins)

    @property
    def text_context(self) -> int:
        """The most tokens of a window, prompt included."""
        return self.decoder.text_context

    @property
    def site_plans(self) -> Sequence[SitePlan]:
        """Every routable product of the encoder, with its requested and used backend."""
        return tuple(self._routed.router.plans.values())

    @property
    def backend_labels(self) -> tuple[str, ...]:
        """The names of the backends in use, as reports show them; an emulated one says so."""
        return self._routed.router.labels()

    @property
    def uses_device(self) -> bool:
        """Whether any product runs on a device with memory of its own, such as an NPU."""
        return self._routed.router.uses_device()

    def audio_context(self, options: TranscriptionOptions) -> AudioContext:
        """The options' audio context, `auto` resolved."""
        requested = parse(options.audio_context)
        if requested.mode != "auto":
            return requested
        return FULL if self.uses_device else AudioContext("sparse", AUTO_STEP)

    def window_bytes(self, options: TranscriptionOptions) -> int:
        """Memory of one window while it is decoded, at most: float32 keys and values of its audio, of the prompt that
        its hypotheses share, and of each hypothesis."""
        decoded = min(options.max_new_tokens or self.text_context // 2, self.text_context)
        positions = POSITIONS + self.text_context - decoded + options.most_hypotheses * decoded
        return 2 * 4 * int(self.config.decoder_layers * self.config.d_model) * positions

    def encode(self, mel: Tensor, counts: Counts | None = None) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model); calls are added to `counts`."""
        if counts is None:
            return self._encoder(mel)
        with self._routed.router.counting(counts):
            return self._encoder(mel)

    def encode_window(self, mel: Tensor, content_frames: int, context: AudioContext, counts: Counts) -> Encoded:
        """Encode one log-mel window (1, n_mels, 3000) with `content_frames` of audio; calls are added to `counts`."""
        with self._routed.router.counting(counts):
            return self._encoder.encode(mel, content_frames, context)

    def project_cross_kv(self, window: Encoded) -> CrossKV:
        """The window's cross-attention K/V cache, for all attempts at it."""
        return self.decoder.project_cross_kv(window)

    def detect_language(self, window: CrossKV) -> DetectedLanguage:
        """The window's language."""
        return detect_language(self.decoder, [window], self.tokenizer)[0]

    def evidence(self, window: CrossKV, prompt: Sequence[int], tokens: Sequence[int]) -> float:
        """How much more probable the audio makes a window's text than silence does, in nats per text token."""
        silence = self.decoder.project_cross_kv(self._silence)
        eot = self.tokenizer.eot
        return text_logprob(self.decoder, window, prompt, tokens, eot) - text_logprob(
            self.decoder, silence, prompt, tokens, eot
        )

    @cached_property
    def _silence(self) -> Encoded:
        """30 s of silence, encoded once for all files: no run counts it, only its time."""
        mel = log_mel(np.zeros(WINDOW_SAMPLES, np.float32), self.n_mels)[None, :, :FRAMES_PER_WINDOW]
        return self._encoder.encode(mel, FRAMES_PER_WINDOW, FULL)

    def batch(self) -> Batch:
        """An empty batch."""
        return Batch(self.decoder, self.tokenizer)

    def attempt(
        self,
        window: CrossKV,
        prompt: Sequence[int],
        temperature: float,
        options: TranscriptionOptions,
        prefix: Sequence[int] = (),
    ) -> Attempt:
        """One decoding of a window at one temperature, whose text begins with the tokens of `prefix`."""
        processor = self._processor(
            suppress=options.suppressed(self.tokenizer, self.generation_config),
            suppress_first=options.suppressed_first(self.generation_config),
            timestamps=not options.without_timestamps,
            max_initial_timestamp_index=options.max_initial_timestamp_index(self.generation_config),
            repetition_penalty=options.repetition_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
        )
        search = search_at(temperature, options, self.tokenizer.eot)
        return Attempt(window, prompt, temperature, search, processor, prefix, options.max_new_tokens)

    def decode(self, windows: Sequence[CrossKV], options: TranscriptionOptions) -> list[DecodedWindow]:
        """Decode windows together, without previous text, at the first of the options' temperatures.

        `options.language` must be set if the model is multilingual.
        """
        prompt = self.tokenizer.prompt(options.language, options.task, not options.without_timestamps)
        temperature = options.temperatures[0]
        return decode(self.batch(), [self.attempt(window, prompt, temperature, options) for window in windows])

    def align(
        self, encoded: Encoded, cross_kv: CrossKV, frames: int, language: str, task: str, text: Sequence[int]
    ) -> tuple[TokenTimes, Sequence[float]]:
        """The times and the probabilities of a window's text tokens; `frames` of the window hold audio."""
        tokenizer = self.tokenizer
        prompt = tokenizer.prompt(language, task, False)
        tokens = (*prompt, *text, tokenizer.eot)
        attention_logits, hidden = self._cross_attention(tokens, encoded, cross_kv, frames // FRAMES_PER_POSITION)
        hidden = hidden[len(prompt) - 1 :][: len(text)]
        logits = self.decoder.logits(hidden)
        self.decoder.make_exact(logits, hidden, text)
        probabilities = token_probabilities(logits, list(text), tokenizer.eot)
        return token_times(attention_logits, len(prompt)), probabilities

    def drop_weights(self) -> None:
        """Release prepared weights, so that another runtime of the checkpoint may take over its backends."""
        self._routed.router.drop_weights()

    def close(self) -> None:
        """Release prepared weights and devices."""
        self._routed.router.close()
