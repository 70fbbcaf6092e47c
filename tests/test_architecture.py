"""The architecture, checked on the syntax trees: import direction, cycles, and which file may import which library."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tilewhisper

ROOT = Path(__file__).parents[1]
PACKAGES = ("engine", "kernels", "models")
LAYERS = {
    "scripts": 12,
    "engine.commands": 11,
    "engine.serving": 10,
    "engine.tuning": 9,
    "engine.bulk": 9,
    "engine.whisper_model": 8,
    "engine.pipeline": 7,
    "engine.runtime": 6,
    "engine.decoding": 5,
    "engine.timestamps": 5,
    "engine.report": 4,
    "engine.compat": 4,
    "engine.encoding": 4,
    "engine.routing": 3,
    "engine.output": 3,
    "engine.encoding.audio_context": 2,  # a record and its parser: the options check it
    "engine.timestamps.punctuation": 2,  # two strings: the options' defaults
    "models.checkpoint": 2,
    "kernels": 1,
    "models": 1,
}
"""A module may import from its own layer and from lower layers. The longest matching prefix gives a module's layer."""
UNLISTED_LAYER = 2
"""`engine.options`, `engine.errors` and other modules without a prefix above: all of `engine` may import them."""
MAX_ENGINE_MODULES = 12
ALLOWED_IN = {
    "transformers": (
        "engine/tuning/transformers_whisper.py",
        "models/checkpoint/export/openvino.py",
        "scripts/weight_check/engines.py",
    ),
    "pyxrt": ("kernels/xdna/xrt.py",),
    "librosa": ("models",),
    "soxr": ("models",),
    "soundfile": ("models",),
    "av": ("models",),
    "fastapi": ("engine/serving", "scripts/server_load/faster_whisper_server.py"),
    "starlette": ("engine/serving",),
    "uvicorn": ("engine/commands/serve.py", "scripts/server_load/faster_whisper_server.py"),
    "wyoming": ("engine/serving",),
    "sounddevice": ("engine/commands",),
    "ray": ("engine/bulk/on_ray.py",),
    "pyarrow": ("engine/bulk/parquet.py",),
    "fsspec": ("engine/bulk/files.py",),
    "rich": ("scripts", "engine/commands", "engine/progress.py"),
}
"""Library -> the only files and folders that may import it."""
SOURCES = {
    path.relative_to(ROOT): path.read_text("utf-8")
    for folder in (*PACKAGES, "scripts")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
TREES = {path: ast.parse(source) for path, source in SOURCES.items()}


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def is_in(path: Path, places: Iterable[str]) -> bool:
    return any(path.is_relative_to(place) for place in places)


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Yield every module a file imports: at its top, inside functions, or for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("import_module"):
            yield ast.unparse(node.args[0]).strip("'\"")


def layer_of(module: str) -> int:
    prefixes = [prefix for prefix in LAYERS if module == prefix or module.startswith(f"{prefix}.")]
    return LAYERS[max(prefixes, key=len)] if prefixes else UNLISTED_LAYER


def violations(path: Path, tree: ast.AST) -> list[str]:
    """List imports that go upward or sideways, bypass `tilewhisper`, or use a library reserved to other files."""
    module = module_name(path)
    found = []
    for name in imported_modules(tree):
        top, _, rest = name.partition(".")
        if top == "tilewhisper" and rest:
            is_sideways = {module.split(".")[0], rest.split(".")[0]} == {"kernels", "models"}
            if is_sideways or layer_of(rest) > layer_of(module):
                found.append(f"{path} imports {name}")
        if top in PACKAGES:
            found.append(f"{path} imports {name}, not tilewhisper.{name}")
        if top in ALLOWED_IN and not is_in(path, ALLOWED_IN[top]):
            found.append(f"{path} imports {name}")
    return found


def import_graph(trees: Mapping[str, ast.AST]) -> dict[str, set[str]]:
    """Map each module to the project's modules it imports; a package counts only where it is imported itself."""
    graph: dict[str, set[str]] = {}
    for module, tree in trees.items():
        names = {name.removeprefix("tilewhisper.") for name in imported_modules(tree)} & trees.keys()
        packages = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
        graph[module] = names - packages - {module}
    return graph


def check_acyclic(trees: Mapping[str, ast.AST]) -> None:
    """Raise CycleError, which names the modules of a cycle."""
    TopologicalSorter(import_graph(trees)).prepare()


def test_the_sources_are_found():
    assert {path.parts[0] for path in SOURCES} >= set(PACKAGES)


def test_no_import_goes_upward():
    assert not [line for path, tree in TREES.items() for line in violations(path, tree)]


def test_no_import_cycle():
    check_acyclic({module_name(path): tree for path, tree in TREES.items()})


def test_the_packages_of_models_do_not_import_each_other_in_a_cycle():
    models = {module_name(path): tree for path, tree in TREES.items() if path.parts[0] == "models"}
    packages: dict[str, set[str]] = {}
    for module, names in import_graph(models).items():
        package = ".".join(module.split(".")[:2])
        packages.setdefault(package, set()).update({".".join(name.split(".")[:2]) for name in names} - {package})
    TopologicalSorter(packages).prepare()
    inside = {"models.audio", "models.tokenizer", "models.checkpoint"}
    assert not packages["models.audio"] & inside
    assert not packages["models.tokenizer"] & inside
    assert packages["models.checkpoint"] & inside == {"models.tokenizer"}


def test_an_import_cycle_is_detected():
    sources = {"engine.a": "from tilewhisper.engine import b", "engine.b": "import tilewhisper.engine.a"}
    with pytest.raises(CycleError):
        check_acyclic({module: ast.parse(source) for module, source in sources.items()})


def test_few_modules_are_directly_in_engine():
    assert len(list((ROOT / "engine").glob("*.py"))) <= MAX_ENGINE_MODULES


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("kernels/base.py", "from tilewhisper.models.checkpoint.catalog import SIZES"),
        ("kernels/base.py", "def f():\n    import tilewhisper.engine.routing.policy"),
        ("models/audio/reader.py", "from tilewhisper.engine import options"),
        ("models/audio/reader.py", "from tilewhisper.kernels import base"),
        ("models/tokenizer/vocabulary.py", "from tilewhisper.models.checkpoint import catalog"),
        ("engine/decoding/batch.py", "from tilewhisper.engine.pipeline import scheduler"),
        ("engine/routing/router.py", "from tilewhisper.engine.encoding import encoder"),
        ("engine/options.py", "from tilewhisper.engine.pipeline import session"),
        ("engine/whisper_model.py", "from tilewhisper.engine.commands import tables"),
        ("engine/encoding/encoder.py", "import transformers"),
        ("engine/encoding/encoder.py", "from kernels import base"),
        ("engine/report.py", "import pyxrt"),
        ("kernels/xdna/backend.py", "import_module('pyxrt')"),
    ],
)
def test_a_forbidden_import_is_detected(path, source):
    assert violations(Path(path), ast.parse(source))


