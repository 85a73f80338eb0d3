"""The sbatch file: what Slurm is asked for, and what its shell makes of names."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fixres.cli.main import main

DATA = ["--data.uri", "synthetic:classes=3,images=48,size=48"]
CPU = ["--gpus-per-node", "0", "--tasks-per-node", "2"]


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder a test is in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dry_run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["slurm", *DATA, *words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    return text


def options(text: str) -> dict[str, str]:
    """Return the #SBATCH options, quotes taken off as sbatch does."""
    found = re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE)
    return {name: "".join(shlex.split(value)) for name, value in found}


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["slurm", *words]) == 2
    assert not list(Path.cwd().rglob("*.sbatch"))
    return capsys.readouterr().err


def test_a_gpu_job_asks_for_one_task_per_gpu(capsys: pytest.CaptureFixture[str], at_home: Path) -> None:
    text = dry_run(capsys, "--nodes", "2", "--gpus-per-node", "4", "--time", "12:00:00", "--cpus-per-task", "8")
    assert options(text) == {
        "job-name": "run-resnet18-224",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gres": "gpu:4",
        "cpus-per-task": "8",
        "time": "12:00:00",
        "chdir": str(at_home),
        "output": f"{at_home}/runs/run-resnet18-224/slurm-%j.out",
        "open-mode": "append",
        "requeue": "",
        "signal": "USR1@120",
    }
    # The job's cores are not srun's, and the shell is not told of the signal: B: would keep it from the tasks.
    assert re.search(r"^srun .*--cpus-per-task=8", text, re.MULTILINE)
    assert "torchrun" not in text
    assert not list(at_home.iterdir())


def test_a_cpu_job_asks_for_no_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    found = options(dry_run(capsys, *CPU))
    assert "gres" not in found
    assert found["ntasks-per-node"] == "2"


def test_what_the_cluster_wants_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--partition", "a100", "--account", "lab", "--mem", "64G", "--name", "my job", "--signal-seconds", "300"]
    text = dry_run(
        capsys, "--gpus-per-node", "8", "--gres", "npu", *words, "--setup", "module load cann\nulimit -n 9999"
    )
    found = options(text)
    assert (found["partition"], found["account"], found["mem"]) == ("a100", "lab", "64G")
    assert (found["job-name"], found["signal"], found["gres"]) == ("my job", "USR1@300", "npu:8")
    assert text.index("module load cann\nulimit -n 9999\n") < text.index("srun ")


def words_of_srun(text: str, folder: Path) -> list[str]:
    """Run the file with an srun that notes its words, and return those from Python on."""
    fake = folder / "bin"
    fake.mkdir()
    (fake / "srun").write_text('#!/bin/sh\nprintf "%s\\0" "$@" > srun.words\n')
    (fake / "srun").chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake}:{os.environ['PATH']}"}
    subprocess.run(["bash"], input=text, text=True, check=True, cwd=folder, env=environment)
    words = (folder / "srun.words").read_text().split("\0")[:-1]
    return words[words.index(sys.executable) :]


def test_the_command_arrives_word_for_word(capsys: pytest.CaptureFixture[str], at_home: Path) -> None:
    recipe = at_home / "my 'own' $recipe.yaml"
    recipe.write_text("data: {uri: 'synthetic:classes=3,images=48,size=48'}\n")
    run = at_home / 'a "run" & more'
    words = ["--evaluation.sizes", "64", "96", "--optim.lr=1e-3", "--model.kwargs.drop_rate", "0.1", "--verbose"]
    text = dry_run(capsys, str(recipe), *CPU, "--out", str(run), *words)
    assert words_of_srun(text, at_home) == [
        *(sys.executable, "-m", "fixres", "train", str(recipe)),
        *("--data.uri", DATA[1], "--evaluation.sizes", "64", "96", "--optim.lr", "1e-3"),
        *("--model.kwargs.drop_rate", "0.1", "--out", str(run), "--resume", "--verbose"),
    ]


@pytest.mark.parametrize("name", ["a b", "it's", 'say "x"', "50%", "$HOME", "#1", "a;b", "ünï"])
def test_folders_with_odd_names(name: str, capsys: pytest.CaptureFixture[str], at_home: Path) -> None:
    text = dry_run(capsys, *CPU, "--out", str(at_home / name))
    found = options(text)
    assert found["output"] == f"{at_home}/{name}/slurm-%j.out".replace(f"{name}", name.replace("%", "%%"))
    assert found["job-name"] == name
    assert words_of_srun(text, at_home)[-2] == str(at_home / name)


@pytest.mark.parametrize("value", ["-1", ""])
def test_values_that_look_like_nothing_stay_with_their_key(
    value: str, capsys: pytest.CaptureFixture[str], at_home: Path
) -> None:
    text = dry_run(capsys, *CPU, f"--model.kwargs.x={value}")
    assert f"--model.kwargs.x={value}" in words_of_srun(text, at_home)


