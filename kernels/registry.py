"""Backend names and the class behind each. A backend is imported on first use."""

from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module

from tilewhisper.kernels.base import Backend, BackendUnavailable, Settings, UnknownBackend

_BACKENDS = {
    "torch": "tilewhisper.kernels.cpu.torch_f32:TorchBackend",
    "int16": "tilewhisper.kernels.cpu.quantized:Int16Backend",
    "int8": "tilewhisper.kernels.cpu.quantized:Int8Backend",
    "int4": "tilewhisper.kernels.cpu.int4:Int4Backend",
    "w8a8": "tilewhisper.kernels.cpu.quantized:W8A8Backend",
    "bf16": "tilewhisper.kernels.cpu.bf16:Bf16Backend",
    "reference": "tilewhisper.kernels.reference:ReferenceBackend",
    "npu": "tilewhisper.kernels.xdna.backend:XdnaBackend",
    "npu-layer": "tilewhisper.kernels.xdna.layer_backend:XdnaLayerBackend",
}

DEFAULTS = Settings()


def names() -> tuple[str, ...]:
    return tuple(_BACKENDS)


def backend_class(name: str) -> type[Backend]:
    """The class of a backend. Raises UnknownBackend with the valid names."""
    try:
        module, _, attribute = _BACKENDS[name].partition(":")
    except KeyError:
        near = get_close_matches(name, _BACKENDS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise UnknownBackend(f"unknown backend {name!r}{hint}; the backends are {', '.join(_BACKENDS)}") from None
    found: type[Backend] = getattr(import_module(module), attribute)
    return found


def create(name: str, settings: Settings = DEFAULTS) -> Backend:
    """Create a backend. Raises UnknownBackend, or BackendUnavailable if it cannot run on this machine."""
    cls = backend_class(name)
    if reason := cls.why_unavailable(settings):
        raise BackendUnavailable(f"backend {name!r} cannot run here: {reason}")
    return cls.create(settings)


def all_classes() -> Iterator[type[Backend]]:
    return map(backend_class, _BACKENDS)
