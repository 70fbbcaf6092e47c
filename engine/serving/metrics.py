"""The figures of `/metrics`, in Prometheus' format. Each server has a registry of its own."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tilewhisper.engine.energy import Energy, EnergyMeter
from tilewhisper.engine.serving.admission import Admission
from tilewhisper.engine.serving.errors import CLIENT_GONE
from tilewhisper.engine.serving.figures import Figures
from tilewhisper.engine.serving.model_pool import ModelPool

_RTF_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_SECONDS_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_OTHER = "other"
"""The route of a request that fits none, so that nobody can make up new labels."""


class Metrics:
    """What a server counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)  # resident memory, CPU seconds, open files
        self.requests = Counter(
            "tilewhisper_requests", "Requests by route and status", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "tilewhisper_request_seconds", "Time of a request", ["route"], buckets=_SECONDS_BUCKETS, registry=registry
        )
        self.audio_seconds = Counter("tilewhisper_audio_seconds", "Audio transcribed", registry=registry)
        self.processing_seconds = Counter(
            "tilewhisper_processing_seconds", "Time of transcriptions, shared steps by parts", registry=registry
        )
        self.fallbacks = Counter(
            "tilewhisper_fallbacks", "Products that another backend had to run, by requested backend", ["backend"],
            registry=registry,
        )  # fmt: skip
        self.rtf = Histogram(
            "tilewhisper_rtf", "Seconds of work per second of audio", buckets=_RTF_BUCKETS, registry=registry
        )
        self.first_segment = Histogram(
            "tilewhisper_first_segment_seconds", "Time from the start of decoding to the first segment",
            buckets=_SECONDS_BUCKETS, registry=registry,
        )  # fmt: skip

        registry.register(_Cost(self.audio_seconds, EnergyMeter()))

    def watch(self, admission: Admission, pool: ModelPool) -> None:
        """Also report the queue and the models of a server."""
        self.registry.register(_State(admission, pool))

    def add_run(self, run: Figures) -> None:
        """Count a finished transcription."""
        self.audio_seconds.inc(run.audio_seconds)
        self.processing_seconds.inc(run.processing_seconds)
        if run.rtf is not None:
            self.rtf.observe(run.rtf)
        for backend, count in run.fallbacks.items():
            self.fallbacks.labels(backend).inc(count)


class _Cost(Collector):
    """What the process and the processor packages spent since the start.

    Not the sum of the runs': runs at the same time share their CPU time and energy.
    """

    def __init__(self, audio_seconds: Counter, meter: EnergyMeter) -> None:
        self._audio_seconds, self._meter = audio_seconds, meter
        self._cpu_at_start = time.process_time()

    def collect(self) -> Iterator[Metric]:
        audio = next(iter(self._audio_seconds.collect())).samples[0].value
        if audio:
            cpu = time.process_time() - self._cpu_at_start
            help = "CPU seconds of the process per second of audio, since its start"
            yield GaugeMetricFamily("tilewhisper_cpu_seconds_per_audio_second", help, cpu / audio)
        energy = Energy.of(self._meter, audio)
        if energy.joules is not None:
            help = "Energy of the processor packages since the start, of other programs too"
            yield CounterMetricFamily("tilewhisper_package_joules", help, energy.joules)
        if energy.joules_per_audio_minute is not None:
            help = "Energy of the processor packages per minute of audio"
            yield GaugeMetricFamily("tilewhisper_package_joules_per_audio_minute", help, energy.joules_per_audio_minute)
        if energy.reason is not None:
            help = "Why the energy of the processor packages is not known"
            yield InfoMetricFamily("tilewhisper_package_energy_unknown", help, {"reason": energy.reason})


class _State(Collector):
    """What a server does at the moment."""

    def __init__(self, admission: Admission, pool: ModelPool) -> None:
        self._admission, self._pool = admission, pool

    def collect(self) -> Iterator[Metric]:
        admission, pool = self._admission, self._pool
        for name, help, value in (
            ("active_requests", "Requests that are transcribed", admission.active),
            ("waiting_requests", "Requests that upload or wait for a place", admission.waiting),
            ("live_sessions", "Live sessions", admission.live),
            ("loaded_models", "Models that are loaded or being loaded", pool.count),
        ):
            yield GaugeMetricFamily(f"tilewhisper_{name}", help, value)


class CountRequests:
    """Middleware that counts requests and measures their time."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = CLIENT_GONE, time.monotonic()

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", _OTHER)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(time.monotonic() - began)
