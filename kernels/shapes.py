"""Sizes of products and of encoder layers, device usage, and device settings. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProductShape:
    """The size of one product (batch, m, k) @ (batch, k, n)."""

    batch: int
    m: int
    k: int
    n: int

    @property
    def multiply_adds(self) -> int:
        return self.batch * self.m * self.k * self.n

    def __str__(self) -> str:
        size = f"({self.m}, {self.k}) x ({self.k}, {self.n})"
        return size if self.batch == 1 else f"{self.batch} x {size}"


@dataclass(frozen=True)
class LayerShape:
    """The size of one encoder layer for one window of `positions`."""

    positions: int
    width: int
    """d_model"""
    heads: int
    hidden: int
    """Outputs of fc1."""


@dataclass(frozen=True)
class Usage:
    """Device use so far; zeros for a host backend."""

    calls: int = 0
    """Kernel calls that were started; one product may take many."""
    planned_calls: int = 0
    """Kernel calls of the plans; a repeated call is not planned."""
    read_backs: int = 0
    """Times that results were copied to the host."""
    device_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.calls + other.calls,
            self.planned_calls + other.planned_calls,
            self.read_backs + other.read_backs,
            self.device_seconds + other.device_seconds,
        )

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(
            self.calls - earlier.calls,
            self.planned_calls - earlier.planned_calls,
            self.read_backs - earlier.read_backs,
            self.device_seconds - earlier.device_seconds,
        )


@dataclass(frozen=True)
class Settings:
    """User settings for devices. Host backends ignore them."""

    npu: str = "auto"
    """`auto` is the real device; `xdna1` and `xdna2` too, whatever its name. `emulated` is an emulation: chosen by
    name, never as a substitute."""
    npu_kernels: str | None = None
    """The folder of built designs; None is the user's cache folder."""
    npu_fault: str | None = None
    """A fault of the emulated NPU, to try out fallbacks: `hang:N[,N…]` or `lost:N` at its N-th run, or `contexts`."""
