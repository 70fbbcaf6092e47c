"""The task that the flags of `transcribe` describe. Imports nothing heavy, so that bad flags fail without torch."""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tilewhisper.engine.commands import flags, loading
from tilewhisper.engine.commands.arguments.transcribe import DEFAULT_BATCH_SIZE
from tilewhisper.engine.options import check_batch_size
from tilewhisper.engine.output.subtitles import SubtitleOptions
from tilewhisper.models.checkpoint.locate import Source


@dataclass(frozen=True)
class TranscribeTask:
    """The settings that all files share."""

    model: Source
    policy: str
    backends: Sequence[str]
    options: dict[str, Any]
    """The fields of TranscriptionOptions that were given."""
    batched: bool | None
    batch_size: int | None
    layout: SubtitleOptions
    verbose: bool | None

    @property
    def quiet(self) -> bool:
        return self.verbose is False

    def decodes_files_together(self, files: Sequence[str]) -> bool:
        """Whether the windows of several files share a batch. Each file's text is the same as alone."""
        return len(files) > 1 and not self.batched and self.batch_size != 1

    def chunks_per_batch(self, files: Sequence[str]) -> int | None:
        """How many chunks of one file share a batch; None if files are not cut into chunks."""
        single = len(files) == 1 and self.batch_size is not None
        cut = single if self.batched is None else self.batched
        return (self.batch_size or DEFAULT_BATCH_SIZE) if cut else None

    def ignored_flags(self, files: Sequence[str]) -> Iterator[str]:
        """A warning for each flag that was given and has no effect."""
        yield from self.layout.notes()
        if self.batch_size is not None and self.batched is False and len(files) == 1:
            yield "batch_size has no effect with --batched False"
        if "vad_parameters" in self.options and not self.options.get("vad_filter"):
            yield "the vad_ flags have no effect without --vad_filter True"


def task_from(args: Namespace) -> TranscribeTask:
    """Raises OptionError and ModelsError."""
    loading.check_device(args.device)
    check_batch_size(args.batch_size)
    policy, backends = loading.policy(args)
    options, layout = flags.options(args), flags.subtitle_options(args)
    return TranscribeTask(
        model=loading.model(args),  # last, as it may download
        policy=policy,
        backends=backends,
        options=options,
        batched=args.batched,
        batch_size=args.batch_size,
        layout=layout,
        verbose=args.verbose,
    )
