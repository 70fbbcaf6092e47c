"""Errors of kernels and backends. Each text is for the user: what was wrong, and what to do.

KernelError
├── UnknownBackend        no backend of that name
├── UnknownTarget         no tile geometry or device profile of that name
├── BackendUnavailable    the backend cannot run on this machine
├── UnsupportedShape      a product that a geometry, device or profile cannot take
├── DesignError           an invalid NPU design (in xdna/designs)
└── ProductFailed         a product was started and failed
"""


class KernelError(Exception):
    """Root of the errors of kernels and backends."""


class UnknownBackend(KernelError):  # noqa: N818 (reads as the fact it states, like FileNotFoundError)
    """No backend of that name."""


class UnknownTarget(KernelError):  # noqa: N818
    """No tile geometry or device profile of that name."""


class BackendUnavailable(KernelError):  # noqa: N818
    """The backend cannot run on this machine; the text gives the reason and a remedy."""


class UnsupportedShape(KernelError):  # noqa: N818
    """A product that a geometry, device or profile cannot take; the text gives the limit in figures."""


class ProductFailed(KernelError):  # noqa: N818
    """A product was started and failed (time-out, lost device). A fallback stated in the policy may take over."""