@pytest.mark.parametrize(("code", "is_requeued"), [(0, False), (1, False), (2, False), (75, True), (138, True)])
def test_the_exit_code_decides_about_the_queue(
    code: int, is_requeued: bool, capsys: pytest.CaptureFixture[str], at_home: Path
) -> None:
    text = dry_run(capsys, *CPU)
    for name, body in {"srun": f"exit {code}", "scontrol": 'echo "$@" > scontrol.words'}.items():
        (at_home / name).write_text(f"#!/bin/sh\n{body}\n")
        (at_home / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{at_home}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    done = subprocess.run(["bash"], input=text, text=True, check=False, env=environment, capture_output=True)
    assert done.returncode == code
    noted = at_home / "scontrol.words"
    assert (noted.read_text() if noted.exists() else "") == ("requeue 17\n" if is_requeued else "")


def test_the_file_is_written_and_the_next_words_are_said(capsys: pytest.CaptureFixture[str], at_home: Path) -> None:
    assert main(["slurm", *DATA, *CPU, "--out", "runs/my run"]) == 0
    file = at_home / "runs" / "my run" / "job.sbatch"
    said = capsys.readouterr().err
    assert "holds no checkpoint" in said
    assert f"sbatch '{file}'" in said
    checkpoint = file.parent / "checkpoints" / "last.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert main(["slurm", *DATA, *CPU, "--out", "runs/my run"]) == 0
    assert "goes on from the run's last checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "how many GPUs has a machine?\n  --gpus-per-node 4"),
        (["--gpus-per-node", "2", "--tasks-per-node", "1"], "there is one process per GPU"),
        (["--gpus-per-node", "-1"], "--gpus-per-node: expected"),
        (["--gpus-per-node", "1", "--time", "soon"], "--time: expected something like 12:00:00"),
        (["--gpus-per-node", "1", "--mem", "much"], "--mem: expected something like 64G, got 'much'"),
        (["--gpus-per-node", "1", "--gres", "gpu:a:3:4"], "--gres: expected something like gpu"),
        (["--gpus-per-node", "1", "--node", "2"], "unknown option '--node' - did you mean '--nodes'?"),
        (["--gpus-per-node", "1", "--train.epoch", "2"], "train.epochs"),
        (["--gpus-per-node", "1", "--train.epochs", "0"], "train.epochs"),
        (["--gpus-per-node", "1", "--submit", "--dry-run"], "--submit and --dry-run contradict"),
        (["--gpus-per-node", "8", "--train.batch_size", "4"], "by 8 processes\n  use 8 or 16"),
        (["--nodes", "3", *CPU, "--train.batch_size", "64"], "64 cannot be shared by 6 processes\n  use 60 or 66"),
        (["--gpus-per-node", "1", "--out", "a\\b"], r"Slurm cannot be given the folder"),
        (["--gpus-per-node", "1", "--name", "two\nlines"], "--name: expected a name"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, *DATA, *words)


def test_a_login_node_need_not_import_torch(at_home: Path) -> None:
    probe = (
        "import sys, fixres.cli.main as c; rc = c.main(sys.argv[1:]); sys.exit(99 if 'torch' in sys.modules else rc)"
    )
    words = ["slurm", *DATA, *CPU, "--out", str(at_home / "r")]
    assert subprocess.run([sys.executable, "-c", probe, *words], check=False).returncode == 0


def test_a_recipe_that_is_wrong_is_found_on_the_login_node(capsys: pytest.CaptureFixture[str], at_home: Path) -> None:
    (at_home / "my.yaml").write_text("data: {uri: photos}\ntrian: {size: 96}\n")
    assert "did you mean 'train'" in refusal(capsys, "my.yaml", "--gpus-per-node", "1")


def fake_sbatch(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sbatch").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_submitting(capsys: pytest.CaptureFixture[str], at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_sbatch(at_home, 'echo "Submitted batch job 7: $1"', monkeypatch)
    assert main(["slurm", *DATA, *CPU, "--out", "r", "--submit"]) == 0
    assert f"Submitted batch job 7: {at_home}/r/job.sbatch" in capsys.readouterr().err


def test_a_job_that_is_refused_says_why(
    capsys: pytest.CaptureFixture[str], at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_sbatch(at_home, 'echo "sbatch: error: invalid partition" >&2; exit 1', monkeypatch)
    assert main(["slurm", *DATA, *CPU, "--out", "r", "--submit"]) == 2
    assert "sbatch refused: sbatch: error: invalid partition" in capsys.readouterr().err


def test_a_machine_without_slurm(
    capsys: pytest.CaptureFixture[str], at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(at_home))
    assert shutil.which("sbatch") is None
    assert main(["slurm", *DATA, *CPU, "--out", "r", "--submit"]) == 2
    assert "this machine has no sbatch" in capsys.readouterr().err
    assert (at_home / "r" / "job.sbatch").exists()


def test_the_help_lists_the_options_of_slurm_and_the_keys_of_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slurm", "elpv-demo", "--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--gpus-per-node", "--signal-seconds", "--train.epochs", "--dry-run"):
        assert word in text
