"""Identify the machine that a tuned policy was measured on, in one line of text.

Torch's version and the number of threads are not part of it: they change times, but seldom which backend is fastest.
"""

from tilewhisper.engine.report import machine
from tilewhisper.engine.routing.policy import Policy


def fingerprint() -> str:
    """This machine's processor, the vector extensions that torch uses, and the number of logical CPUs."""
    here = machine()
    return f"{here.cpu}, {here.cpu_capability}, {here.logical_cpus} logical CPUs"


def machine_warning(policy: Policy) -> str | None:
    """A warning if the policy was measured on another machine, else None."""
    if not policy.machine or policy.machine == fingerprint():
        return None
    return f"policy {policy.name} was measured on another machine ({policy.machine}); run `tilewhisper tune` here"
