"""The predicted cost of an encoder's products on an NPU: a geometry cuts every site and a profile predicts its time.

Runs nothing. Needs neither torch nor weights for an official model size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.sites import Site, encoder_sites, stem_sites
from tilewhisper.kernels.base import LayerShape, ProductShape
from tilewhisper.kernels.xdna.array import Geometry
from tilewhisper.kernels.xdna.cost import NO_COST, Cost, Profile, design_switches, predict
from tilewhisper.kernels.xdna.geometries import find_geometry
from tilewhisper.kernels.xdna.seed import SEED, SEED_CLAIMS, SEED_PROJECTIONS, SEED_SCALED, SEED_SHAPE, SeedClaim
from tilewhisper.kernels.xdna.tile_plan import TilePlan
from tilewhisper.kernels.xdna.tiling import plan
from tilewhisper.models.checkpoint.catalog import official
from tilewhisper.models.checkpoint.locate import locate
from tilewhisper.models.constants import POSITIONS_PER_SECOND

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
SCOPES = {
    "projections": PROJECTIONS,
    "and fc1, fc2": (*PROJECTIONS, "fc1", "fc2"),
    "and qk, av: all": (*PROJECTIONS, "fc1", "fc2", "qk", "av"),
}


@dataclass(frozen=True)
class PlannedProduct:
    """A product and its cost, without changes of design."""

    plan: TilePlan
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        p = self.plan
        return {
            "shape": asdict(p.shape),
            "padded": asdict(p.padded),
            "core_tile": asdict(p.core),
            "call_tile": asdict(p.launch),
            "grid": asdict(p.grid),
            "calls": p.calls,
            "core_steps": p.core_steps,
            "bytes_moved": {"a": p.bytes_a, "b": p.bytes_b, "c": p.bytes_c, "total": p.bytes_moved},
            "host_bytes": {"a": p.host_bytes_a, "b": p.host_bytes_b, "c": p.host_bytes_c},
            "padding_waste": p.waste,
            "l1_bytes": p.l1_bytes,
            "l2_bytes": p.l2_bytes,
            "shim_descriptors": p.shim_descriptors,
            "queued_transfers": p.queued_transfers,
            "seconds": cost_to_json(self.cost),
        }


@dataclass(frozen=True)
class PlannedSite:
    """A site of the encoder, planned."""

    site: Site
    product: PlannedProduct

    @property
    def role(self) -> str:
        """`q_proj`, `qk`, `fc1`: the last part of the name."""
        return self.site.name.rpartition(".")[2]


@dataclass(frozen=True)
class Scope:
    """A group of an encoder's sites, run in order for window after window."""

    name: str
    sites: tuple[PlannedSite, ...]
    cost: Cost
    """Including the changes of design between the sites."""
    switches: int
    share: float
    """Of the multiply-adds of all sites."""
    window_seconds: float

    @property
    def calls(self) -> int:
        return sum(site.product.plan.calls for site in self.sites)

    @property
    def bytes_moved(self) -> int:
        return sum(site.product.plan.bytes_moved for site in self.sites)

    @property
    def designs(self) -> int:
        """Binaries, and therefore contexts, that these sites need."""
        return len({site.product.plan.design for site in self.sites})

    @property
    def speed(self) -> float:
        """Seconds of audio per second, if only these sites took time."""
        return self.window_seconds / self.cost.seconds

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "sites": len(self.sites),
            "share_of_multiply_adds": self.share,
            "calls": self.calls,
            "bytes_moved": self.bytes_moved,
            "designs": self.designs,
            "switches": self.switches,
            "seconds": cost_to_json(self.cost),
            "speed_limit": self.speed,
        }


@dataclass(frozen=True)
class EncoderPlan:
    """Every site of a model's encoder, and the cost of groups of them."""

    model: str
    sites: tuple[PlannedSite, ...]
    scopes: tuple[Scope, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "sites": [{"site": site.site.name, **site.product.to_json()} for site in self.sites],
            "totals": [scope.to_json() for scope in self.scopes],
        }


