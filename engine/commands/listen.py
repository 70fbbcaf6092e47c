"""`tilewhisper listen`: transcribe the microphone, or PCM on standard input, while it is spoken."""

import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from statistics import median

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

from tilewhisper.engine.commands import listen_files, listen_sources, loading, npu
from tilewhisper.engine.commands.inputs import STDIN
from tilewhisper.engine.commands.listen_cues import Cues
from tilewhisper.engine.commands.listen_sources import Arrival, Arrivals
from tilewhisper.engine.commands.screen import console, plain, say, showing_warnings
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.live import LiveTranscriber
from tilewhisper.engine.pipeline.live_events import Event, Final, Partial, SpeechStopped
from tilewhisper.engine.pipeline.live_options import LiveOptions
from tilewhisper.engine.routing.policy import load_policy
from tilewhisper.models.checkpoint.locate import Source
from tilewhisper.models.constants import SAMPLE_RATE

_REMEMBERED = 600
"""Arrivals whose time is remembered, for the delay of the text."""
_PARTIAL_STYLE = "bright_black"


def run(args: Namespace) -> int:
    """Listen until the input ends or Ctrl-C. Raises USER_ERRORS."""
    out, err = console(), console(stderr=True)
    if args.list_devices:
        for line in listen_sources.devices():
            say(out, line)
        return 0
    if args.input not in (None, STDIN):
        raise OptionError(f"listen takes {STDIN} for standard input, or nothing for the microphone, got {args.input}")
    paths = listen_files.plan(args.output_format or [], args.output_dir)
    load_policy(args.policy).with_overrides(args.backend)
    source = loading.model(args)
    if note := loading.english_only_note(args, source):
        say(err, note)
    with ExitStack() as stack:
        stack.enter_context(showing_warnings(err))
        arrivals = stack.enter_context(
            listen_sources.standard_input(args.rate, args.channels)
            if args.input == STDIN
            else listen_sources.microphone(args.input_device)
        )
        transcriber = _transcriber(args, source, stack)
        files = listen_files.LiveFiles(paths, stack)
        shown = stack.enter_context(_screen(out))
        if args.input is None:
            say(err, "listening; Ctrl-C ends")
        session = Listening(transcriber, files, shown)
        session.listen(arrivals)
    say(err, session.figures())
    if files.failures:
        raise OptionError("; ".join(files.failures))
    return 0


def _transcriber(args: Namespace, source: Source, stack: ExitStack) -> LiveTranscriber:
    from tilewhisper.engine.whisper_model import WhisperModel

    options = LiveOptions(language=args.language, task=args.task, prompt=args.initial_prompt)
    model = stack.enter_context(
        WhisperModel(
            source, cpu_threads=args.threads, policy=args.policy, backends=args.backend, settings=npu.settings(args)
        )
    )
    model.check(TranscriptionOptions(language=options.language, task=options.task))
    return LiveTranscriber(model, options=options)


class Listening:
    """One run: its text on the screen and in files, and its figures."""

    def __init__(self, transcriber: LiveTranscriber, files: listen_files.LiveFiles, shown: "_Shown") -> None:
        self._transcriber, self._files, self._shown, self._cues = transcriber, files, shown, Cues()
        self._seconds = 0.0
        self._arrived: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._delays: list[float] = []
        self._final_at: float | None = None
        self._cpu = time.process_time()

    def listen(self, arrivals: Arrivals) -> None:
        """Until the input ends or Ctrl-C; what was said until then is final."""
        try:
            while taken := arrivals.take():
                self._feed(taken)
        except KeyboardInterrupt:
            pass
        finally:
            self._report(self._transcriber.finish())

    def figures(self) -> str:
        """A line for the user."""
        if not self._seconds:
            return "no audio arrived"
        cpu = (time.process_time() - self._cpu) / self._seconds
        delay = f", text final {1000 * median(self._delays):.0f} ms after a phrase (median)" if self._delays else ""
        return f"{self._seconds:.1f} s of audio, {cpu:.2f} CPU seconds per second{delay}"

    def _feed(self, taken: list[Arrival]) -> None:
        """Feed what has arrived, joined where no time is stated between."""
        for _, group in groupby(enumerate(taken), key=lambda item: item[0] if item[1].at is not None else -1):
            together = [arrival for _, arrival in group]
            samples = np.concatenate([arrival.samples for arrival in together])
            self._seconds += len(samples) / SAMPLE_RATE
            self._arrived.append((self._seconds, time.monotonic()))
            self._report(self._transcriber.feed(samples, at=together[0].at))

    def _report(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Final):
                self._final_at = time.monotonic()
            if isinstance(event, SpeechStopped) and self._final_at is not None:
                if (arrived := self._arrival(event.time)) is not None:
                    self._delays.append(max(0.0, self._final_at - arrived))
                self._final_at = None
            for cue in self._cues.take(event):
                self._files.write(cue)
            self._shown.show(event)

    def _arrival(self, position: float) -> float | None:
        """When the audio at this time of the stream arrived."""
        return next((arrived for end, arrived in self._arrived if end >= position), None)


class _Shown:
    """The text on standard output: a line for each phrase; on a terminal the words appear as they are spoken."""

    def __init__(self, out: Console, live: Live | None) -> None:
        self._out, self._live = out, live
        self._final, self._partial = "", ""

    def show(self, event: Event) -> None:
        if isinstance(event, Final):
            self._final += event.text
        elif isinstance(event, Partial):
            self._partial = event.text
        elif isinstance(event, SpeechStopped):
            if self._final.strip():
                say(self._out, self._final.strip())
            self._final = self._partial = ""
        if self._live is not None:
            self._live.update(
                Text.assemble(plain(self._final.lstrip()), plain(self._partial, _PARTIAL_STYLE)), refresh=True
            )


@contextmanager
def _screen(out: Console) -> Iterator[_Shown]:
    if not out.is_terminal:
        yield _Shown(out, None)
        return
    with Live(Text(), console=out, auto_refresh=False, transient=True) as live:
        yield _Shown(out, live)
