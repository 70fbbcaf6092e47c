"""faster-whisper through whisper-streaming 0.1.0 (PyPI): LocalAgreement over a window that grows by a second.

The package stops when no audio has come for `TIMEOUT` seconds, and only then gives the words that are not agreed on;
that is part of its delay. Its dependencies for microphones and sentences are not needed: they are replaced by empty
modules.
"""

import logging
import sys
import time
from pathlib import Path
from queue import Empty, Queue
from types import ModuleType
from typing import Any

import numpy as np
from live_bench.runs import Outcome, Run, Samples, in_real_time

from tilewhisper.models.constants import SAMPLE_RATE

PIECE_SECONDS = 1.0
"""Audio that is taken together: the default of the method's first implementation (--min-chunk-size)."""
TIMEOUT = 1.5
"""Seconds: longer than a piece takes to arrive."""
WINDOW_SECONDS = 15.0


def peer(weights: Path, threads: int, language: str) -> Run:
    """Runs of the package. Raises ImportError where it is not installed."""
    for name, attribute in (("mosestokenizer", "MosesTokenizer"), ("alsaaudio", "PCM")):
        module = ModuleType(name)
        setattr(module, attribute, object)
        sys.modules.setdefault(name, module)
    import whisper_streaming as package

    # It logs an error with its traceback at the end of a stream whose words are all agreed on.
    logging.getLogger("ASRProcessor").setLevel(logging.CRITICAL + 1)
    from whisper_streaming import backend as backends
    from whisper_streaming.processor import ASRProcessor

    class Receiver(package.AudioReceiver):  # type: ignore[misc]
        def __init__(self, samples: Samples, began: float) -> None:
            super().__init__()
            self._arriving = in_real_time(samples, began)

        def _do_receive(self) -> Samples | None:
            pieces: list[Samples] = []
            for arrived in self._arriving:
                if arrived is None:
                    break
                pieces.append(arrived)
                # When the package is behind, it gets all that has arrived at once, as a reader of a socket would.
                if sum(map(len, pieces)) >= PIECE_SECONDS * SAMPLE_RATE and self.queue.empty():
                    break
            return np.concatenate(pieces) if pieces else None

        def _do_close(self) -> None:
            pass

    class Sender(package.OutputSender):  # type: ignore[misc]
        """Its queue alone is used: the thread of the base class looks into it ten times a second."""

        def __init__(self) -> None:
            super().__init__()
            self.queue: Queue[Any] = _Stamped()

        def _run(self) -> None:
            pass

        def start(self) -> None:
            pass

        def _do_output(self, data: Any) -> None:
            pass

        def _do_close(self) -> None:
            pass

    model = backends.FasterWhisperModelConfig(str(weights), device="cpu", compute_type="int8", cpu_threads=threads)
    decoding = backends.FasterWhisperTranscribeConfig(beam_size=1, temperature=[0.0])
    features = backends.FasterWhisperFeatureExtractorConfig()
    loaded: list[Any] = []

    def run(samples: Samples) -> Outcome:
        sender, began = Sender(), time.monotonic()
        config = ASRProcessor.ProcessorConfig(
            sampling_rate=SAMPLE_RATE,
            prompt_size=200,
            audio_receiver_timeout=TIMEOUT,
            audio_trimming=package.TimeTrimming(WINDOW_SECONDS),
            language=language,
        )
        receiver = Receiver(samples, began)
        if loaded:  # the package loads the model for every stream
            original, backends.FasterWhisperASR._load_model = (
                backends.FasterWhisperASR._load_model,
                lambda self, config: loaded[0],
            )
        processor = ASRProcessor(config, receiver, sender, package.Backend.FASTER_WHISPER, model, decoding, features)
        if loaded:
            backends.FasterWhisperASR._load_model = original
        loaded[:] = [processor.backend.model]
        outcome, cpu = Outcome(), time.process_time()
        receiver._arriving = in_real_time(samples, began := time.monotonic())
        processor.run()
        outcome.cpu_seconds = time.process_time() - cpu
        while True:
            try:
                now, word = sender.queue.get_nowait()
            except Empty:
                return outcome
            outcome.saw_text(now - began)
            outcome.text += word.word
            outcome.final.append((word.end, now - began))

    return run


class _Stamped(Queue):  # type: ignore[type-arg]
    """Notes when each output came."""

    def put_nowait(self, item: Any) -> None:
        super().put_nowait((time.monotonic(), item))
