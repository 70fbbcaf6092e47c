"""Backends that imitate a device: it refuses shapes, fails, runs blocks or whole layers, and counts its runs."""

import time

import torch.nn.functional as F

from tilewhisper.kernels.base import Backend, ProductFailed, Usage


class TroubledBackend(Backend):
    """Imitates a device: pads weights, rejects one K, and fails after `works` products."""

    name = "troubled"
    summary = "for tests"

    def __init__(self, works: int = 10**9, refuses_k: int | None = None, fails_to_prepare: bool = False) -> None:
        self.works, self.refuses_k, self.fails_to_prepare = works, refuses_k, fails_to_prepare
        self.prepared, self.products, self.closed = 0, 0, False

    def supports(self, shape):
        return f"K = {shape.k} is more than a tile holds" if shape.k == self.refuses_k else None

    def prepare(self, weight, bias):
        if self.fails_to_prepare:
            raise ProductFailed("no room for the weights")
        self.prepared += 1
        return F.pad(weight, (0, 0, 0, -len(weight) % 64)), len(weight), bias

    def linear(self, x, prepared):
        padded, n, bias = prepared
        self._run()
        y = (x @ padded.T)[..., :n]
        return y.contiguous() if bias is None else y + bias

    def matmul(self, a, b):
        self._run()
        return a @ b

    def close(self):
        self.closed = True

    def _run(self):
        self.products += 1
        if self.products > self.works:
            raise ProductFailed("the device was lost")


class FeedForwardBackend(TroubledBackend):
    """The same with feed-forward as one block, which alone can fail."""

    def feed_forward(self, x, norm, fc1, fc2):
        self._run()
        return x + F.linear(F.gelu(F.linear(norm(x), fc1[0][: fc1[1]], fc1[2])), fc2[0][: fc2[1]], fc2[2])


class WholeLayerBackend(TroubledBackend):
    """The same with a whole layer as one block."""

    def encoder_layer(self, x, layer, bias=None, more=None):
        self._run()
        inside = TroubledBackend()  # its products are not counted and do not fail
        return inside.encoder_layer(x, layer, bias, more)


class MeteredBackend(TroubledBackend):
    """A device that counts its runs in two steps, as no lock of its own protects them."""

    on_device = True

    def __init__(self):
        super().__init__()
        self._usage = Usage()

    @property
    def usage(self):
        return self._usage

    def _run(self):
        before = self._usage
        time.sleep(1e-4)
        self._usage = before + Usage(calls=3, device_seconds=1.0)
