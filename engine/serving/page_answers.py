"""A model and a run as the page gets them: plain lists, dicts and numbers.

Nothing here holds a path of the server.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tilewhisper.engine.output.writers import WRITERS
from tilewhisper.engine.report import RunReport, Stage
from tilewhisper.engine.results import Segment, TranscriptionInfo
from tilewhisper.engine.routing.router import DecoderPlan, SitePlan, shape_of
from tilewhisper.engine.whisper_model import WhisperModel
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Backend, Settings
from tilewhisper.kernels.decoder import DecoderBackend
from tilewhisper.models.tokenizer.languages import LANGUAGES

DOWNLOADS = ("srt", "vtt", "txt", "json")
"""The formats that the page offers."""


def encoder(model: WhisperModel, settings: Settings) -> dict[str, Any]:
    """A model's languages, its encoder's products with their backends, and the backends that can run here."""
    return {
        "languages": {code: LANGUAGES[code].title() for code in model.supported_languages},
        "sites": [_site(plan) for plan in model.site_plans],
        "decoder": _decoder(model.runtime.decoder_plan),
        "backends": [_backend(backend, settings) for backend in registry.all_classes()],
    }


def start(info: TranscriptionInfo) -> dict[str, Any]:
    """What is known before the first segment."""
    return {
        "duration": info.duration,
        "language": LANGUAGES[info.language].title(),
        "language_probability": info.language_probability if info.all_language_probs else None,
    }


def segment(one: Segment) -> dict[str, Any]:
    return {"start": one.start, "end": one.end, "text": one.text}


def downloads(segments: Sequence[Segment], info: TranscriptionInfo) -> dict[str, str]:
    """The content of the transcript's files, by format."""
    return {name: WRITERS[name].render(segments, info) for name in DOWNLOADS}


def report(of: RunReport) -> dict[str, Any]:
    """The figures of a run, without the names of files."""
    return {
        "audio_seconds": of.audio_seconds,
        "rtf": of.rtf,
        "speed": of.speed,
        "tokens_per_second": of.tokens_per_second,
        "cpu_seconds_per_audio_second": of.cpu_seconds_per_audio_second,
        "energy": asdict(of.energy),
        "total": _stage(of.total),
        "stages": [_stage(stage) for stage in of.stages],
        "sites": [
            {
                "site": site.site,
                "requested": site.requested,
                "used": site.used,
                "seconds": site.seconds,
                "fallbacks": site.fallback_reasons,
            }
            for site in of.sites
        ],
        "decoder": {
            "requested": of.decoder.requested,
            "used": {of.decoder.used: 1},
            "seconds": of.decoder_seconds,
            "fallbacks": [of.decoder.fallback_reason] if of.decoder.fallback_reason else [],
        },
        "machine": {"cpu": of.machine.cpu, "threads": of.machine.threads},
    }


def _site(plan: SitePlan) -> dict[str, Any]:
    site = plan.route.site
    return {
        "site": site.name,
        "shape": str(shape_of(site)),
        "requested": plan.route.backend,
        "backend": plan.backend,
        "fallback": plan.fallback_reason,
    }


def _decoder(plan: DecoderPlan) -> dict[str, Any]:
    return {"requested": plan.route.backend, "backend": plan.backend.label, "fallback": plan.fallback_reason}


def _backend(backend: type[Backend], settings: Settings) -> dict[str, Any]:
    return {
        "name": backend.name,
        "summary": backend.summary,
        "reason": backend.why_unavailable(settings),
        "decodes": issubclass(backend, DecoderBackend),
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {"name": stage.name, "wall_seconds": stage.wall_seconds, "cpu_seconds": stage.cpu_seconds}
