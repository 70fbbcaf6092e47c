"""The figures of a transcription that every answer has: as response headers, and as an object of a JSON answer."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tilewhisper.engine.report import RunReport

NAME = "tilewhisper"
"""Key of the object in JSON answers, and middle part of the headers' names."""
EMULATED = "(emulated)"
"""In the label of a backend that is emulated."""


@dataclass(frozen=True)
class Figures:
    """Which model ran where, and at what cost."""

    model: str
    policy: str
    backends: tuple[str, ...]
    """Labels of the backends that ran a product."""
    emulated: bool
    """Whether one of them is an emulated device."""
    fallbacks: Mapping[str, int]
    """Requested backend -> number of products, or the decoder, that another backend had to run."""
    fallback_reasons: tuple[str, ...]
    audio_seconds: float
    processing_seconds: float
    rtf: float | None
    """Seconds of work per second of audio; None where there is no audio."""
    cpu_seconds_per_audio_second: float | None
    """Cores used; None where there is no audio."""
    joules_per_audio_minute: float | None
    """Package energy; None where it is not known."""
    energy_unknown: str | None
    """Why the energy is not known."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def headers(self) -> dict[str, str]:
        return {
            **start_headers(self.model, self.policy, self.backends),
            f"x-{NAME}-fallbacks": str(sum(self.fallbacks.values())),
            f"x-{NAME}-rtf": "" if self.rtf is None else f"{self.rtf:.4f}",
        }


def start_headers(model: str, policy: str, backends: tuple[str, ...]) -> dict[str, str]:
    """The headers that are known before the first segment; all values are ASCII."""
    values = {
        "model": model,
        "policy": policy,
        "backends": ", ".join(backends),
        "emulated": str(any(EMULATED in label for label in backends)).lower(),
    }
    return {f"x-{NAME}-{name}": value.encode("ascii", "replace").decode() for name, value in values.items()}


def figures(model: str, policy: str, report: RunReport) -> Figures:
    """The figures of a finished run, under the names by which the model and the policy are served."""
    used = dict.fromkeys(label for site in report.sites for label in site.used)
    backends = tuple(dict.fromkeys([*used, report.decoder.used]))
    failed = [(site.requested, site.fallback_reasons) for site in report.sites if site.fallback_reasons]
    if report.decoder.fallback_reason is not None:
        failed.append((report.decoder.requested, [report.decoder.fallback_reason]))
    return Figures(
        model=model,
        policy=policy,
        backends=backends,
        emulated=any(EMULATED in label for label in backends),
        fallbacks=dict(Counter(requested for requested, _ in failed)),
        fallback_reasons=tuple(dict.fromkeys(reason for _, reasons in failed for reason in reasons)),
        audio_seconds=round(report.audio_seconds, 3),
        processing_seconds=round(report.total.wall_seconds, 3),
        rtf=report.rtf,
        cpu_seconds_per_audio_second=report.cpu_seconds_per_audio_second,
        joules_per_audio_minute=report.energy.joules_per_audio_minute,
        energy_unknown=None if report.energy.joules_per_audio_minute is not None else report.energy.reason,
    )
