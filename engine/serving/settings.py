"""What a server is asked to serve, and its limits."""

from dataclasses import dataclass, field

from tilewhisper.engine.routing.policy import DEFAULT_POLICY
from tilewhisper.kernels import registry
from tilewhisper.kernels.base import Settings


@dataclass(frozen=True)
class ServerSettings:
    """Everything that `tilewhisper serve` is told."""

    models: tuple[str, ...]
    """Names or paths; the first is the default model, and the one that official names stand for."""
    policy: str = DEFAULT_POLICY
    backends: tuple[str, ...] = ()
    """`SITES=BACKEND` overrides on top of the policy."""
    beam_size: int = 1
    """Hypotheses of a file's windows where a request does not say. With 5, 32 clients at once waited 1.4 times as long
    (60 clips of base), and of 100 words 13.50 were wrong instead of 13.59."""
    kernels: Settings = field(default=registry.DEFAULTS)
    """Which NPU a policy uses."""
    api_keys: tuple[str, ...] = ()
    """Any of them is accepted; none means that no key is asked for."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read the answers; none means only the server's own."""
    unload_after: float | None = None
    """Seconds after its last use at which a model is unloaded; None never unloads."""
    memory_limit: int | None = None
    """Bytes that the weights of all loaded models may take together; None is no limit."""
    max_upload_bytes: int = 25 << 20
    max_audio_seconds: float = 4 * 3600
    max_running: int = 32
    """Requests that are transcribed at the same time: as many as windows share a decode step."""
    max_waiting: int = 64
    """Requests that may wait for a place; one more is answered with 429."""
    max_live: int = 16
    """Live sessions at the same time; one more is refused."""
    request_seconds: float = 600
    """Time limit of a request, from its last uploaded byte on."""
    upload_seconds: float = 600
    """Time limit of an upload."""
    upload_idle_seconds: float = 30
    """Time limit of an upload's next byte."""
    shutdown_seconds: float = 30
    """Time that running requests have to finish after the server was told to stop."""
    wyoming: str | None = None
    """Address at which Wyoming is spoken too, such as tcp://127.0.0.1:10300."""
