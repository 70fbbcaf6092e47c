"""The distinct designs and launches of all official model sizes, devices and geometries."""

from tilewhisper.engine.routing.sites import encoder_sites
from tilewhisper.kernels.base import ProductShape
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.geometries import GEOMETRIES, find_geometry
from tilewhisper.kernels.xdna.tiling import plan
from tilewhisper.models.checkpoint.catalog import SIZES


def cut(device, geometry, m, k, n):
    return plan(ProductShape(1, m, k, n), find_geometry(geometry, device), device)


def _of_a_model(size):
    for site in encoder_sites(1, size.d_model, size.heads, 4 * size.d_model):
        yield site.m, site.k, site.n
    yield 1500, size.d_model, 3 * size.d_model


def _distinct():
    plans = {}
    for device in DEVICES.values():
        for geometry in (g for g in GEOMETRIES if device.name in g.devices):
            for shape in {shape for size in SIZES.values() for shape in _of_a_model(size)}:
                one = cut(device, geometry.name, *shape)
                plans.setdefault((one.design, one.launch), one)
    return list(plans.values())


ALL = _distinct()
