"""Write policies: few rules from a table of sites, and the TOML that `parse_policy` reads."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from tilewhisper.engine.routing.policy import DecoderRoute, Policy, Rule


def compact(name: str, backends: Mapping[str, str]) -> Policy:
    """The policy that routes every site to its backend in `backends`, in few rules.

    The most frequent backend is the default. A site that differs in most layers gets a rule for all layers, after a
    rule for each layer that is an exception.
    """
    default = _most_frequent(backends.values())
    same_site: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for site, backend in backends.items():
        same_site[any_layer(site)][site] = backend
    rules: list[Rule] = []
    for sites, in_layers in same_site.items():
        usual = _most_frequent(in_layers.values())
        rules += [Rule(site, backend) for site, backend in in_layers.items() if backend != usual]
        if usual != default:
            rules.append(Rule(sites, usual))
    return Policy(name, default, tuple(rules))


def any_layer(name: str) -> str:
    """`layers.3.fc1` as `layers.*.fc1`."""
    return re.sub(r"^layers\.\d+\.", "layers.*.", name)


def to_toml(policy: Policy, comments: Sequence[str] = ()) -> str:
    """The policy as TOML, with comments at the top. Its name is not part of it."""
    lines = [f"# {_printable(comment)}".rstrip() for comment in comments]
    if lines:
        lines.append("")
    head = {"description": policy.description, "machine": policy.machine, "default": policy.default}
    lines += _assignments(head)
    for rule in policy.rules:
        entries = {"sites": rule.sites, "when": str(rule.when or ""), "backend": rule.backend}
        lines += ["", "[[rule]]", *_assignments(entries | {"fallback": rule.fallback or ""})]
    if policy.decoder != DecoderRoute():
        entries = {"backend": policy.decoder.backend, "fallback": policy.decoder.fallback or ""}
        lines += ["", "[decoder]", *_assignments(entries)]
    return "\n".join(lines) + "\n"


def _assignments(entries: Mapping[str, str]) -> list[str]:
    # A JSON string of ASCII is a TOML string too.
    return [f"{key} = {json.dumps(value)}" for key, value in entries.items() if value]


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _most_frequent(backends: Iterable[str]) -> str:
    ((backend, _),) = Counter(backends).most_common(1)
    return backend
