"""Every command of the migration page runs, on miniature archives that go through `data prepare`."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import resnext50_32x4d

from fixres.cli.main import main
from fixres.config.loading import list_recipes, load
from fixres.config.messages import find_field
from fixres.data.prepare.known_sets import SETS
from fixres.runtime.run_folder import read_events
from tests.support import archive_makers as made
from tests.support.miniature import as_words, miniature, save_weights

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
SCRIPTS = ROOT / "scripts"
ARCHIVES = {
    "imagenet": (made.imagenet, {"train": 12, "val": 6}, 3),
    "tiny-imagenet-200": (made.tiny_imagenet, {"train": 9, "val": 4}, 3),
    "cub-200-2011": (made.cub, {"train": 3, "test": 3}, 2),
    "stanford-cars": (made.cars_one_archive, {"train": 3, "test": 2}, 2),
    "cifar10": (made.cifar10, {"train": 20, "test": 4}, 4),
}


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with archives/NAME of every set, and make it the folder we are in."""
    monkeypatch.setattr("os.sync", lambda: None)
    for name, (make, counts, num_classes) in ARCHIVES.items():
        files = make()
        made.write_all(tmp_path / "archives" / name, files)
        sources = {
            key: dataclasses.replace(file, md5=made.md5(files[file.names[0]]) if file.names[0] in files else file.md5)
            for key, file in SETS[name].files.items()
        }
        small = dataclasses.replace(SETS[name], files=sources, counts=counts, num_classes=num_classes)
        monkeypatch.setitem(SETS, name, small)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_their_files(folder: Path) -> None:
    """Write files in the layouts of the four systems."""
    fixres = load("fixres/resnet50-224-fix384-v1")
    assert fixres.model.name == "resnet50"
    save_weights("fixres/resnet50-224", 3, folder / "flat.pth")
    state = torch.load(folder / "flat.pth")
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 119}, folder / "checkpoint.pth")
    torch.save({"epoch": 10, "state_dict": resnext50_32x4d(num_classes=3).state_dict()}, folder / "epoch_10.pth.tar")
    save_weights("simple/cub-resnet50", 1000, folder / "resnet50_inet_torch_sota.pth")
    save_weights("simple/cub-resnet50", 2, folder / "best_acc_net_ema.pth")
    body = {k: v for k, v in state.items() if not k.startswith("fc.")}
    heads = {"fc.0.weight": torch.zeros(4, 4), "fc.0.bias": torch.zeros(4), "fc.2.weight": torch.zeros(2, 4)}
    moco = {f"module.encoder_q.{k}": v for k, v in (body | heads | {"fc.2.bias": torch.zeros(2)}).items()}
    moco["module.queue"] = torch.zeros(2, 4)
    torch.save({"epoch": 800, "state_dict": moco}, folder / "resnet50_inet_moco_v2_800ep.pth")
    Image.new("RGB", (40, 30), (90, 120, 60)).save(folder / "tench.jpg")


def small(words: list[str]) -> list[str]:
    """Return a command of the page with what makes it short; the page's own words win."""
    if words[0] != "train":
        return words
    batch = 2 if words[1].startswith(("simple/cub", "simple/cars")) else 4
    changes = miniature(words[1], batch)
    if "--train.enabled" in words:
        changes = {key: value for key, value in changes.items() if not key.startswith("train.")}
    given = {word.removeprefix("--") for word in words}
    return [*words, *as_words({key: value for key, value in changes.items() if key not in given})]


