"""`fixres data check` and `stats` as a user types them, and the list of sub-commands."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Run

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
    assert "a\\xffb\\x1b[31m\\n.jpg" in out
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
