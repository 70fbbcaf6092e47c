"""A fake model that records its calls and returns a given transcript, so that a command's test takes milliseconds."""

from types import SimpleNamespace

from tilewhisper.engine.energy import Energy
from tilewhisper.engine.options import TranscriptionOptions
from tilewhisper.engine.pipeline.transcription import Transcript
from tilewhisper.engine.report import DecoderReport, RunReport, Stage, machine
from tilewhisper.engine.results import Segment
from tilewhisper.engine.startup import Startup
from tilewhisper.models.audio.facts import AudioLog
from tilewhisper.models.errors import AudioError


def segment(**values) -> Segment:
    plain = {
        "id": 0, "seek": 0, "start": 0.0, "end": 5.0, "text": " Hello there.", "tokens": [1, 2], "avg_logprob": -0.2,
        "compression_ratio": 0.6, "no_speech_prob": 0.01, "words": None, "temperature": 0.0,
    }  # fmt: skip
    return Segment(**(plain | values))


class StandIn:
    """Replaces `WhisperModel`; its calls are recorded for the test."""

    requests: list[SimpleNamespace]
    together: list[SimpleNamespace]
    transcript: list[Segment]
    language: str
    stop: BaseException | None
    """Raised in the middle of the second file."""

    def __init__(self, model, *, policy, backends, cpu_threads, settings):
        self.setup = {"model": model, "policy": policy, "backends": tuple(backends), "threads": cpu_threads}
        self.policy = SimpleNamespace(machine=None)

    def check(self, options):
        pass

    def transcribe(self, file, batch_size=None, progress=None, **options):
        options |= {} if batch_size is None else {"batch_size": batch_size}
        self.requests.append(SimpleNamespace(file=file, options=options, **self.setup))
        fields = TranscriptionOptions.__dataclass_fields__
        TranscriptionOptions(**{name: value for name, value in options.items() if name in fields})
        return Decoded(self, len(self.requests)), SimpleNamespace(language=self.language)

    def transcribe_many(self, files, batch_size=None, **options):
        self.together.append(SimpleNamespace(files=list(files), batch_size=batch_size, options=options))
        for file in files:
            try:
                segments, info = self.transcribe(file)
                yield Transcript(file, list(segments), info, segments.report())
            except AudioError as error:
                yield Transcript(file, [], None, None, error)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


class Decoded:
    def __init__(self, model, number):
        self._model, self._number = model, number
        self._segments = self._decode()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._segments)

    def _decode(self):
        for i, one in enumerate(self._model.transcript):
            if i and self._number == 2 and self._model.stop:
                raise self._model.stop
            yield one

    def report(self):
        stage = Stage("decode", 1, 0.1, 0.1, 0.1)
        return RunReport(
            file="f", model="m", model_reason="requested", weights="w", policy="p", backends=["b"],
            backend_overrides=[], language="en", language_probability=None, language_no_speech_prob=None,
            options=TranscriptionOptions(), audio=AudioLog(seconds=1.0).facts(),
            audio_seconds=1.0, rtf=0.1, speed=10.0, load=stage, stages=[stage],
            startup=Startup(1.0, 0.1, True, 0.1),
            total=stage, audio_context="full", batch_size=1, windows=1, windows_reencoded=0, tokens=1,
            device_read_backs=0, cpu_seconds_per_audio_second=0.1, energy=Energy(None, None, "no meter"),
            tokens_per_second=1.0,
            peak_memory_bytes=None, sites=[], decoder=DecoderReport("torch", "torch", None), machine=machine(),
        )  # fmt: skip
