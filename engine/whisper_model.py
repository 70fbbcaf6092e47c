"""`WhisperModel`, the public entrance: load a model, transcribe files. Its shape is faster-whisper's.

`transcribe` returns (segments, info), the segments lazy; the segments object also has `report()` and `cancel()`.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from inspect import Parameter
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from tilewhisper.engine import startup
from tilewhisper.engine.compat import LoadOptions, Routing, missing_attribute, policy_of, refuse
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions, check_batch_size
from tilewhisper.engine.pipeline.scheduler import Scheduler, default_batch_size
from tilewhisper.engine.pipeline.transcription import Transcriber, Transcript, Transcription
from tilewhisper.engine.progress import OnRead, Progress
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
from tilewhisper.models.checkpoint.default import default_model, english_only_note
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.memory import release_freed
from tilewhisper.models.option_fields import option_fields, shown
from tilewhisper.models.option_signature import takes_options

_log = logging.getLogger(__name__)


class WhisperModel:
    """A Whisper model whose encoder runs where a policy says.

    Any number of threads may use one model: their windows are decoded together, each with its own options. Close it
    (or use it as a context manager) to release weights and devices; every later use raises ModelClosed.
    """

    def __init__(
        self,
        model_size_or_path: str | Path | Source | None = None,
        device: str = "auto",
        device_index: int = 0,
        compute_type: str = "default",
        cpu_threads: int = 0,
        num_workers: int = 1,
        download_root: str | Path | None = None,
        local_files_only: bool = False,
        files: None = None,
        revision: None = None,
        use_auth_token: None = None,
        *,
        policy: str | Path | Policy | None = None,
        backends: Sequence[str] = (),
        settings: Settings = registry.DEFAULTS,
        **others: Any,
    ) -> None:
        """Load a model by name or path and route its encoder.

        Without a name, it is an installed multilingual model, base before others, else an installed English-only one.
        The positional parameters are faster-whisper's, in its order. `device` and `compute_type` stand for a policy.
        `cpu_threads` sets torch's number of threads, for the whole process. `download_root` is the cache of the hub,
        and `local_files_only` forbids to ask the hub, both for this model alone. The rest has no meaning here and is
        refused unless it has its default, as are `others`.

        `policy` is a preset's name, a TOML file or a Policy; None takes the one of `compute_type`. `backends` are
        `SITES=BACKEND` overrides on top of it. `settings` choose the NPU, for policies that use it.
        Raises ModelsError, KernelError and EngineError.
        """
        imports = startup.import_seconds()
        given = LoadOptions(model_size_or_path, device, compute_type, cpu_threads, download_root, local_files_only)
        unsupported = {"files": files, "revision": revision, "use_auth_token": use_auth_token}
        refuse({"device_index": device_index, "num_workers": num_workers, **unsupported, **others})
        named, overrides = policy_of(given.compute_type)
        routing = Routing(named if policy is None else policy, backends, settings)
        self._loaded_with = {**vars(given), **vars(routing)}
        if given.cpu_threads:
            torch.set_num_threads(given.cpu_threads)
        clock = Clock()
        with clock("load"):
            base = routing.policy if isinstance(routing.policy, Policy) else load_policy(routing.policy)
            self.policy = base.with_overrides([*overrides, *routing.backends])
            with clock("weights"):
                source = given.model_size_or_path or default_model(given.hub_use)
                self.checkpoint = cache.load(source, given.hub_use)
            create = lru_cache(maxsize=None)(partial(registry.create, settings=settings))
            self.runtime = Runtime(self.checkpoint, self.policy, create)
            mapped = self.runtime.mapped
            if self.runtime.stored:  # map them, as a later start does: pages of a file need not stay in memory
                self.runtime.drop_weights()  # not close: the second uses the same backends, which may hold a device
                del self.runtime
                release_freed()
                self.runtime = Runtime(self.checkpoint, self.policy, create)
        if model_size_or_path is None and not self.is_multilingual:
            _log.warning(english_only_note(self.checkpoint.name))
        load, weights = clock.stage("load"), clock.stage("weights").wall_seconds
        self.description = ModelDescription(
            name=self.checkpoint.name,
            reason=self.checkpoint.source.reason,
            weights=self.checkpoint.source.origin,
            policy=self.policy.name,
            backend_overrides=(*overrides, *routing.backends),
            startup=Startup(imports, weights, mapped, load.wall_seconds - weights),
            load=load,
        )
        self._scheduler = Scheduler(self.runtime.batch(), on_device=self.runtime.uses_device)
        self._transcriber = Transcriber(self.runtime, self.description, self._scheduler)

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled or copied model is loaded again, by the same name and options. Raises ModelClosed."""
        self._scheduler.check_open()
        return partial(type(self), **self._loaded_with), ()

    def __getattr__(self, name: str) -> Any:
        raise missing_attribute(self, name)

    @property
    def is_multilingual(self) -> bool:
        return self.checkpoint.tokenizer.is_multilingual

    @property
    def supported_languages(self) -> list[str]:
        """The codes of the model's languages."""
        return list(self.checkpoint.tokenizer.languages) if self.is_multilingual else ["en"]

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
        self,
        audio: Any,
        *args: Any,
        progress: Progress | None = None,
        on_read: OnRead | None = None,
        **options: Any,
    ) -> tuple[Transcription, TranscriptionInfo]:
        """Transcribe a path, a file object, or a float32 array (samples,) at 16 kHz.

        The options up to `language_detection_segments` are faster-whisper's, in its order. Segments are yielded as they
        are decoded; `progress` is called after each window with the seconds done and the seconds in total. `on_read` is
        called with the seconds read so far while the audio is read; what it raises ends the call, for example where
        the audio is longer than a server allows.
        Raises ModelsError and EngineError.
        """
        transcription = self.begin(audio, *args, progress=progress, on_read=on_read, **options)
        return transcription, transcription.info

    @takes_options(TranscriptionOptions)
    def begin(
        self,
        audio: Any,
        *args: Any,
        progress: Progress | None = None,
        on_read: OnRead | None = None,
        **options: Any,
    ) -> Transcription:
        """`transcribe` that returns once the audio is read, without waiting for the model: the first segment or `info`
        waits for it, in whichever thread asks.

        So a program with many files needs few threads that read. Each has an OpenMP pool and malloc's memory of its
        own: with base and 34 of them, 150 MB more than with 2. Raises ModelsError and EngineError.
        """
        self._scheduler.check_open()
        checked = TranscriptionOptions.of(*args, **options)
        self.check(checked)
        return self._transcriber.transcribe(audio, checked, progress, on_read)

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
        if isinstance(files, str | bytes | PathLike | ndarray | Tensor) or not isinstance(files, Iterable):
            raise OptionError(f"files must be several audio inputs, such as ['talk.mp3'], got {shown(files)}")
        check_batch_size(batch_size)
        checked = TranscriptionOptions.of(**options)
        self.check(checked)
        size = batch_size or default_batch_size(self.runtime.window_bytes(checked))
        return self._transcriber.transcribe_many(files, checked, size)

    def detect_language(
        self,
        audio: Any = None,
        features: None = None,
        vad_filter: bool = False,
        vad_parameters: Any = None,
        language_detection_segments: int = 1,
        language_detection_threshold: float | None = 0.5,
    ) -> tuple[str, float, list[tuple[str, float]]]:
        """Detect the language of audio as `transcribe` does.

        Gives the most probable language's code, its probability, and (code, probability) of all languages, most
        probable first. Parameters and results are faster-whisper's, but `features` is refused. An English-only model
        answers "en". Raises ModelsError and EngineError.
        """
        self._scheduler.check_open()
        if features is not None or audio is None:
            raise OptionError("detect_language takes audio: a path, a file object or samples; it takes no features")
        options = TranscriptionOptions(
            vad_filter=vad_filter,
            vad_parameters=vad_parameters,
            language_detection_segments=language_detection_segments,
            language_detection_threshold=language_detection_threshold,
        )
        info = self._transcriber.transcribe(audio, options).info
        return info.language, info.language_probability, info.all_language_probs or [(info.language, 1.0)]

    def check(self, options: TranscriptionOptions) -> None:
        """Raise LanguageError or OptionError for options this model cannot honour, before the audio is read."""
        options.check(self.checkpoint.tokenizer, self.checkpoint.generation_config)

    def log_mel(self, samples: Any) -> Tensor:
        """Samples (n,) at 16 kHz to log-mel frames of 10 ms (n_mels, frames), padded with silence."""
        return log_mel(samples, self.n_mels)

    def encode(self, mel: Tensor, counts: Counts | None = None) -> Tensor:
        """Log-mel windows (batch, n_mels, 3000) to states (batch, 1500, d_model); calls are added to `counts`."""
        return self._scheduler.call(lambda: self.runtime.encode(mel, counts))

    def start_loop(self) -> None:
        """Compute in a thread of the model's own from now on, for programs where many threads transcribe: a server.

        Without it, the threads that wait take turns. Raises ModelClosed.
        """
        self._scheduler.start_loop()

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


