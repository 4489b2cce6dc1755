"""A bit flipped anywhere in what is learnt from, or predicted with, is found, or does no harm."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.traverse_util
import networks
import numpy as np
import patches
import pytest

from lungjax.data import shards
from lungjax.data.shards import Dataset
from lungjax.errors import InputError
from lungjax.preparation.run import prepare
from lungjax.train import calibrate, checkpoint, trained, workdir

SEAL = re.compile("[0-9a-f]{64}")
some_bytes = pytest.mark.parametrize("step", [397, pytest.param(1, marks=pytest.mark.exhaustive)])
"""A bit in one byte of so many."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patches of nodules, prepared."""
    folder = tmp_path_factory.mktemp("bits")
    prepare(patches.write(folder / "nodules.npz", patients=3), folder / "data", workers=1)
    return folder / "data"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.made("classify", tmp_path_factory.mktemp("bits") / "model", width=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's workdir, with a calibration and thresholds."""
    folder = networks.workdir("classify", tmp_path_factory.mktemp("bits"))
    workdir.write_json(folder / calibrate.CALIBRATION_FILE, {"slope": 0.5, "offset": -0.25, "fitted_on": 7, "step": 3})
    points = {"false_positives_a_scan": [0.5, 1.0], "threshold": [0.75, 0.5], "default": 1.0, "fitted_on": "3 scans"}
    workdir.write_operating_points(folder, points)
    return folder


def flipped(file: Path, step: int) -> Iterator[int]:
    """Flips a bit in place after place, which are yielded; each is as it was again at the next one."""
    content = file.read_bytes()
    with file.open("r+b") as opened:
        for place in range(0, len(content), step):
            opened.seek(place)
            opened.write(bytes([content[place] ^ 1 << (place // step) % 8]))
            opened.flush()
            yield place
            opened.seek(place)
            opened.write(content[place : place + 1])
            opened.flush()


def count_found(file: Path, step: int, read: Callable[[], Any]) -> int:
    """How many flips are found, by an InputError that is one sentence; after all others `read` returns the same."""
    expected, found, sentences = read(), 0, set[str]()
    for place in flipped(file, step):
        try:
            assert read() == expected, f"{file.name}: a bit of byte {place} changes what is read"
        except InputError as error:
            found += 1
            sentences.add(str(error))
    assert read() == expected
    assert [text for text in sentences if not text.endswith(".") or str(file.parent) not in text] == []
    return found


def plain(dataset: Dataset) -> Any:
    """All that a training may take from a data set, comparable."""
    records = dataset.read(range(len(dataset)))
    pixels = [(record.image.tobytes(), record.readers.tobytes(), record.image.shape) for record in records]
    others = [repr({**vars(record), "image": None, "readers": None}) for record in records]
    # Not the seal, which is no seal any more where a bit of its name is flipped.
    described = {name: value for name, value in dataset.manifest.items() if not SEAL.fullmatch(str(value))}
    return pixels, others, dataset.index.to_csv(), json.dumps({name: described[name] for name in sorted(described)})


@some_bytes
def test_shards(data: Path, tmp_path: Path, step: int):
    copy = shutil.copytree(data, tmp_path / "data")
    (shard,) = (copy / "shards").iterdir()
    opened = shards.open_dataset(copy)

    def read() -> Any:
        again = Dataset(copy, opened.manifest, opened.index)
        images, readers = again.pixels(range(len(again)))
        return [part.tobytes() for part in (*images, *readers)], again.nodules(range(len(again)))

    size = np.count_nonzero(np.frombuffer(shard.read_bytes(), np.uint8))
    assert count_found(shard, step, read) > 0.8 * size / step


@some_bytes
@pytest.mark.parametrize("name", ["index.csv", "manifest.json"])
def test_index_and_manifest(data: Path, tmp_path: Path, name: str, step: int):
    copy = shutil.copytree(data, tmp_path / "data")
    file = copy / name
    found = count_found(file, max(step // 40, 1), lambda: plain(shards.open_dataset(copy)))
    assert found > 0.5 * file.stat().st_size / max(step // 40, 1)


def opened(folder: Path) -> Any:
    """All of a network, comparable."""
    model = trained.open_trained(folder)
    arrays = flax.traverse_util.flatten_dict(model.variables, sep="/")
    plain = {name: value for name, value in vars(model).items() if name not in ("path", "variables", "config")}
    return repr(plain), model.config.to_json(), {name: np.asarray(array).tobytes() for name, array in arrays.items()}


@some_bytes
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_exported_model(model: Path, tmp_path: Path, name: str, step: int, monkeypatch: pytest.MonkeyPatch):
    """Its network is not traced, which takes long: its shapes do not depend on bits that are found."""
    monkeypatch.setattr(trained.model_checks, "check_network", lambda config, shapes: None)
    copy = shutil.copytree(model, tmp_path / "model")
    found = count_found(copy / name, step, lambda: opened(copy))
    assert found > 0.5 * (copy / name).stat().st_size / step


@pytest.mark.parametrize("flips", [5, pytest.param(300, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("name", trained.bundled_models())
def test_a_bundled_model(name: str, tmp_path: Path, flips: int, monkeypatch: pytest.MonkeyPatch):
    """Every kind of network, in full size and with all that is fitted after training."""
    monkeypatch.setattr(trained.model_checks, "check_network", lambda config, shapes: None)
    copy = shutil.copytree(trained.SHIPPED / name, tmp_path / name)
    for file in sorted(path for path in copy.iterdir() if path.suffix in (".json", ".safetensors")):
        step = max(file.stat().st_size // flips, 1)
        assert count_found(file, step, lambda: opened(copy)) > 0.5 * file.stat().st_size / step


@some_bytes
@pytest.mark.parametrize("name", ["calibration.json", "operating_points.json", "split.json", "config.json"])
def test_the_files_of_a_run(run: Path, tmp_path: Path, name: str, step: int):
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    readers: dict[str, Callable[[], dict[str, Any]]] = {
        "calibration.json": lambda: calibrate.read_calibration(copy, 3),
        "operating_points.json": lambda: workdir.read_operating_points(copy),
        "split.json": lambda: workdir.read_split(copy)["patients"],
        "config.json": lambda: workdir.read_config(copy).to_dict(),
    }
    known = readers[name]().keys()

    def read() -> dict[str, Any]:
        """Where it is the seal's name that was changed, it is there under another."""
        content = readers[name]()
        return {key: content[key] for key in known}

    found = count_found(copy / name, max(step // 100, 1), read)
    assert found > 0.5 * (copy / name).stat().st_size / max(step // 100, 1)


@pytest.mark.slow
def test_a_checkpoint(run: Path, tmp_path: Path):
    """Of some bytes in each of its files: to read it takes long."""
    copy = shutil.copytree(run, tmp_path / "run")
    found = 0
    for file in sorted(path for path in (copy / checkpoint.FOLDER / "3").rglob("*") if path.is_file()):
        found += count_checkpoint(copy, file, max(file.stat().st_size // 6, 1))
    assert found > 5


def count_checkpoint(copy: Path, file: Path, step: int) -> int:
    def read() -> Any:
        variables, number = checkpoint.load_best(copy)
        arrays = flax.traverse_util.flatten_dict(variables, sep="/")
        return number, {name: np.asarray(array).tobytes() for name, array in arrays.items()}

    expected, found = read(), 0
    for place in flipped(file, step):
        try:
            assert read() == expected, f"{file}: a bit of byte {place} changes what is read"
        except InputError:
            found += 1
    return found
