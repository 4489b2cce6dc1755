"""Every verb that writes a folder or a file, with tiny inputs: what tests of full disks and of killed processes run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import chests
import flax.traverse_util
import networks
import nibabel
import numpy as np
import pytest
import runs
from preparing import contents

from lungjax import cli, main
from lungjax.train import checkpoint

NAMES = ("prepare", "predict", "train", "mine", "gather", "export")
MADE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
"""When a report was made."""
RATES = re.compile(rb', "(steps_per_s|images_per_s|data_wait_share)": [^,}]+')
"""How fast a training was."""
STEPS = 6


@dataclasses.dataclass(frozen=True)
class Verb:
    """A command with all that it reads.

    Attributes:
      name: of the verb.
      arguments: its arguments but the last.
      option: the last, which names the output.
      out: the name of the output.
    """

    name: str
    arguments: tuple[str, ...]
    option: str = "--out"
    out: str = "out"

    def command(self, folder: Path) -> list[str]:
        """The arguments of a command that writes into a folder."""
        return [self.name, *self.arguments, f"{self.option}={folder / self.out}"]

    def result(self, folder: Path) -> dict[str, bytes]:
        """What was written, by its path; without times, rates, and where it was written."""
        if self.name == "train":
            return dict(_trained(folder / self.out))
        return {name: MADE.sub(b"", content) for name, content in contents(folder).items()}


def some_verbs(*default: str, slow: Sequence[str]) -> Any:
    """Parametrizes a test by verbs: those that run by default, those of the slow tests, and the rest."""
    marks = dict.fromkeys(default, ()) | dict.fromkeys(slow, (pytest.mark.slow,))
    every = [pytest.param(name, marks=marks.get(name, (pytest.mark.exhaustive,))) for name in NAMES]
    return pytest.mark.parametrize("verb", every, indirect=True)


def run(arguments: list[str]) -> int:
    """Runs a command in this process; returns the exit code."""
    if arguments[0] != "train":
        return cli.main(arguments)
    # absl and ml_collections parse a process's own arguments, once.
    data, workdir = (argument.partition("=")[2] for argument in arguments[1:])
    config = runs.small_config("segment", Path(data))
    smaller = {"model.encoder.width": 4, "model.decoder": (4, 4, 4), "data.crop_px": 32, "log_every": 1}
    config.update_from_flattened_dict(
        {**smaller, "steps": STEPS, "eval_every": 3, "checkpoint_every": 2, "keep_checkpoints": 1}
    )
    flags = {"_CONFIG": config, "_WORKDIR": workdir, "_COORDINATOR": None, "_PROFILE": None}
    with contextlib.ExitStack() as patched:
        patched.enter_context(mock.patch.object(main, "_parse"))
        for name, value in flags.items():
            patched.enter_context(mock.patch.object(main, name, types.SimpleNamespace(value=value)))
        return main.main(["lungjax"])


def _trained(workdir: Path) -> Iterator[tuple[str, bytes]]:
    for name in ("config.json", "split.json", "calibration.json"):
        yield name, (workdir / name).read_bytes().replace(str(workdir).encode(), b"")
    yield "metrics", RATES.sub(b"", (workdir / "metrics.jsonl").read_bytes())
    variables, step = checkpoint.load_best(workdir)
    yield "step", str(step).encode()
    for name, array in flax.traverse_util.flatten_dict(variables, sep="/").items():
        yield name, np.asarray(array).tobytes()
    kept = sorted(path.name for path in (workdir / checkpoint.FOLDER).iterdir())
    yield "kept", json.dumps(kept).encode()


@pytest.fixture(scope="session")
def tiny_segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chests.export_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def two_chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases, NIfTI, with a nodule each."""
    folder = tmp_path_factory.mktemp("chests")
    for number in range(2):
        hu = chests.chest(balls=[((12 + 3 * number, 60, 38 + 54 * number), 8.0)])
        image = nibabel.Nifti1Image(hu.T, np.diag([-2.5, -2.5, 5.0, 1.0]))
        image.header.set_xyzt_units("mm")
        image.to_filename(folder / f"case-{number}.nii.gz")
    return folder


@pytest.fixture
def verb(request: pytest.FixtureRequest, kaggle_tree: Path, slices_dataset: Path, dicom: Path, tmp_path: Path) -> Verb:
    """The verb that the test is parametrised with, indirectly."""
    name, inputs = request.param, tmp_path / "inputs"
    inputs.mkdir()
    if name == "prepare":
        return Verb(name, ("--source", str(kaggle_tree), "--workers", "1"))
    if name == "train":
        return Verb(name, (f"--config.data.path={slices_dataset}",), "--workdir")
    if name == "export":
        return Verb(name, ("--model", str(networks.made("segment", inputs / "model"))))
    segmenter: Path = request.getfixturevalue("tiny_segmenter")
    if name == "mine":
        return Verb(name, ("--model", str(segmenter), "--data", str(slices_dataset)))
    if name == "predict":
        source: Path = request.getfixturevalue("two_chests")
        others = (("--nodule-classifier", "classify"), ("--patient-classifier", "diagnose"))
        models = [part for option, kind in others for part in (option, str(networks.made(kind, inputs / kind)))]
        given = (str(source), "--model", str(segmenter), "--candidate-classifier", "none", "--threshold", "0.5")
        return Verb(name, (*given, *models))
    request.getfixturevalue("told")
    chests.run(dicom, inputs / "predicted")
    return Verb(name, (str(inputs / "predicted"), "--source", str(dicom)), out="found.npz")
