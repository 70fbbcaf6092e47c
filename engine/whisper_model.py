"""A loaded Whisper model with its encoder routed: the Python entrance.

`WhisperModel` has faster-whisper's shape: `transcribe` returns (segments, info), the segments lazy. The segments
object also has `report()`, what the run cost so far and what ran where. The way through a file is in `transcriber`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tilewhisper.engine import startup
from tilewhisper.engine.compat import policy_of, refuse
from tilewhisper.engine.decoding.batch import Attempt, Batch, DecodedWindow, decode, detect_language
from tilewhisper.engine.decoding.decoder import CrossKV, Decoder
from tilewhisper.engine.decoding.token_rules import TokenRules
from tilewhisper.engine.encoding.audio_context import AUTO_STEP, FULL, AudioContext
from tilewhisper.engine.encoding.audio_context import parse as parse_audio_context
from tilewhisper.engine.encoding.encoder import Encoder
from tilewhisper.engine.encoding.states import Encoded
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TEMPERATURES, TranscriptionOptions
from tilewhisper.engine.pipeline.scheduler import default_batch_size
from tilewhisper.engine.pipeline.transcription import Transcript, Transcription, transcribe_together
from tilewhisper.engine.progress import Progress
from tilewhisper.engine.report import Clock
from tilewhisper.engine.results import TranscriptionInfo
from tilewhisper.engine.routing.modules import apply_policy
from tilewhisper.engine.routing.policy import Policy, load_policy
from tilewhisper.engine.routing.router import Counts, SitePlan, plan_decoder
from tilewhisper.engine.startup import Startup
from tilewhisper.engine.timestamps.alignment import token_probabilities, token_times
from tilewhisper.engine.timestamps.cross_attention import CrossAttention
from tilewhisper.engine.timestamps.punctuation import PUNCTUATION
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Settings
from tilewhisper.models.audio.log_mel import log_mel
from tilewhisper.models.checkpoint import cache
from tilewhisper.models.checkpoint.catalog import DEFAULT_MODEL
from tilewhisper.models.constants import FRAMES_PER_POSITION, POSITIONS

if TYPE_CHECKING:
    from tilewhisper.models.audio.vad_options import VadOptions


class WhisperModel:
    """A Whisper model whose encoder runs where a policy says.

    Close it (or use it as a context manager) to release what its backends hold.
    """

    def __init__(
        self,
        model_size_or_path: str | Path = DEFAULT_MODEL,
        device: str = "auto",
        *,
        compute_type: str = "default",
        cpu_threads: int = 0,
        download_root: str | None = None,
        local_files_only: bool = False,
        policy: str | Path | Policy | None = None,
        backends: Sequence[str] = (),
        settings: Settings = registry.DEFAULTS,
        **others: Any,
    ) -> None:
        """Load a model (a name or a path) and route its encoder.

        `policy` is a preset's name, a TOML file or a Policy, None what `device` and `compute_type` say in
        faster-whisper's words; `backends` are `SITES=BACKEND` overrides on top of it. `settings` say which NPU is
        meant, if a policy names it. `cpu_threads` sets torch's number of threads, which is the whole process's; 0
        leaves it. So do `download_root`, the hub's cache, and `local_files_only`. `others`, more of faster-whisper's,
        are refused where they ask for anything. Raises ModelsError, KernelError and EngineError.
        """
        interpreter, imports = startup.imported()
        refuse(others)
        named, on_top = policy_of(device, compute_type)
        if cpu_threads < 0:
            raise OptionError(f"the number of threads must not be negative, not {cpu_threads}")
        if cpu_threads:
            torch.set_num_threads(cpu_threads)
        if download_root or local_files_only:
            from tilewhisper.models.checkpoint import hub

            hub.configure(download_root, offline=local_files_only)
        clock = Clock()
        with clock("load"):
            wanted = policy or named
            base = wanted if isinstance(wanted, Policy) else load_policy(wanted)
            self.policy = base.with_overrides([*on_top, *backends])
            with clock("weights"):
                self.checkpoint = cache.load(model_size_or_path)
            modules: Any = self.checkpoint.model.model
            create = partial(registry.create, settings=settings)
            self._routed = apply_policy(self.checkpoint.model, self.policy, create)
            self._encoder = Encoder(modules.encoder, self._routed)
            self.decoder_plan = plan_decoder(self.policy.decoder, create)
            self._decoder = Decoder(modules.decoder, self.decoder_plan.backend)
            heads = self.checkpoint.generation_config.alignment_heads
            self._cross_attention = CrossAttention(modules.decoder, self.decoder_plan.backend, heads)
        self.load_stage = clock.stage("load")
        weights = clock.stage("weights").wall_seconds
        rest = self.load_stage.wall_seconds - weights
        self.startup = Startup(interpreter, imports, weights, self.checkpoint.mapped, rest)
        self.overrides = (*on_top, *backends)

    @property
    def is_multilingual(self) -> bool:
        return self.checkpoint.tokenizer.is_multilingual

    @property
    def site_plans(self) -> Sequence[SitePlan]:
        """Every routable product of the encoder: what was asked for, and where it starts."""
        return tuple(self._routed.router.plans.values())

    @property
    def backend_labels(self) -> tuple[str, ...]:
        """What reports call the backends in use; an emulated one says so."""
        return self._routed.router.labels()

    def transcribe(
        self,
        audio: Any,
        language: str | None = None,
        task: str = "transcribe",
        log_progress: bool = False,
        beam_size: int = 5,
        best_of: int = 5,
        patience: float = 1,
        length_penalty: float = 1,
        repetition_penalty: float = 1,
        no_repeat_ngram_size: int = 0,
        temperature: float | Sequence[float] = TEMPERATURES,
        compression_ratio_threshold: float | None = 2.4,
        log_prob_threshold: float | None = -1.0,
        no_speech_threshold: float | None = 0.6,
        condition_on_previous_text: bool = True,
        prompt_reset_on_temperature: float = 0.5,
        initial_prompt: str | Iterable[int] | None = None,
        prefix: str | None = None,
        suppress_blank: bool = True,
        suppress_tokens: Sequence[int] | None = (-1,),
        without_timestamps: bool = False,
        max_initial_timestamp: float = 1.0,
        word_timestamps: bool = False,
        prepend_punctuations: str = PUNCTUATION.prepended,
        append_punctuations: str = PUNCTUATION.appended,
        multilingual: bool = False,
        vad_filter: bool = False,
        vad_parameters: "Mapping[str, float] | VadOptions | None" = None,
        max_new_tokens: int | None = None,
        chunk_length: int | None = None,
        clip_timestamps: str | Sequence[float] = "0",
        hallucination_silence_threshold: float | None = None,
        hotwords: str | None = None,
        language_detection_threshold: float | None = 0.5,
        language_detection_segments: int = 1,
        *,
        carry_initial_prompt: bool = False,
        batch_size: int | None = None,
        seed: int = 0,
        audio_context: str = "auto",
        progress: Progress | None = None,
    ) -> tuple[Transcription, TranscriptionInfo]:
        """Transcribe a path, a file object, or a float32 array (samples,) at 16 kHz.

        The parameters up to `language_detection_segments` are faster-whisper's; TranscriptionOptions says what each
        does. The segments come as they are decoded; `progress` is called after each window with the seconds done and
        the seconds in all. Raises ModelsError and EngineError.
        """
        given = locals()  # every parameter that is an option has the option's name
        asked = TranscriptionOptions(**{name: given[name] for name in TranscriptionOptions.__dataclass_fields__})
        self.check(asked)
        run = Transcription(self, audio, asked, progress)
        return run, run.info

    def transcribe_many(
        self, files: Iterable[Any], batch_size: int | None = None, **options: Any
    ) -> Iterator[Transcript]:
        """Transcribe files as `transcribe` does, but up to `batch_size` at a time, their windows decoded together.

        `options` are the fields of TranscriptionOptions; None lets cores and memory say how many. What comes of a file
        is what it gives alone. Results come in the files' order; a file that cannot be read has an error for one.
        Raises EngineError, and LanguageError where no file could be done.
        """
        asked = TranscriptionOptions(**options)
        self.check(asked)
        return transcribe_together(self, files, asked, batch_size or default_batch_size(self.window_bytes(asked)))

    def check(self, options: TranscriptionOptions) -> None:
        """Raise LanguageError or OptionError for what this model cannot do, before any work is done on the audio."""
        tokenizer = self.checkpoint.tokenizer
        tokenizer.prompt(options.language or "en", options.task, True)
        options.suppressed(tokenizer, self.checkpoint.generation_config)

    @property
    def n_mels(self) -> int:
        return int(self.checkpoint.model.config.num_mel_bins)

    def log_mel(self, samples: Any) -> Tensor:
        """Samples (n,) at 16 kHz to log-mel frames of 10 ms (n_mels, frames), silence after the end included."""
        return log_mel(samples, self.n_mels)

    def encode(self, mel: Tensor, counts: Counts | None = None) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model). What runs is added to `counts`."""
        if counts is None:
            return self._encoder(mel)
        with self._routed.router.counting(counts):
            return self._encoder(mel)

    def encode_window(self, mel: Tensor, content_frames: int, context: AudioContext, counts: Counts) -> Encoded:
        """One log-mel window (1, n_mels, 3000) of which `content_frames` have audio. What runs is added to `counts`."""
        with self._routed.router.counting(counts):
            return self._encoder.encode(mel, content_frames, context)

    def audio_context(self, options: TranscriptionOptions) -> AudioContext:
        """What the options say, `auto` settled."""
        asked = parse_audio_context(options.audio_context)
        if asked.mode != "auto":
            return asked
        return FULL if self._routed.router.uses_device() else AudioContext("sparse", AUTO_STEP)

    @property
    def text_context(self) -> int:
        """The most tokens a window can hold, prompt included."""
        return self._decoder.text_context

    def window_bytes(self, options: TranscriptionOptions) -> int:
        """What one window takes while it is decoded, at most: keys and values of the audio and of each text that is
        followed, float32."""
        config = self.checkpoint.model.config
        positions = POSITIONS + options.most_hypotheses * self.text_context
        return 2 * 4 * int(config.decoder_layers * config.d_model) * positions

    def project_cross_kv(self, window: Encoded) -> CrossKV:
        """A window as the decoder attends to it: once for all that is decoded of it."""
        return self._decoder.project_cross_kv(window)

    def detect_language(self, window: CrossKV) -> dict[str, float]:
        """Language probabilities by code, likeliest first."""
        tokenizer = self.checkpoint.tokenizer
        return detect_language(self._decoder, [window], tokenizer.sot, tokenizer.languages)[0]

    def batch(self, options: TranscriptionOptions) -> Batch:
        """Windows that are decoded together as the options say; none so far."""
        tokenizer, generation_config = self.checkpoint.tokenizer, self.checkpoint.generation_config
        rules = TokenRules.of(
            tokenizer,
            suppress=options.suppressed(tokenizer, generation_config),
            suppress_first=options.suppressed_first(generation_config),
            timestamps=not options.without_timestamps,
            max_initial_timestamp_index=options.max_initial_timestamp_index,
        )
        return Batch(self._decoder, tokenizer, rules, options)

    def decode(self, windows: Sequence[CrossKV], options: TranscriptionOptions) -> list[DecodedWindow]:
        """The tokens of windows without text before them, together, at the first of the options' temperatures.

        `options.language` must be set if the model is multilingual.
        """
        prompt = self.checkpoint.tokenizer.prompt(options.language, options.task, not options.without_timestamps)
        return decode(self.batch(options), [Attempt(window, prompt, options.temperatures[0]) for window in windows])

    def align(
        self, encoded: Encoded, heard: CrossKV, frames: int, language: str, task: str, text: Sequence[int]
    ) -> tuple[Sequence[float], Sequence[float]]:
        """When a window's text tokens were said: times (n + 1) in seconds from its start, and probabilities (n).

        `frames` of the window hold audio.
        """
        tokenizer = self.checkpoint.tokenizer
        prompt = tokenizer.prompt(language, task, False)
        tokens = (*prompt, *text, tokenizer.eot)
        scores, hidden = self._cross_attention(tokens, encoded, heard, frames // FRAMES_PER_POSITION)
        chosen = slice(len(prompt) - 1, len(prompt) - 1 + len(text))
        probabilities = token_probabilities(self._decoder.logits(hidden[chosen]), list(text), tokenizer.eot)
        return token_times(scores, len(prompt)).tolist(), probabilities

    def close(self) -> None:
        """Release prepared weights and devices; the model cannot be used afterwards."""
        self._routed.router.close()

    def __enter__(self) -> "WhisperModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BatchedInferencePipeline:
    """faster-whisper's batched mode: a file is cut at silences, and its pieces are decoded together."""

    def __init__(self, model: WhisperModel) -> None:
        self.model = model

    def transcribe(self, audio: Any, *, batch_size: int = 8, **options: Any) -> tuple[Transcription, TranscriptionInfo]:
        """`WhisperModel.transcribe` with a batch size. Timestamps are on, other than in faster-whisper: without them
        tiny.en left the second half of a 26 s piece unsaid."""
        return self.model.transcribe(audio, batch_size=batch_size, **options)
