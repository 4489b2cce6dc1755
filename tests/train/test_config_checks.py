"""A configuration's mistakes are one sentence each, told before data are read or made."""

from __future__ import annotations

import sys
from pathlib import Path

import ml_collections
import pytest
import runs

from lungjax import platforms
from lungjax.errors import InputError
from lungjax.train import config_checks, loop


def config_with(**choices: object) -> ml_collections.ConfigDict:
    config = runs.load_config("segment")
    with config.unlocked(), config.ignore_type():
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in choices.items()})
    return config


@pytest.mark.parametrize("name", ["segment", "simclr", "classify", "sift", "diagnose"])
def test_our_own_configurations_pass(name: str):
    for config in (runs.load_config(name), runs.load(runs.ROOT / "configs" / f"{name}.py").get_config()):
        loop.check_config(config)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"seed": -1}, r"config.seed is -1; it must be at least 0\."),
        ({"seed": 2**32}, r"config.seed is 4294967296; it must be at most 4294967295\."),
        ({"steps": 0}, r"config.steps is 0; it must be at least 1\."),
        ({"data__batch_size": 1}, r"config.data.batch_size is 1; it must be at least 2\."),
        ({"data__workers": -2}, r"config.data.workers is -2; it must be at least 0\."),
        ({"data__slices": "lungs"}, r"config.data.slices is 'lungs'; use one of all, lung, nodule, rated\."),
        ({"data__crop_at": "x"}, r"config.data.crop_at is 'x'; use one of nodule, lung, random\."),
        ({"data__train_share": 0.0}, r"config.data.train_share is 0.0; it must be above 0\."),
        ({"data__train_share": 1.5}, r"config.data.train_share is 1.5; it must be at most 1\."),
        ({"average_decay": 1.0}, r"config.average_decay is 1.0; it must be below 1\."),
        ({"optimizer__learning_rate": float("nan")}, r"config.optimizer.learning_rate is nan; it must be a finite"),
        ({"optimizer__learning_rate": 0.0}, r"config.optimizer.learning_rate is 0.0; it must be above 0\."),
        ({"optimizer__weight_decay": -0.1}, r"config.optimizer.weight_decay is -0.1; it must be at least 0\."),
        ({"optimizer__name": "sgd"}, r"config.optimizer.name is 'sgd'; use 'adamw' or 'lars'\."),
        ({"augment__noise": float("inf")}, r"config.augment.noise is inf; it must be a finite number\."),
        ({"augment__window_hu": (-600.0, 0.0)}, r"config.augment.window_hu .* a centre, and a width above 0\."),
        ({"augment__window_hu": (-600.0,)}, r"config.augment.window_hu .* a centre, and a width above 0\."),
        ({"model__encoder__width": 0}, r"config.model.encoder.width is 0; it must be at least 1\."),
        ({"model__decoder": (8, 8)}, r"the configuration cannot be used: widths has 2 levels"),
        ({"model__encoder__norm": "x"}, r"norm is 'x'; use 'group' or 'batch'"),
        ({"compute_dtype": "float3"}, r"data type 'float3' not understood"),
        ({"mesh__parameters": "x"}, r"config.mesh.parameters is 'x'; use one of replicated, sharded\."),
        ({"targets": "x"}, r"config.targets is 'x'; use one of"),
        ({"task": "x"}, r"config.task is 'x'; use one of"),
        ({"data__crop_px": 97}, r"The image is 97x97 px; both must be multiples of"),
        ({"data__crop_px": 2**20}, r"the images of a batch of 16 take .* GiB, and this computer has .* lower config"),
        ({"data__batch_size": 2**40}, r"the images of a batch of 1099511627776 take"),
    ],
)
def test_a_value_that_cannot_be_is_told(choices: dict[str, object], sentence: str):
    with pytest.raises(InputError, match=sentence) as told:
        loop.check_config(config_with(**choices))
    assert "\n" not in str(told.value)


def test_a_batch_that_needs_more_than_the_memory_there_is(monkeypatch: pytest.MonkeyPatch):
    config = config_with(data__batch_size=4)
    monkeypatch.setattr(platforms, "memory_bytes", lambda: 4000)
    config_checks.check_memory(1000, config)
    with pytest.raises(InputError, match=r"lower config\.data\.batch_size or config\.data\.crop_px"):
        config_checks.check_memory(1001, config)
    config_checks.check_memory(2000, config, processes=2)
    monkeypatch.setattr(platforms, "memory_bytes", lambda: None)
    config_checks.check_memory(2**60, config)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may not say")
