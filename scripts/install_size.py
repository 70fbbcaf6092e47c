"""Print the size on disk of a package and of everything that it needs, as installed here.

python scripts/install_size.py                         # tilewhisper without extras
python scripts/install_size.py --package transformers
"""

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from rich.table import Table

from tilewhisper.engine.commands.screen import console

CUDA = re.compile(r"nvidia-.*|cuda-.*|triton")
"""Packages that PyTorch's build without CUDA does not have."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", default="tilewhisper", help="whose size to print (default: %(default)s)")
    sizes = {found.name: _bytes(found) for found in needed(parser.parse_args().package, set())}
    table = Table("package", "MB", box=None)
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{size / 1e6:.1f}")
    table.add_row("together", f"{sum(sizes.values()) / 1e6:.1f}")
    console().print(table)


def needed(name: str, seen: set[str]) -> Iterator[Distribution]:
    """The package and those that it needs, without extras and without CUDA's; missing ones are left out."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen or CUDA.fullmatch(name):
        return
    seen.add(name)
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return
    yield found
    for line in found.requires or ():
        requirement = Requirement(line)
        if not requirement.marker or requirement.marker.evaluate({"extra": ""}):
            yield from needed(requirement.name, seen)


def _bytes(found: Distribution) -> int:
    """Of all its files, bytecode included."""
    paths = (Path(str(found.locate_file(file))) for file in found.files or ())
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    main()
