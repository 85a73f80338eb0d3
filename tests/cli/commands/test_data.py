"""`fixres data ...` as a user types it: exit codes, streams, files; and the contact sheet against the loader."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import main
from fixres.config.recipe import Recipe
from fixres.data.collections import open_collection
from fixres.data.loader import Draw, ReadPolicy, train_batches
from fixres.data.transforms import evaluation_crop
from fixres.errors import UserError
from fixres.training import preview as preview_module
from fixres.training.initial_weights import starting_network
from fixres.training.preview import preview

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fixres(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


# --- the command and its sub-commands


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_the_sub_commands_are_listed(fixres: Run, words: tuple[str, ...]) -> None:
    code, out, _ = fixres("data", *words)
    assert code == 0
    for name in ("check", "stats", "preview", "split", "pack", "prepare", "download"):
        assert f"\n  {name} " in out


def test_a_mistyped_sub_command_is_answered(fixres: Run) -> None:
    code, out, err = fixres("data", "chek", "photos")
    assert (code, out) == (2, "")
    assert "did you mean 'check'?" in err


@pytest.mark.parametrize("name", ["check", "stats", "preview", "split", "pack", "prepare", "download"])
def test_help_explains_a_sub_command(fixres: Run, name: str) -> None:
    code, out, _ = fixres("data", name, "--help")
    assert code == 0
    assert out.startswith(f"usage: fixres data {name} ")
    assert fixres("help", "data")[0] == 0
    assert fixres("data", "help", name)[1] == out


def test_help_and_mistakes_load_no_torch() -> None:
    code = (
        "import sys; from fixres.cli.main import main\n"
        "codes = [main(['data']), main(['data', 'check', '--help']), main(['data', 'check', '--sizes', 'x', 'y'])]\n"
        "sys.exit(codes != [0, 0, 2] or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_option_may_be_called_like_a_word_of_python(fixres: Run, tmp_path: Path) -> None:
    code, _, err = fixres("data", "prepare", "cifar10", "--form", "x")
    assert code == 2
    assert "did you mean '--from'?" in err
    code, _, err = fixres("data", "prepare", "cifar10", "--from", tmp_path)
    assert code == 2
    assert err.startswith("fixres: --out is missing")


# --- check and stats


def test_check_says_0_when_there_is_nothing_wrong(fixres: Run, photos: Path) -> None:
    code, out, err = fixres("data", "check", photos, "--workers", 0, "--json", "found.json")
    assert (code, err) == (0, "")
    assert "0 errors" in out
    stored = json.loads(Path("found.json").read_text())
    assert stored["num_images"] == {"train": 24, "val": 10}
    assert stored["classes"] == ["blue", "red"]


def test_check_says_2_and_names_what_is_wrong(fixres: Run, photos: Path) -> None:
    (photos / "train" / "red" / "00.jpg").write_bytes(b"")
    shutil.copy(photos / "train" / "blue" / "03.jpg", photos / "val" / "blue" / "again.jpg")
    code, out, err = fixres("data", "check", photos, "--workers", 0)
    assert code == 2
    assert "train/red/00.jpg" in out
    assert "val: val/blue/again.jpg = train: train/blue/03.jpg" in out
    assert "1 empty, 1 leak" in err
    assert "Traceback" not in err


def test_warnings_alone_leave_0(fixres: Run, photos: Path) -> None:
    shutil.copy(photos / "train" / "blue" / "03.jpg", photos / "train" / "blue" / "again.jpg")
    code, out, err = fixres("data", "check", f"folder:{photos}", "--workers", 0, "--sizes", "64,96")
    assert (code, err) == (0, "")
    assert "0 errors, 1 warning\n" in out
    assert "short side" not in out, "matters of size are counted, not listed"


def test_json_on_stdout_is_all_there_is(fixres: Run, photos: Path) -> None:
    for name in ("check", "stats"):
        code, out, _ = fixres("data", name, photos, "--workers", 0, "--json", "-")
        assert code == 0
        assert json.loads(out)["data"] == f"folder:{photos}"
        assert fixres("data", name, photos, "--json", photos)[0] == 2


def test_a_path_that_no_terminal_can_print_is_escaped(fixres: Run, photos: Path) -> None:
    odd = photos / "train" / "red" / "a\udcffb\x1b[31m\n.jpg"
    odd.write_bytes(b"nothing")
    code, out, _ = fixres("data", "check", photos, "--workers", 0, "--json", "found.json")
    assert code == 2
    assert "a\\udcffb\\x1b[31m\\n.jpg" in out
    assert "\x1b" not in out
    assert json.loads(Path("found.json").read_text())["num_errors"] == 1


def test_stats_show_counts_and_what_follows(fixres: Run, photos: Path) -> None:
    code, out, err = fixres("data", "stats", photos, "--workers", 0, "--size", 32)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert any(line.split() == ["blue", "12", "5"] for line in lines)
    assert any(line.split() == ["pictures", "24", "10"] for line in lines)
    assert "short side resized to 32 px" in out
    assert "blue 1, red 1" in out


def write_table(root: Path, photos: Path, *more: str) -> Path:
    rows = [f"{path.relative_to(photos)},{path.parent.name},{path.parts[-3]}" for path in sorted(photos.rglob("*.jpg"))]
    table = root / "table.csv"
    table.write_text("\n".join(["path,label,split", *rows, *more]) + "\n")
    return table


def test_a_table_is_checked_like_a_folder(fixres: Run, photos: Path, tmp_path: Path) -> None:
    table = write_table(tmp_path, photos, "train/red/gone.jpg,red,train", "train/red/../red/00.jpg,green,val")
    uri = f"csv:{table}?root={photos}"
    code, _, err = fixres("data", "check", uri, "--workers", 0, "--json", "found.json")
    assert code == 2
    kinds = {entry["kind"]: entry for entry in json.loads(Path("found.json").read_text())["findings"]}
    assert kinds["unreadable"]["items"][0]["pictures"][0]["path"] == "train/red/gone.jpg"
    assert kinds["classes differ"]["items"][0]["detail"].startswith("val: green, 1 picture")
    assert {"leak", "conflicting labels"} <= set(kinds)
    assert "1 unreadable" in err
    assert fixres("data", "stats", uri, "--workers", 0)[0] == 0


# --- preview


def test_preview_draws_what_the_recipe_trains_on(fixres: Run, photos: Path) -> None:
    Path("my.yaml").write_text(f"data: {{uri: 'folder:{photos}'}}\nmodel: {{name: test_resnet}}\ntrain: {{size: 32}}\n")
    code, out, err = fixres("data", "preview", "--recipe", "my.yaml", "--out", "a.png", "--count", 2, "--sizes", 32, 48)
    assert (code, out) == (0, "a.png\n")
    assert "random crop at 32 px" in err
    with Image.open("a.png") as sheet:
        assert sheet.format == "PNG"
    first = Path("a.png").read_bytes()
    assert fixres("data", "preview", photos, "--recipe", "my.yaml", "--out", "a.png", "--count", 2, "--quiet")[0] == 0
    assert Path("a.png").read_bytes() != first, "without --sizes only the train size is drawn"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "a.jpg"), "--out a.png"),
        (("--out", "a.png"), "no data"),
        (("synthetic:classes=3", "--out", "a.png", "--sizes", "50000"), "sheet would have"),
        (("synthetic:classes=3", "--out", "a.png", "--recipe", "elpv-dmo"), "elpv-demo"),
    ],
)
def test_preview_refuses(fixres: Run, words: tuple[str, ...], said: str) -> None:
    code, _, err = fixres("data", "preview", *words)
    assert code == 2
    assert said in err
    assert not Path("a.png").exists()


@pytest.mark.parametrize(
    "augment",
    [
        {"policy": "jitter"},
        {"policy": "flip", "crop": "pad"},
        {"policy": "flip", "crop": "center"},
    ],
    ids=["one by one", "held in memory if square", "held in memory"],
)
def test_the_sheet_shows_the_very_pixels_of_training(
    make_recipe: Callable[..., Recipe], photos: Path, monkeypatch: pytest.MonkeyPatch, augment: dict[str, Any]
) -> None:
    recipe = make_recipe(data={"uri": str(photos)}, augment=augment, train={"size": 48, "epochs": 3, "batch_size": 8})
    drawn: dict[str, list[np.ndarray]] = {}

    def remember(rows: Any, cell: int) -> Image.Image:
        for caption, cells in rows:
            drawn[caption.split("   ")[2]] = [np.asarray(each.image) for each in cells[1:] if each.image is not None]
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("fixres.training.preview._sheet", remember)
    preview(recipe, sizes=(48, 96), count=4, views=3)
    assert len(drawn) == 4
    collection = open_collection(recipe.data)
    split = collection.split("train")
    model = starting_network(recipe, collection).preprocess.at(48)
    seen: dict[str, list[np.ndarray]] = {}
    batches = train_batches(
        split,
        recipe.train,
        model,
        Draw(recipe.seed, 0),
        ReadPolicy(decode=recipe.data.decode, hold_gib=recipe.data.hold_gib),
    )
    for batch in batches:
        for view, index in zip(batch.images, batch.indices.tolist(), strict=True):
            seen.setdefault(split.paths[index], []).append(view.permute(1, 2, 0).numpy())
    for path, cells in drawn.items():
        # The last part of an epoch is dropped in training, and shown or left out here.
        views = cells[:-2]
        assert len(seen[path]) >= 2
        assert all(any((view == cell).all() for cell in views) for view in seen[path]), path
        index = list(split.paths).index(path)
        test = evaluation_crop(split.read(index), model.at(96)).permute(1, 2, 0).numpy()
        assert (cells[-1] == test).all()


@pytest.mark.parametrize("crop", ["random", "center"])
def test_an_unreadable_picture_keeps_its_place_and_says_why(
    make_recipe: Callable[..., Recipe], photos: Path, monkeypatch: pytest.MonkeyPatch, crop: str
) -> None:
    augment = {"policy": "flip", "crop": crop}
    recipe = make_recipe(data={"uri": str(photos)}, train={"batch_size": 4, "size": 48}, augment=augment)
    drawn: list[Any] = []
    plain = preview_module._sheet
    monkeypatch.setattr(preview_module, "_sheet", lambda rows, cell: drawn.append(rows) or plain(rows, cell))
    whole = preview(recipe, sizes=(32, 48), count=6, views=1)
    rows = drawn.pop()
    captions = [caption for caption, _ in rows]
    tests = [note for note in whole.notes if note.startswith("test: ")]
    assert [note.split(",")[0] for note in tests] == ["test: 32 px", "test: 48 px"]
    victim = captions[2].split("   ")[-1]
    (photos / victim).write_bytes(b"nothing")
    sheet = preview(recipe, sizes=(32, 48), count=6, views=1)
    broken = drawn.pop()
    assert [caption.split("   ")[-1] for caption, _ in broken] == [caption.split("   ")[-1] for caption in captions]
    assert "unreadable" in broken[2][0]
    assert [cell.image for cell in broken[2][1]] == [None] * 4
    assert broken[2][1][0].reason == "not a picture in any format that can be read"
    for k in (0, 1, 3, 4, 5):
        same = [one.image == other.image for one, other in zip(rows[k][1], broken[k][1], strict=True)]
        # A split with a bad picture is not held in memory, where flips are drawn in another way.
        assert all(same) or (crop == "center" and same == [True, False, True, True])
    assert "1 of the 6 pictures drawn cannot be read: fixres data check names all" in sheet.notes


def test_no_readable_picture_is_an_error(make_recipe: Callable[..., Recipe], photos: Path) -> None:
    for path in (photos / "train").rglob("*.jpg"):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="none of the 2 pictures drawn"):
        preview(make_recipe(data={"uri": str(photos)}, train={"batch_size": 4}), count=2, views=1)


# --- split, pack, prepare, download


def test_split_writes_a_table_that_opens(fixres: Run, photos: Path) -> None:
    code, out, err = fixres("data", "split", photos, "--out", "split.csv", "--val", 0.25, "--test", 0, "--seed", 3)
    assert code == 0, err
    assert "val: 8 pictures of 2 classes" in err
    code, report, _ = fixres("data", "check", out.strip(), "--workers", 0, "--json", "-")
    assert code == 0
    assert json.loads(report)["num_images"] == {"train": 26, "val": 8}
    code, _, err = fixres("data", "split", photos, "--out", "split.csv")
    assert code == 2
    assert "there already" in err
    code, out, err = fixres("data", "split", photos, "--out", "g.csv", "--group", "([0-9]+).jpg", "--quiet")
    assert (code, err) == (0, "")
    assert fixres("data", "split", photos, "--out", "h.csv", "--val", 1)[0] == 2


def test_pack_writes_shards_that_hold_the_same(fixres: Run, photos: Path, tmp_path: Path) -> None:
    code, out, _ = fixres("data", "pack", photos, "--out", "shards", "--images-per-shard", 10)
    assert code == 0
    assert [Path(line).suffix for line in out.splitlines()] == [".tar"] * 4
    code, out, _ = fixres("data", "check", f"wds:{tmp_path / 'shards'}", "--workers", 0, "--json", "-")
    stored = json.loads(out)
    assert code == 0
    assert stored["num_images"] == {"train": 24, "val": 10}
    assert stored["formats"] == {"JPEG": 34}
    assert stored["classes"] == ["blue", "red"]
    assert fixres("data", "pack", photos, "--out", "shards")[0] == 2


def test_a_cut_shard_is_found(fixres: Run, photos: Path, tmp_path: Path) -> None:
    fixres("data", "pack", photos, "--out", "shards", "--images-per-shard", 10)
    shard = sorted((tmp_path / "shards").rglob("*.tar"))[0]
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    code, _, err = fixres("data", "check", f"wds:{tmp_path / 'shards'}", "--workers", 0)
    assert code == 2
    assert shard.name in err


def test_prepare_and_download_list_the_sets(fixres: Run) -> None:
    for name in ("prepare", "download"):
        code, out, _ = fixres("data", name)
        assert code == 0
        assert "cifar10 " in out
        assert any(line.split()[:2] == ["imagenet", "by"] for line in out.splitlines())


def test_prepare_and_download_refuse_what_they_do_not_know(fixres: Run, tmp_path: Path) -> None:
    code, _, err = fixres("data", "prepare", "cifr10", "--from", tmp_path, "--out", tmp_path / "new")
    assert code == 2
    assert "did you mean 'cifar10'?" in err
    code, _, err = fixres("data", "download", "imagenet", "--out", tmp_path / "new")
    assert code == 2
    assert "account" in err
    assert not (tmp_path / "new").exists()