@pytest.mark.system
@pytest.mark.timeout(1200)
def test_every_command_of_the_page_runs_on_miniature_archives(
    archives: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_their_files(archives)
    found = [words[1:] for words in commands() if words[0] == "fixres"]
    assert len(found) >= 15
    for words in found:
        if words[0] in ("eval", "extract"):
            words = [("64" if word == "384" else "32,64" if word == "224,448" else word) for word in words]
        assert main(small(words)) == 0, words
    events = read_events(archives / "runs" / "cub")
    assert [e["size"] for e in events if e["event"] == "stage_done"] == [32, 64]
    moved = next(e for e in read_events(archives / "runs" / "finetune") if e["event"] == "fix")["plan"]
    assert moved["moves"] == "head+stats"
    assert moved["tensors"][:2] == ["fc.bias", "fc.weight"]
    # The run is in miniature, so that it is no row of the table, and that is said.
    assert "no shipped recipe has these settings; nearest is resnext/resnext50-32x4d" in capsys.readouterr().out


def test_every_row_that_opens_a_bare_file_says_which_program_feeds_it() -> None:
    opened = [words for words in commands() if words[1] in ("eval", "extract", "predict")]
    bare = [words for words in opened if words[2].partition("#")[0].endswith((".pth", ".pth.tar"))]
    assert {words[words.index("--fed-as") + 1] for words in bare} == {
        "fixres",
        "resnext-pytorch",
        "simpleclassification",
    }


def test_the_page_names_only_recipes_scripts_and_files_that_are_there() -> None:
    for name in re.findall(r"`?((?:fixres|resnext|simple|ascend|modern)/[\w-]+)(?=[ `])", PAGE):
        assert name in list_recipes() or (ROOT / "src" / name).exists(), name
    for script in re.findall(r"scripts/\w+/\w+\.sh", PAGE):
        assert (ROOT / script).is_file() or script == "scripts/preprocess_imagenet.sh", script


def test_every_setting_the_page_names_is_there() -> None:
    named = set(re.findall(r"--([a-z]+\.[a-z_]+)", PAGE))
    assert {"optim.base_lr", "fix.lr", "train.batch_size", "data.workers", "model.weights"} <= named
    assert not [key for key in named if find_field(key) is None]


# --- the scripts


def run_script(name: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **environment}
    command = ["bash", str(SCRIPTS / name), *words]
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False, timeout=280)


SHORT = [
    *("--model.name", "test_resnet", "--runtime.device", "cpu", "--runtime.precision", "fp32"),
    *("--data.workers", "0", "--output.tracker", "none"),
]
FEW = {
    "train": ["--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8", "--train.epoch_samples", "16"],
    "finetune": ["--fix.size", "48", "--fix.epochs", "1", "--fix.batch_size", "8"],
}


