"""The energy that the processor packages of this machine take, by Linux's powercap interface.

A package meter counts all work of its package: that of other programs and other runs too.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

POWERCAP = Path("/sys/class/powercap")
MICROJOULES = 1e-6


@dataclass(frozen=True)
class Energy:
    """The packages' energy over some time."""

    joules: float | None
    """None where it cannot be measured."""
    joules_per_audio_minute: float | None
    """None where it cannot be measured, and without audio."""
    reason: str | None = None
    """Why it cannot be measured."""

    @classmethod
    def of(cls, meter: "EnergyMeter", audio_seconds: float) -> Self:
        """The energy since the meter was made, for so much audio."""
        joules = meter.joules()
        rate = joules * 60 / audio_seconds if joules is not None and audio_seconds else None
        return cls(joules, rate, meter.reason)


class EnergyMeter:
    """Adds up the packages' energy from now on.

    The counters start again from 0 at their limit, at the soonest after some minutes: read the meter more often.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._packages, self.reason = _packages(folder)
        """Why nothing can be measured; None if it can."""
        self._joules = 0.0
        self._last = self._read()

    def joules(self) -> float | None:
        """The energy since the meter was made; None where it cannot be measured."""
        now = self._read()
        if self.reason is not None:
            return None
        for (_, limit), before, after in zip(self._packages, self._last, now, strict=True):
            self._joules += (after - before if after >= before else after - before + limit) * MICROJOULES
        self._last = now
        return self._joules

    def _read(self) -> list[int]:
        try:
            return [_number(package / "energy_uj") for package, _ in self._packages]
        except (OSError, ValueError) as error:  # readable a moment ago
            self.reason = self.reason or f"the power meter cannot be read: {error}"
            return []


@cache
def _packages(folder: Path) -> tuple[tuple[tuple[Path, int], ...], str | None]:
    """The folders of the package meters, each with the count at which it starts again; else why there is none."""
    try:
        meters = sorted(zone.parent for zone in folder.glob("*/name") if zone.read_text("utf-8").startswith("package"))
    except OSError:
        meters = []
    if not meters:
        return (), f"{folder} has no meter of a processor package; virtual machines seldom have one"
    try:
        packages = tuple((meter, _number(meter / "max_energy_range_uj")) for meter in meters)
        for meter in meters:
            _number(meter / "energy_uj")
    except PermissionError:
        return (), f"only root may read {meters[0]}/energy_uj; to allow it to all: sudo chmod a+r {folder}/*/energy_uj"
    except (OSError, ValueError) as error:
        return (), f"the power meter {meters[0]} cannot be read: {error}"
    return packages, None


def _number(file: Path) -> int:
    return int(file.read_text("utf-8"))
