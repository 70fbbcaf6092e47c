"""Which machine a measured policy belongs to, in one line of words.

Torch's version and the number of threads are left out: they shift figures, but seldom which backend is the fastest.
"""

from tilewhisper.engine.report import machine
from tilewhisper.engine.routing.policy import Policy


def fingerprint() -> str:
    """This machine: its processor, the vector extensions torch uses of it, and how many cores it shows."""
    here = machine()
    return f"{here.cpu}, {here.cpu_capability}, {here.logical_cpus} logical CPUs"


def other_machine(policy: Policy) -> str | None:
    """What to say of a policy that was measured on another machine; None where there is nothing to say."""
    if not policy.machine or policy.machine == fingerprint():
        return None
    return f"policy {policy.name} was measured on another machine ({policy.machine}); run `tilewhisper tune` here"