@dataclass(frozen=True)
class SeedRow:
    """The seed's claim for one geometry, beside the counted calls and the two readings of its time a call."""

    geometry: str
    claim: SeedClaim
    calls: int
    flat_seconds: float
    scaled_seconds: float
    projections: int = SEED_PROJECTIONS

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan_product(shape: ProductShape, geometry: Geometry, profile: Profile) -> PlannedProduct:
    """One product, cut and timed. Raises KernelError if the geometry or the profile does not support it."""
    cut = plan(shape, geometry, profile.device)
    return PlannedProduct(cut, predict(cut, profile))


def plan_encoder(model: str, sites: Sequence[Site], geometry: Geometry, profile: Profile) -> EncoderPlan:
    """The sites of an encoder, cut and timed. Raises KernelError like `plan_product`."""
    planned = tuple(_plan_site(site, geometry, profile) for site in sites if site.kind != "conv")
    return EncoderPlan(model, planned, tuple(_scope(name, planned, profile) for name in SCOPES))


def seed_rows() -> tuple[SeedRow, ...]:
    """The seed's product under each of its geometries."""
    return tuple(_seed_row(name, claim) for name, claim in SEED_CLAIMS.items())


def sites_of_model(model: str) -> tuple[Site, ...]:
    """The sites of a model; an official size needs no weights, only its dimensions. Raises ModelsError if unknown."""
    if size := official(model):
        return stem_sites(size.n_mels, size.d_model) + encoder_sites(
            size.encoder_layers, size.d_model, size.heads, 4 * size.d_model
        )
    locate(model)
    from tilewhisper.engine.routing.sites import sites_of
    from tilewhisper.models.checkpoint import loader

    return sites_of(loader.load(model).model.config)


def layer_shape(sites: Sequence[Site]) -> tuple[LayerShape, int]:
    """The sizes of an encoder's layers, and their number."""
    scores = [site for site in sites if site.name.endswith(".qk")]
    fc1 = next(site for site in sites if site.name.endswith(".fc1"))
    return LayerShape(scores[0].m, fc1.k, scores[0].batch, fc1.n), len(scores)


def parse_shape(text: str) -> ProductShape:
    """`M,K,N` as a product. Raises OptionError."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 and int(part) for part in parts):
        raise OptionError(f"cannot read --shape {text!r}: expected three whole numbers M,K,N, e.g. 1500,512,512")
    return ProductShape(1, *(int(part) for part in parts))


def cost_to_json(cost: Cost) -> dict[str, Any]:
    return {**asdict(cost), "total": cost.seconds, "bound_by": cost.bound_by}


def _plan_site(site: Site, geometry: Geometry, profile: Profile) -> PlannedSite:
    cut = plan(ProductShape(site.batch, site.m, site.k, site.n), geometry, profile.device)
    return PlannedSite(site, PlannedProduct(cut, predict(cut, profile, resident=site.kind == "linear")))


def _scope(name: str, planned: Sequence[PlannedSite], profile: Profile) -> Scope:
    sites = tuple(site for site in planned if site.role in SCOPES[name])
    changes = design_switches([site.product.plan for site in sites])
    costs = (
        predict(site.product.plan, profile, switches=change, resident=site.site.kind == "linear")
        for site, change in zip(sites, changes, strict=True)
    )
    return Scope(
        name=name,
        sites=sites,
        cost=reduce(add, costs, NO_COST),
        switches=sum(changes),
        share=_multiply_adds(sites) / _multiply_adds(planned),
        window_seconds=sites[0].site.m / POSITIONS_PER_SECOND,
    )


def _multiply_adds(sites: Sequence[PlannedSite]) -> int:
    return sum(site.product.plan.shape.multiply_adds for site in sites)


def _seed_row(name: str, claim: SeedClaim) -> SeedRow:
    cut = plan(SEED_SHAPE, find_geometry(name, SEED.device), SEED.device)
    return SeedRow(name, claim, cut.calls, predict(cut, SEED).seconds, predict(cut, SEED_SCALED).seconds)