def test_this_computer_has_memory():
    assert 2**28 < (platforms.memory_bytes() or 0) < 2**50


DEFAULT = ml_collections.ConfigDict(
    {"steps": 4, "rate": 0.5, "on": True, "text": "", "model": {"decoder": (8, 4), "window_hu": (-600.0, 1.5)}}
)


@pytest.mark.parametrize(
    "argument",
    [
        "--config.model.decoder=(1,2)",
        "--config.model.decoder=1,2",
        "--config.model.decoder=[1, 2]",
        "--config.model.window_hu=(1, 2)",
        "-config.steps=3",
        "--config.rate=1",
        "--config.rate=1e-3",
        "--config.on=False",
        "--config.text=",
        "--config.text=x=y",
        "--config=segment.py:quick",
        "--workdir=config.nothing=3",
    ],
)
def test_a_value_of_the_right_type_passes(argument: str):
    config_checks.check_overrides(["main", argument], DEFAULT)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.model.decoder=64"], r"it must be whole numbers in brackets, as in \(8, 4\)\."),
        (["--config.model.decoder=(1.5, 2)"], "it must be whole numbers in brackets"),
        (["--config.model.decoder=(True, 2)"], "it must be whole numbers in brackets"),
        (["--config.model.decoder=()"], "it must be whole numbers in brackets"),
        (["--config.model.decoder=None"], "it must be whole numbers in brackets"),
        (["--config.model.decoder=(1,"], "it must be whole numbers in brackets"),
        (["--config.model.decoder", "64"], "it must be whole numbers in brackets"),
        (["--config.model.window_hu=('a', 2)"], "it must be numbers in brackets"),
        (["--config.steps=2.5"], r"--config.steps=2.5: it must be a whole number, as 4\."),
        (["--config.steps=None"], "it must be a whole number"),
        (["--config.rate=fast"], r"it must be a number, as 0\.5\."),
        (["--config.text=None"], "the value is text; leave it empty, --config.text=, for nothing"),
        (["--config.text", "None"], "the value is text"),
        (["--config.model.decodr=(1,)"], r"there is no such key; did you mean config.model.decoder\?"),
        (["--config.zzzzzz=1"], "there is no such key; see the configuration's file for its keys"),
        (["--config.model=1"], r"holds several values; set one of them, as"),
    ],
)
def test_a_value_of_the_wrong_type_is_told(arguments: list[str], sentence: str):
    with pytest.raises(InputError, match=sentence):
        config_checks.check_overrides(["main", *arguments], DEFAULT)


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        ([], {"JAX_PLATFORMS": "cuda"}, "JAX finds no device for JAX_PLATFORMS=cuda; unset it"),
        ([], {"JAX_PLATFORMS": "nonsense"}, "JAX finds no device for JAX_PLATFORMS=nonsense; unset it"),
        (["--config.seed=-1"], {}, "config.seed is -1; it must be at least 0."),
        (["--config.init_from=None"], {}, "--config.init_from=None: the value is text"),
        (["--workdir=gs://bucket/run"], {}, "gs://bucket/run is an address; mount the bucket"),
        (["--config.data.path=s3://bucket/data"], {}, "s3://bucket/data is an address; mount the bucket"),
        (["--config.data.path=~/no such folder"], {"HOME": "/home/somebody"}, "/home/somebody/no such folder: no such"),
        (["--config.data.crop_px=16000000"], {}, "the images of a batch of 16 take"),
        (["--wrkdir=x"], {}, "Unknown command line flag 'wrkdir'. Did you mean: workdir?; see --help."),
    ],
)
def test_the_command_ends_with_one_sentence(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], sentence: str
):
    command = [sys.executable, "-m", "lungjax.main", "--config=segment:quick", f"--workdir={tmp_path / 'run'}"]
    done = runs.run([*command, *arguments], {**runs.environment(), **environment})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("lungjax: error: ")
    assert sentence in line
    assert list(tmp_path.iterdir()) == []
    assert not (runs.ROOT / "gs:").exists()
