"""Write the list of modules in docs/architecture.md: each file with the first sentence of its docstring.

    python scripts/list_modules.py

Everything after the marker `<!-- modules -->` is replaced.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
MARKER = "<!-- modules -->\n"
FOLDERS = ("tilewhisper", "engine", "kernels", "models", "scripts", "examples")


def main() -> int:
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def updated(page: str) -> str:
    """The page with the current list."""
    head, marker, _ = page.partition(MARKER)
    if not marker:
        raise ValueError(f"{PAGE} has no line {MARKER.strip()}")
    return head + marker + "\n```text\n" + "\n".join(_lines()) + "\n```\n"


def _lines() -> Iterator[str]:
    for folder in FOLDERS:
        yield from _of_folder(ROOT / folder, depth=0)


def _of_folder(folder: Path, depth: int) -> Iterator[str]:
    """The folder's own line, its modules, then its packages."""
    package = folder / "__init__.py"
    yield _line(f"{folder.name}/", package if package.exists() else None, depth)
    for module in sorted(folder.glob("*.py")):
        if module != package:
            yield _line(module.name, module, depth + 1)
    for inner in sorted(path for path in folder.iterdir() if any(path.glob("*.py"))):
        yield from _of_folder(inner, depth + 1)


def _line(name: str, module: Path | None, depth: int) -> str:
    return f"{'  ' * depth + name:<28} {_summary(module) if module else ''}".rstrip()


def _summary(module: Path) -> str:
    """The first sentence of a module's docstring, on one line, without the markup of code."""
    text = " ".join((ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    sentence = re.match(r".*?[.:](?= [A-Z]|$)", text)
    return (sentence[0] if sentence else text).rstrip(".:").replace("`", "")


if __name__ == "__main__":
    sys.exit(main())
