"""What the scripts for clusters would run, and that shell scripts are sound."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAGS = ("--config=segment", "--workdir=/shared/a b", "--config.data.path=/shared/lidc")


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHON": "/env/bin/python"}
    return subprocess.run(["bash", ROOT / "scripts" / script, *arguments], env=env, capture_output=True, text=True)


def test_slurm_gets_a_task_for_each_gpu():
    done = run("slurm.sh", "--nodes", "2", "--gpus", "4", "--time", "1:00:00", "--qos=a", "--dry-run", "--", *FLAGS)
    assert done.returncode == 0, done.stderr
    first, *options, command = done.stdout.splitlines()
    assert first == "#!/usr/bin/env bash"
    assert [line.removeprefix("#SBATCH ") for line in options] == [
        "--job-name=lungjax",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=8",
        "--time=1:00:00",
        "--signal=TERM@120",
        "--qos=a",
    ]
    wanted = ["srun", "/env/bin/python", "-m", "lungjax.main", *FLAGS, "--coordinator=auto"]
    assert shlex.split(command) == wanted


def test_slurm_is_handed_the_job(tmp_path: Path):
    (tmp_path / "sbatch").write_text("#!/usr/bin/env bash\ncat\n")
    (tmp_path / "sbatch").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    command = ["bash", ROOT / "scripts" / "slurm.sh", "--", *FLAGS]
    done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == run("slurm.sh", "--dry-run", "--", *FLAGS).stdout.replace(
        "/env/bin/python", str(ROOT / ".venv/bin/python")
    )


def test_every_host_of_a_tpu_runs_the_command():
    done = run("tpu_vm.sh", "v5e", "--zone", "z-1", "--folder", "a folder", "--dry-run", "--", *FLAGS)
    assert done.returncode == 0, done.stderr
    *gcloud, remote = shlex.split(done.stdout)
    assert gcloud == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "v5e", "--zone", "z-1", "--worker=all"]
    assert shlex.split(remote.removeprefix("--command=")) == [
        *("cd", "a folder", "&&", ".venv/bin/python", "-m", "lungjax.main", *FLAGS, "--coordinator=auto")
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("slurm.sh",), "the flags of lungjax.main are missing after --"),
        (("slurm.sh", "--nodes"), "--nodes needs a value"),
        (("slurm.sh", "--nodes", "two", "--", "--config=segment"), "two is no number"),
        (("slurm.sh", "segment", "--", "--config=segment"), "segment is no option"),
        (("tpu_vm.sh", "--zone", "z", "--", "--config=segment"), "the TPU's name is missing"),
        (("tpu_vm.sh", "v5e", "--", "--config=segment"), "--zone is missing"),
        (("tpu_vm.sh", "v5e", "--zone", "z"), "the flags of lungjax.main are missing after --"),
    ],
)
def test_mistakes(arguments: tuple[str, ...], says: str):
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "--help" in done.stderr


@pytest.mark.parametrize("script", ["slurm.sh", "tpu_vm.sh"])
def test_help_says_how(script: str):
    done = run(script, "--help")
    assert done.returncode == 0
    assert f"bash scripts/{script}" in done.stdout
    assert "#" not in done.stdout


def test_shell_scripts_are_sound():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not on PATH: the shell scripts are not checked")
    scripts = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"]
    assert len(scripts) > 5
    done = subprocess.run(["shellcheck", "-x", "-P", "SCRIPTDIR", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
