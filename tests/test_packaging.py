"""What is installed is what is in the repository, and works far away from it; configurations by their names."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
import runs

from lungjax import main
from lungjax.errors import InputError

ROOT = runs.ROOT


def tracked() -> list[str]:
    """Files of the repository, those not yet committed too."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git repository: nobody can tell its files from others")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_a_name_is_the_path_of_its_file():
    segment = str(ROOT / "configs" / "segment.py")
    for given, wanted in (
        (["--config=segment"], [f"--config={segment}"]),
        (["--config=segment:quick", "--workdir=w"], [f"--config={segment}:quick", "--workdir=w"]),
        (["--config", "segment:quick"], ["--config", f"{segment}:quick"]),
        ([f"--config={segment}:quick"], [f"--config={segment}:quick"]),
        (["--config.steps=3", "--workdir", "segment"], ["--config.steps=3", "--workdir", "segment"]),
    ):
        assert main.with_paths(["main", *given]) == ["main", *wanted]


@pytest.mark.parametrize("mistaken", ["segmnt:quick", "configs/segmnt.py:quick", ""])
def test_a_mistaken_name_lists_the_configurations(mistaken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="use one of classify, diagnose, segment, sift, simclr, or the path of a file"):
        main.with_paths(["main", f"--config={mistaken}"])


def test_every_configuration_has_a_name():
    assert list(main.config_files()) == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, made from a copy of the repository's own files, without network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    code = (
        f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r}); build_meta.build_wheel({str(out)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_whole_package(built: Path):
    wanted = {name for name in tracked() if name.startswith("lungjax/")}
    wanted |= {f"lungjax/{name}" for name in tracked() if name.startswith("configs/") and name.endswith(".py")}
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert {name for name in file.namelist() if ".dist-info/" not in name} == wanted
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    assert {name for name in tracked() if name.startswith("lungjax/")} <= held
    assert {"setup.py", "pyproject.toml", "configs/segment.py", "README.md", "LICENSE"} <= held
    assert not [name for name in held if name.startswith("tests")]


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment's programs: lungjax from the wheel, what it needs from this very environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    (wheel,) = built.glob("*.whl")
    command = [programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = subprocess.run(
        [programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    # A path file's own path files are not read: lungjax, which is installed there for development, is not seen.
    (Path(site.stdout.strip()) / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def run(installed: Path, cwd: Path, *command: str) -> str:
    env = {name: value for name, value in runs.environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed / command[0], *command[1:]],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_works_far_from_the_repository(installed: Path, phantom_dataset: Path, tmp_path: Path):
    where = run(installed, tmp_path, "python", "-c", "import lungjax; print(lungjax.__file__)").strip()
    assert Path(where).is_relative_to(installed.parent)
    assert "predict" in run(installed, tmp_path, "lungjax", "--help")
    told = run(installed, tmp_path, "lungjax", "doctor", str(phantom_dataset.parent / "dicom"))
    assert "2 scans" in told
    steps = ("--config.steps=10", "--config.eval_every=10", "--config.checkpoint_every=10", "--config.log_every=1")
    arguments = ("--config=segment:quick", "--workdir=run", *steps)
    run(installed, tmp_path, "python", "-m", "lungjax.main", *arguments)
    assert runs.logged_steps(tmp_path / "run")[-1] == 10
    assert (tmp_path / "run" / "checkpoints" / "10").is_dir()
