"""Policies: rules that say which backend runs which site. Pure data; nothing here runs or imports a backend.

A policy file is TOML:

    description = "…"              # optional
    machine = "…"                  # optional: the machine it was measured on, as `engine.fingerprint` formats it
    default = "torch"              # the backend of every site that no rule matches
    [[rule]]                       # rules in order: the first that matches a site decides
    sites = "layers.*.fc?"         # a glob on the whole site name; `*` also spans dots
    when = "M*N > 100000"          # optional: a product of M, K, N and batch, compared to a number
    backend = "bf16"
    fallback = "torch"             # optional: the backend that runs instead if this one cannot

    [decoder]                      # optional: the backend of the whole decoder; torch by default
    backend = "int16"
    fallback = "torch"

Precedence: `--backend GLOB=NAME` overrides, the last one given first (`--backend decoder=NAME` is the decoder's); then
the file's rules from top to bottom; then the default. A rule whose glob matches no site of the model is an
error: it is mistyped, or made for another model.
"""

import math
import operator
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from tilewhisper.engine.errors import PolicyError
from tilewhisper.engine.routing.sites import Site
from tilewhisper.models.option_fields import shown

DEFAULT_POLICY = "cpu"
_DECODER = "decoder"
"""Names the decoder in overrides. No site of the encoder has this name."""

_EXPECTED: dict[type, str] = {str: "a string", list: "[[rule]] tables", dict: "a [decoder] table"}
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_CONDITION = re.compile(r"\s*((?:M|K|N|batch)(?:\s*\*\s*(?:M|K|N|batch))*)\s*(>=|<=|==|!=|>|<)\s*([\d_]+)\s*")


@dataclass(frozen=True)
class Condition:
    """A bound on a product's size, e.g. `M*N > 100000`."""

    factors: tuple[str, ...]
    comparison: str
    bound: int

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Raises PolicyError when the text is not a product of M, K, N and batch compared to a whole number."""
        if not (match := _CONDITION.fullmatch(text)):
            raise PolicyError(f"cannot read the condition {text!r}: expected e.g. 'M*N > 100000', of M, K, N and batch")
        return cls(tuple(re.split(r"\s*\*\s*", match[1])), match[2], int(match[3]))

    def holds(self, site: Site) -> bool:
        size = {"M": site.m, "K": site.k, "N": site.n, "batch": site.batch}
        return _COMPARE[self.comparison](math.prod(size[f] for f in self.factors), self.bound)

    def __str__(self) -> str:
        return f"{'*'.join(self.factors)} {self.comparison} {self.bound}"


@dataclass(frozen=True)
class Rule:
    """One rule of a policy. `origin` names its place for error messages."""

    sites: str
    backend: str
    fallback: str | None = None
    when: Condition | None = None
    origin: str = ""

    def matches(self, site: Site) -> bool:
        return fnmatchcase(site.name, self.sites) and (self.when is None or self.when.holds(site))

    def __str__(self) -> str:
        condition = f" when {self.when}" if self.when else ""
        return f"{self.sites}{condition} = {self.backend}"


@dataclass(frozen=True)
class Route:
    """The backend a policy requests for one site: its printable, resolved form."""

    site: Site
    backend: str
    fallback: str | None
    rule: str
    """The rule that matched, or `default`."""


@dataclass(frozen=True)
class DecoderRoute:
    """The backend a policy requests for the decoder."""

    backend: str = "torch"
    fallback: str | None = None


@dataclass(frozen=True)
class Policy:
    """Ordered rules and a default."""

    name: str
    default: str
    rules: tuple[Rule, ...] = ()
    description: str = ""
    machine: str = ""
    """The machine it was measured on; empty if it is for any."""
    decoder: DecoderRoute = DecoderRoute()

    def with_overrides(self, overrides: Sequence[str]) -> "Policy":
        """Put `GLOB=BACKEND` rules before the others, the last given first. Raises PolicyError for another form."""
        on_top = [_parse_override(text) for text in reversed(overrides)]
        rules = tuple(rule for rule in on_top if rule.sites != _DECODER)
        decoder = next((DecoderRoute(rule.backend) for rule in on_top if rule.sites == _DECODER), self.decoder)
        return replace(self, rules=rules + self.rules, decoder=decoder)

    def resolve(self, sites: Sequence[Site]) -> tuple[Route, ...]:
        """The route of every site, in the sites' order. Raises PolicyError for a rule whose glob matches no site."""
        names = [site.name for site in sites]
        for rule in self.rules:
            if not any(fnmatchcase(name, rule.sites) for name in names):
                raise PolicyError(_no_match(rule, names))
        return tuple(self._route(site) for site in sites)

    def _route(self, site: Site) -> Route:
        for rule in self.rules:
            if rule.matches(site):
                return Route(site, rule.backend, rule.fallback, str(rule))
        return Route(site, self.default, None, "default")