def test_only_commands_and_scripts_print():
    printing = [
        f"{path}:{call.lineno}"
        for path, tree in TREES.items()
        if not is_in(path, ("scripts", "engine/commands"))
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "print"
    ]
    assert not printing


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    present = {f"tilewhisper.{module_name(path)}" for path in SOURCES if path.name == "__init__.py"}
    assert set(listed) == present | {"tilewhisper"}


def test_every_source_in_c_is_installed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    folders = {name: ROOT / Path(*name.split(".")[1:]) for name in patterns if name != "tilewhisper"}
    installed = {file for name, folder in folders.items() for each in patterns[name] for file in folder.glob(each)}
    present = {file for file in (ROOT / "kernels").rglob("*") if file.suffix in (".h", ".hpp", ".cc", ".cpp")}
    assert present and present <= installed


def run_python(code: str, cwd: Path = ROOT) -> str:
    finished = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.parametrize("folder", ["checkout", "elsewhere"])
def test_importing_the_package_does_not_import_torch(folder, tmp_path):
    # In a checkout, tilewhisper.engine is only found if the package looks beside its own folder.
    code = "import sys, tilewhisper; print(tilewhisper.__version__, 'torch' in sys.modules); import tilewhisper.engine"
    assert run_python(code, ROOT if folder == "checkout" else tmp_path) == f"{tilewhisper.__version__} False\n"


def test_every_export_exists():
    assert len(tilewhisper.__all__) == 12
    for name in tilewhisper.__all__:
        assert getattr(tilewhisper, name)


@pytest.mark.slow
def test_transformers_can_be_imported_from_the_root_of_the_repository():
    """transformers probes for Hugging Face's package `kernels`, and the repository has a folder of that name."""
    run_python("import kernels; from transformers import WhisperForConditionalGeneration")


def test_public_names_can_be_imported_from_where_they_were():
    from tilewhisper import engine

    assert engine.WhisperModel is tilewhisper.WhisperModel
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        engine.nothing  # noqa: B018
