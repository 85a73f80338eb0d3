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
    assert not list(tmp_path.iterdir())


@pytest.mark.system
@pytest.mark.parametrize(("mode", "devices"), [("full", 1), ("full", 8), ("performance", 1), ("performance", 8)])
def test_the_scripts_train_fix_and_evaluate(mode: str, devices: int, photos: Path, tmp_path: Path) -> None:
    folder = {"NPROC": "2"}
    for kind, done_word in (("train", "Train"), ("finetune", "Finetune")):
        case = f"{kind}_{mode}_{devices}p"
        words = [f"--data_path={photos}", *SHORT, *FEW[kind]]
        words += ["--device_id=3"] if devices == 1 else ["--workers=0"]
        if kind == "finetune":
            trained = tmp_path / "output" / ("3" if devices == 1 else "0") / f"train_{mode}_{devices}p" / "run"
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
        assert log.stem == f"FixRes_for_PyTorch_bs{64 * devices}_{devices}p_{'acc' if mode == 'full' else 'perf'}"
        keys = dict(line.split(" = ") for line in log.read_text().splitlines())
        assert list(keys) == [
            *("Network", "RankSize", "BatchSize", "DeviceType", "CaseName", "ActualFPS", f"{doing}Time"),
            *(f"{done_word}Accuracy", "ActualLoss", f"E2E{doing}Time"),
        ]
        assert (keys["CaseName"], keys["RankSize"]) == (log.stem, str(devices))
    if mode == "full" and devices == 8:
        run = tmp_path / "output" / "0" / "finetune_full_8p" / "run"
        words = [f"--data_path={photos}", f"--pth_path={run}", "--workers", "0", "--device", "cpu"]
        done = run_script("ascend/train_eval_8p.sh", *words, cwd=tmp_path, **folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "384" in done.stderr