_BATCH_SIZE = Parameter("batch_size", Parameter.POSITIONAL_OR_KEYWORD, default=8, annotation=int)
_AFTER_BATCH_SIZE = "hotwords"
"""faster-whisper's order: the option after `batch_size`."""


class BatchedInferencePipeline:
    """faster-whisper's batched mode: a file is cut at silences, and its chunks are decoded together."""

    def __init__(self, model: WhisperModel) -> None:
        """Raises OptionError."""
        if not isinstance(model, WhisperModel):
            raise OptionError(f"model must be a loaded WhisperModel, got {shown(model)}")
        self.model = model

    def __getattr__(self, name: str) -> Any:
        raise missing_attribute(self, name)

    @takes_options(TranscriptionOptions, _BATCH_SIZE, before=_AFTER_BATCH_SIZE)
    def transcribe(
        self, audio: Any, *args: Any, progress: Progress | None = None, **options: Any
    ) -> tuple[Transcription, TranscriptionInfo]:
        """`WhisperModel.transcribe` with a batch size.

        Unlike in faster-whisper, timestamps are on: without them tiny.en skipped the second half of a 26 s chunk.
        """
        place = [*option_fields(TranscriptionOptions)].index(_AFTER_BATCH_SIZE)
        if len(args) > place:
            if "batch_size" in options:
                raise TypeError("batch_size is given twice, by position and by name")
            options["batch_size"], args = args[place], (*args[:place], *args[place + 1 :])
        return self.model.transcribe(audio, *args, progress=progress, **{"batch_size": _BATCH_SIZE.default, **options})