def presets() -> dict[str, Policy]:
    """The policies that ship with the package, by name."""
    folder = resources.files(__package__) / "presets"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {(name := f.name.removesuffix(".toml")): parse_policy(f.read_text("utf-8"), name) for f in files}


def load_policy(name_or_file: str | Path) -> Policy:
    """Load a preset by name, or a policy file by path. Raises PolicyError if it is neither, or cannot be read."""
    shipped = presets()
    if str(name_or_file) in shipped:
        return shipped[str(name_or_file)]
    path = Path(name_or_file)
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except OSError:  # too long for a path
        is_directory = exists = False
    if is_directory:
        raise PolicyError(f"policy {path} is a directory; give a TOML file or one of {', '.join(shipped)}")
    if not exists:
        near = get_close_matches(str(name_or_file), shipped, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise PolicyError(f"no policy {shown(str(name_or_file))}{hint}: neither a file nor one of {', '.join(shipped)}")
    try:
        return parse_policy(path.read_text("utf-8"), str(path))
    except OSError as e:
        raise PolicyError(f"cannot read the policy {path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise PolicyError(f"policy {path} is not text in UTF-8; give a TOML file") from e


def parse_policy(text: str, name: str) -> Policy:
    """Parse a policy from TOML text. Raises PolicyError with the place of the error."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise PolicyError(f"policy {name} is not valid TOML: {e}") from e
    optional: dict[str, type] = {"description": str, "machine": str, "rule": list, "decoder": dict}
    _check_keys(f"policy {name}", table, required={"default": str}, optional=optional)
    rules = tuple(_parse_rule(name, i, entry) for i, entry in enumerate(table.get("rule", []), start=1))
    decoder = table.get("decoder", {"backend": "torch"})
    _check_keys(f"policy {name}, decoder", decoder, required={"backend": str}, optional={"fallback": str})
    return Policy(
        name,
        table["default"],
        rules,
        table.get("description", ""),
        table.get("machine", ""),
        DecoderRoute(decoder["backend"], decoder.get("fallback")),
    )


def _parse_rule(policy: str, number: int, entry: Any) -> Rule:
    origin = f"policy {policy}, rule {number}"
    if not isinstance(entry, dict):
        raise PolicyError(f"{origin}: expected a [[rule]] table, found {entry!r}")
    _check_keys(origin, entry, required={"sites": str, "backend": str}, optional={"when": str, "fallback": str})
    try:
        when = Condition.parse(entry["when"]) if "when" in entry else None
    except PolicyError as e:
        raise PolicyError(f"{origin}: {e}") from e
    return Rule(entry["sites"], entry["backend"], entry.get("fallback"), when, origin)


def _parse_override(text: str) -> Rule:
    sites, separator, backend = (part.strip() for part in text.rpartition("="))
    if not (separator and sites and backend):
        raise PolicyError(f"cannot read --backend {text!r}: expected SITES=BACKEND, e.g. 'layers.3.*=bf16'")
    return Rule(sites, backend, origin=f"--backend {text}")


def _check_keys(where: str, table: dict[str, Any], required: dict[str, type], optional: dict[str, type]) -> None:
    known = required | optional
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise PolicyError(f"{where}: unknown key {key!r}{hint}; the keys are {', '.join(known)}")
        if not isinstance(value, known[key]):
            expected = _EXPECTED[known[key]]
            raise PolicyError(f"{where}: {key} must be {expected}, got {value!r}")
    if missing := [key for key in required if key not in table]:
        raise PolicyError(f"{where}: {missing[0]!r} is missing; the keys are {', '.join(known)}")


def _no_match(rule: Rule, names: Sequence[str]) -> str:
    near = get_close_matches(rule.sites, names, n=3, cutoff=0.5)
    hint = f"near names are {', '.join(near)}" if near else f"the sites run from {names[0]} to {names[-1]}"
    return f"{rule.origin}: {rule.sites!r} matches no site of this model; {hint} (see `tilewhisper layers`)"