def test_the_scripts_are_those_of_the_port_and_say_what_they_lack(tmp_path: Path) -> None:
    cases = {f"{k}_{m}_{n}p" for k in ("train", "finetune") for m in ("full", "performance") for n in (1, 8)}
    names = {path.stem for path in (SCRIPTS / "ascend").glob("*.sh")}
    assert names == {*cases, "train_eval_8p", "env_npu", "common"}
    for case in sorted(cases):
        done = run_script(f"ascend/{case}.sh", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "where is ImageNet? --data_path=DIR" in done.stderr
    done = run_script("ascend/finetune_full_1p.sh", f"--data_path={tmp_path}", cwd=tmp_path)
    assert (done.returncode, "which weights? --pth_path=FILE" in done.stderr) == (2, True)
    done = run_script("ascend/train_eval_8p.sh", f"--data_path={tmp_path}", f"--pth_path={tmp_path}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"--pth_path: no weights (.pth, .pth.tar, .pt) in {tmp_path}\n")
    assert not list(tmp_path.iterdir())


def in_common(system: str, command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command after the functions that the scripts of a system share."""
    env = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = ["bash", "-c", f"source {shlex.quote(str(SCRIPTS / system / 'common.sh'))}; {command}"]
    return subprocess.run(words, cwd=cwd, env=env, text=True, capture_output=True, check=False, timeout=280)


@pytest.mark.parametrize(
    ("files", "given", "found"),
    [
        (["a.pth"], "a.pth", "a.pth"),
        (["a.pth"], "a.pth#raw", "a.pth#raw"),
        (["a.pth"], ".", "./a.pth"),
        (["checkpoint.pth", "model_best.pth", "epoch1.pth"], "./", "./model_best.pth"),
        (["20211028-114243/checkpoint.pth"], ".", "./20211028-114243/checkpoint.pth"),
        (["run/recipe.yaml", "run/model/config.json"], ".", "./run"),
        (["run/recipe.yaml", "run/model/config.json"], "run", "run"),
        (["model/config.json"], "model", "model"),
        (["my folder/a.pth.tar"], "my folder", "my folder/a.pth.tar"),
    ],
)
def test_pth_path_is_a_file_a_run_or_the_folder_of_the_weights(
    files: list[str], given: str, found: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    done = in_common("ascend", f"weights_of {shlex.quote(given)}", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{found}\n", "")


def test_pth_path_that_could_mean_several_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    done = in_common("ascend", "weights_of .", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--pth_path: . holds 2 weights files, name one: ./a.pth ./b.pth\n"


@pytest.mark.system
def test_scripts_that_share_a_folder_skip_finished_runs_and_go_on_with_others(photos: Path, tmp_path: Path) -> None:
    words = ["--data.uri", f"folder:{photos}", "--model.weights", "none", *SHORT, "--train.size", "32"]
    words += ["--train.epochs", "1", "--schedule.warmup_epochs", "0", "--train.batch_size", "8"]

    def trained(names: str) -> str:
        done = in_common("simple", f"train_all {shlex.quote(names)} {shlex.join(words)}", tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stderr

    said = trained("cub-resnet18 cub-resnet18")
    assert said.startswith("start: out/cub-resnet18 holds no checkpoint, so from the beginning")
    assert "out/cub-resnet18 holds this run, finished: nothing is left to do" in said
    assert len([e for e in read_events(tmp_path / "out" / "cub-resnet18") if e["event"] == "done"]) == 1
    (tmp_path / "out" / "cub-resnet18" / "status.json").unlink()
    assert "start: from the checkpoint at step" in trained("cub-resnet18")


@pytest.mark.system
def test_a_mistake_on_several_processes_is_the_last_word_of_a_script(photos: Path, tmp_path: Path) -> None:
    words = [f"--data_path={photos}", *SHORT, "--train.epochz", "2"]
    done = run_script("ascend/train_full_8p.sh", *words, cwd=tmp_path, NPROC="2")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(
        "fixres: unknown option '--train.epochz' - did you mean '--train.epochs'?\n"
        "  'fixres train --help' lists the flags\n"
    )
    assert (tmp_path / "output" / "0" / "train_full_8p" / "train.log").read_text() in done.stderr


@pytest.mark.system
@pytest.mark.parametrize(("mode", "devices"), [("full", 1), ("full", 8), ("performance", 1), ("performance", 8)])
def test_the_scripts_train_fix_and_evaluate(mode: str, devices: int, photos: Path, tmp_path: Path) -> None:
    folder = {"NPROC": "2"}
    for kind, done_word in (("train", "Train"), ("finetune", "Finetune")):
        case = f"{kind}_{mode}_{devices}p"
        words = [f"--data_path={photos}", *SHORT, *FEW[kind]]
        words += ["--device_id=3"] if devices == 1 else ["--workers=0"]
        if kind == "finetune":
            trained = tmp_path / "output" / ("3" if devices == 1 else "0") / f"train_{mode}_{devices}p"
            words.append(f"--pth_path={trained}")
        done = run_script(f"ascend/{case}.sh", *words, cwd=tmp_path, **folder)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = done.stdout.splitlines()[-3:]
        doing = "Training" if kind == "train" else "Finetuning"
        patterns = ("Final Performance images/sec : ", f"Final {done_word} Accuracy : ", f"E2E {doing} Duration sec : ")
        for line, start in zip(lines, patterns, strict=True):
            assert re.fullmatch(re.escape(start) + r"[\d.]+", line)
        output = tmp_path / "output" / ("3" if devices == 1 else "0") / case
        (log,) = output.glob("FixRes_for_PyTorch_*.log")
        processes = min(devices, 2)
        assert log.stem == f"FixRes_for_PyTorch_bs8_{processes}p_{'acc' if mode == 'full' else 'perf'}"
        keys = dict(line.split(" = ") for line in log.read_text().splitlines())
        assert list(keys) == [
            *("Network", "RankSize", "BatchSize", "DeviceType", "CaseName", "ActualFPS", f"{doing}Time"),
            *(f"{done_word}Accuracy", "ActualLoss", f"E2E{doing}Time"),
        ]
        assert (keys["CaseName"], keys["RankSize"], keys["BatchSize"]) == (log.stem, str(processes), "8")
        assert float(keys[f"{doing}Time"]) == pytest.approx(8 * 1000 / float(keys["ActualFPS"]), rel=1e-2)
    if mode == "full" and devices == 8:
        run = tmp_path / "output" / "0" / "finetune_full_8p"
        words = [f"--data_path={photos}", f"--pth_path={run}", "--workers", "0", "--device", "cpu"]
        done = run_script("ascend/train_eval_8p.sh", *words, cwd=tmp_path, **folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "384" in done.stderr
        assert re.fullmatch(r"Final Train Accuracy : [\d.]+\nE2E Training Duration sec : \d+\n", done.stdout)
        (log,) = (tmp_path / "output" / "0" / "train_eval_8p").glob("FixRes_for_PyTorch_bs*_2p_acc.log")
        keys = dict(line.split(" = ") for line in log.read_text().splitlines())
        assert list(keys) == [
            *("Network", "RankSize", "BatchSize", "DeviceType", "CaseName"),
            *("TrainAccuracy", "ActualLoss", "E2ETrainingTime"),
        ]
        assert (keys["RankSize"], keys["BatchSize"]) == ("2", log.stem.split("_bs")[1].split("_")[0])
