"""The distinct designs and launches of all official model sizes, devices and geometries, and of whole layers."""

from tilewhisper.engine.routing.sites import encoder_sites
from tilewhisper.kernels.base import LayerShape, ProductShape
from tilewhisper.kernels.xdna.devices import DEVICES
from tilewhisper.kernels.xdna.geometries import GEOMETRIES, find_geometry
from tilewhisper.kernels.xdna.layer_plan import plan_layer
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


def _of_layers():
    """Of each step of a layer the first launch and the last."""
    found = {}
    for device in DEVICES.values():
        for size in SIZES.values():
            shape = LayerShape(1500, size.d_model, size.heads, 4 * size.d_model)
            for step in plan_layer(shape, device).steps:
                found |= {(each.design, each.title): each for each in (step.launches[0], step.launches[-1])}
    return list(found.values())


ALL = _distinct()
LAYERS = _of_layers()
