"""`WhisperModel`, the public entrance: load a model, transcribe files. Its shape is faster-whisper's.

`transcribe` returns (segments, info), the segments lazy; the segments object also has `report()` and `cancel()`.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from tilewhisper.engine import startup
from tilewhisper.engine.compat import policy_of, refuse
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions, check_batch_size
from tilewhisper.engine.pipeline.scheduler import Scheduler, default_batch_size
from tilewhisper.engine.pipeline.transcription import Transcriber, Transcript, Transcription
from tilewhisper.engine.progress import Progress
from tilewhisper.engine.report import Clock
from tilewhisper.engine.results import TranscriptionInfo
from tilewhisper.engine.routing.policy import Policy, load_policy
from tilewhisper.engine.routing.router import Counts, SitePlan
from tilewhisper.engine.runtime import ModelDescription, Runtime
from tilewhisper.engine.startup import Startup
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Settings
from tilewhisper.models.audio.log_mel import log_mel
from tilewhisper.models.checkpoint import cache
from tilewhisper.models.checkpoint.catalog import DEFAULT_MODEL
from tilewhisper.models.option_signature import takes_options


class WhisperModel:
    """A Whisper model whose encoder runs where a policy says.

    Any number of threads may use one model: their windows are decoded together, each with its own options. Close it
    (or use it as a context manager) to release weights and devices; every later use raises ModelClosed.
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
        """Load a model by name or path and route its encoder.

        `policy` is a preset's name, a TOML file or a Policy; None takes the one that `device` and `compute_type`
        (faster-whisper's terms) stand for. `backends` are `SITES=BACKEND` overrides on top of it. `settings` choose the
        NPU, for policies that use it. `cpu_threads` sets torch's number of threads, `download_root` the hub's cache and
        `local_files_only` whether the hub is asked, all three for the whole process. `others` are faster-whisper's
        remaining parameters, refused unless they have their defaults. Raises ModelsError, KernelError and EngineError.
        """
        imports = startup.import_seconds()
        refuse(others)
        named, overrides = policy_of(device, compute_type)
        if cpu_threads < 0:
            raise OptionError(f"cpu_threads must be >= 0, got {cpu_threads}; 0 leaves the number to torch")
        if cpu_threads:
            torch.set_num_threads(cpu_threads)
        if download_root or local_files_only:
            from tilewhisper.models.checkpoint import hub

            hub.configure(download_root, offline=local_files_only)
        clock = Clock()
        with clock("load"):
            requested = policy or named
            base = requested if isinstance(requested, Policy) else load_policy(requested)
            self.policy = base.with_overrides([*overrides, *backends])
            with clock("weights"):
                self.checkpoint = cache.load(model_size_or_path)
            self.runtime = Runtime(self.checkpoint, self.policy, partial(registry.create, settings=settings))
        load, weights = clock.stage("load"), clock.stage("weights").wall_seconds
        self.description = ModelDescription(
            name=self.checkpoint.name,
            weights=self.checkpoint.source.origin,
            policy=self.policy.name,
            backend_overrides=(*overrides, *backends),
            startup=Startup(imports, weights, self.checkpoint.mapped, load.wall_seconds - weights),
            load=load,
        )
        self._scheduler = Scheduler(self.runtime.batch())
        self._transcriber = Transcriber(self.runtime, self.description, self._scheduler)

    @property
    def is_multilingual(self) -> bool:
        return self.checkpoint.tokenizer.is_multilingual

    @property
    def n_mels(self) -> int:
        return self.runtime.n_mels

    @property
    def site_plans(self) -> Sequence[SitePlan]:
        """Every routable product of the encoder, with its requested and used backend."""
        return self.runtime.site_plans

    @property
    def backend_labels(self) -> tuple[str, ...]:
        """The names of the backends in use, as reports show them; an emulated one says so."""
        return self.runtime.backend_labels

    @takes_options(TranscriptionOptions)
    def transcribe(
        self, audio: Any, *args: Any, progress: Progress | None = None, **options: Any
    ) -> tuple[Transcription, TranscriptionInfo]:
        """Transcribe a path, a file object, or a float32 array (samples,) at 16 kHz.

        The options up to `language_detection_segments` are faster-whisper's, in its order. Segments are yielded as they
        are decoded; `progress` is called after each window with the seconds done and the seconds in total.
        Raises ModelsError and EngineError.
        """
        self._scheduler.check_open()
        checked = TranscriptionOptions.of(*args, **options)
        self.check(checked)
        transcription = self._transcriber.transcribe(audio, checked, progress)
        return transcription, transcription.info

    @takes_options(TranscriptionOptions)
    def transcribe_many(
        self, files: Iterable[Any], batch_size: int | None = None, **options: Any
    ) -> Iterator[Transcript]:
        """Transcribe files as `transcribe` does, but decode the windows of up to `batch_size` files together.

        `options` are the fields of TranscriptionOptions; `batch_size` None is chosen by cores and memory. A file's text
        is the text it gives alone. Transcripts come in the files' order; a file that fails has its error in its
        transcript. Raises EngineError, and LanguageError where no file could be transcribed.
        """
        self._scheduler.check_open()
        check_batch_size(batch_size)
        checked = TranscriptionOptions.of(**options)
        self.check(checked)
        size = batch_size or default_batch_size(self.runtime.window_bytes(checked))
        return self._transcriber.transcribe_many(files, checked, size)

    def check(self, options: TranscriptionOptions) -> None:
        """Raise LanguageError or OptionError for options this model cannot honour, before the audio is read."""
        options.check(self.checkpoint.tokenizer, self.checkpoint.generation_config)

    def log_mel(self, samples: Any) -> Tensor:
        """Samples (n,) at 16 kHz to log-mel frames of 10 ms (n_mels, frames), padded with silence."""
        return log_mel(samples, self.n_mels)

    def encode(self, mel: Tensor, counts: Counts | None = None) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model); calls are added to `counts`."""
        return self._scheduler.call(lambda: self.runtime.encode(mel, counts))

    def close(self) -> None:
        """End all transcriptions and release weights and devices; every later use raises ModelClosed."""
        self._scheduler.close()
        self.runtime.close()

    def __enter__(self) -> "WhisperModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BatchedInferencePipeline:
    """faster-whisper's batched mode: a file is cut at silences, and its chunks are decoded together."""

    def __init__(self, model: WhisperModel) -> None:
        self.model = model

    @takes_options(TranscriptionOptions)
    def transcribe(
        self, audio: Any, *args: Any, batch_size: int = 8, progress: Progress | None = None, **options: Any
    ) -> tuple[Transcription, TranscriptionInfo]:
        """`WhisperModel.transcribe` with a batch size.

        Unlike in faster-whisper, timestamps are on: without them tiny.en skipped the second half of a 26 s chunk.
        """
        return self.model.transcribe(audio, *args, batch_size=batch_size, progress=progress, **options)
