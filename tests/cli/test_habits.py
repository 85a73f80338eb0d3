"""What people type by habit is refused with one line to paste, which keeps the rest and is then understood."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from fixres.cli.main import main
from fixres.cli.parse import TrainOptions, parse_recipe, retyped


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with pictures, a table, a recipe and a run."""
    monkeypatch.chdir(tmp_path)
    for cls in "ab":
        (tmp_path / "my photos" / cls).mkdir(parents=True)
        (tmp_path / "photos" / cls).mkdir(parents=True)
        Image.new("RGB", (4, 3)).save(tmp_path / "photos" / cls / "0.png")
    Path("labels.csv").write_text("path,label\n")
    Path("my.yaml").write_text("data: {uri: photos}\n")
    Path("run").mkdir()
    Path("run/recipe.yaml").write_text("")


def pasted(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """Return the line to paste that a command line is answered with."""
    assert main(shlex.split(line)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = [text for text in err.splitlines() if text.startswith("  fixres ")]
    assert len(lines) == 1, err
    return lines[0].strip()


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("photos", "train photos"),
        ("'my photos' --out r", "train 'my photos' --out r"),
        ("photos --epochs 3 --lr 0.01", "train photos --train.epochs 3 --train.lr 0.01"),
        ("csv:labels.csv", "train csv:labels.csv"),
        ("labels.csv --minutes 3", "train labels.csv --minutes 3"),
        ("synthetic:classes=3", "train synthetic:classes=3"),
        ("data=photos", "train photos"),
        ("--data photos", "train photos"),
        ("my.yaml --out r", "train my.yaml --out r"),
        ("elpv-demo", "train elpv-demo"),
        ("run", "eval run"),
        ("photos/a/0.png", "predict RUN photos/a/0.png"),
        ("train data=photos", "train photos"),
        ("train data.uri=photos --out r", "train photos --out r"),
        ("train --data photos", "train photos"),
        ("train --data photos --minutes 1 --models a,b", "train photos --minutes 1 --models a,b"),
        ("train --data-dir 'my photos' --quiet", "train 'my photos' --quiet"),
        ("train --data_path=photos", "train photos"),
        ("train --dataset photos --model resnet50", "train --data.uri photos --model.name resnet50"),
        ("train my.yaml --data photos", "train my.yaml --data.uri photos"),
        ("train my.yaml model=resnet50", "train my.yaml --model.name resnet50"),
        ("train my.yaml +train.lr=0.1 epochs=3", "train my.yaml --train.lr 0.1 --train.epochs 3"),
        ("train my.yaml --epochs 3 --seeds 2", "train my.yaml --train.epochs 3 --seeds 2"),
        ("train my.yaml --img-size 224", "train my.yaml --train.size 224"),
        ("train my.yaml --batch-size 32", "train my.yaml --train.batch_size 32"),
        ("train my.yaml -b 32 -j 4", "train my.yaml --train.batch_size 32 --data.workers 4"),
        ("train my.yaml --pretrained", "train my.yaml --model.weights pretrained"),
        ("train --pretrained my.yaml", "train my.yaml --model.weights pretrained"),
        ("train my.yaml --pretrained false", "train my.yaml --model.weights none"),
        ("train my.yaml --model timm:resnet18", "train my.yaml --model.weights timm:resnet18"),
        ("train my.yaml --initial-checkpoint w.pth", "train my.yaml --model.weights w.pth"),
        ("train my.yaml --opt adamw --sched cosine", "train my.yaml --optim.name adamw --schedule.name cosine"),
        ("train my.yaml --output r --ema", "train my.yaml --out r --ema.enabled true"),
        (
            "train my.yaml --wd 0.05 --smoothing 0.1",
            "train my.yaml --train.weight_decay 0.05 --train.label_smoothing 0.1",
        ),
        ("study my.yaml --seeds 0,1 --epochs 3", "study my.yaml --seeds 0,1 --train.epochs 3"),
        ("study photos --seeds 0,1", "study --data.uri photos --seeds 0,1"),
        ("eval photos", "eval RUN --data photos"),
        ("eval run photos", "eval run --data photos"),
        ("eval run photos --sizes 64,96", "eval run --data photos --sizes 64,96"),
        ("eval run --data.uri photos", "eval run --data photos"),
        ("eval run --data-dir photos --img-size 96", "eval run --data photos --sizes 96"),
        ("eval run data=photos", "eval run --data photos"),
        ("eval --ckpt run --data.uri photos", "eval run --data photos"),
        ("eval w.pth --model.name resnet18 --data photos", "eval w.pth --model resnet18 --data photos"),
        ("eval w.pth --arch resnet18 --workers 2", "eval w.pth --model resnet18 --workers 2"),
        ("fix run --size 96 --data.uri photos", "fix run --data photos --size 96"),
        ("fix photos --size 96", "fix RUN --data photos --size 96"),
        ("extract run --data.uri photos --out x", "extract run --data photos --out x"),
        ("extract photos --out x", "extract RUN --data photos --out x"),
        ("advise run --data.uri photos", "advise run --data photos"),
        ("predict run --data photos", "predict run photos"),
        ("predict run photos --img-size 96 --topk 3", "predict run photos --size 96 --top-k 3"),
        ("predict photos", "predict RUN photos"),
        ("export run --data.uri photos --out m.onnx", "export run --data photos --out m.onnx"),
    ],
)
def test_the_line_to_paste_keeps_the_rest(typed: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = pasted(capsys, typed)
    assert found == f"fixres {line}"
    command, *words = shlex.split(found)[1:]
    # What is pasted is no habit any more; `train PICTURES` is a command line of its own.
    if command == "train" and ("--data.uri" in words or words[0].endswith(".yaml")):
        assert parse_recipe(words, TrainOptions)
    assert retyped(words) == "" or command != "train" or words[0] in ("photos", "my photos", "labels.csv")


@pytest.mark.parametrize(
    "typed",
    [
        "train my.yaml --train.sie 3",
        "train my.yaml --epochs 3 --num-tasks 8",
        "train --epochs 3",
        "train photoz",
        "train my.yaml other.yaml",
        "train my.yaml --resume=maybe",
        "eval run --sizs 3",
        "eval run --sizes x",
        "eval",
        "trian",
        "photoz",
    ],
)
def test_what_is_not_understood_whole_has_no_line(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(typed)) == 2
    assert not [text for text in capsys.readouterr().err.splitlines() if text.startswith("  fixres ")]


def test_a_folder_called_as_a_command_is_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").mkdir()
    main(["data"])
    assert "names pictures" not in capsys.readouterr().err
    Path("trian").mkdir()
    assert pasted(capsys, "trian") == "fixres train trian"
