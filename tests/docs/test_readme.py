"""Everything the README says to type is typed, on miniature data."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from fixres.checkpoints.folder_write import save_product
from fixres.checkpoints.product import Sheet
from fixres.cli.main import COMMANDS, main
from fixres.models.build import build_model
from fixres.resolution import Preprocess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MINIATURE = {
    "train": [
        *("--model.name", "test_resnet", "--fix.epochs", "1"),
        *("--train.size", "32", "--train.epochs", "1", "--train.batch_size", "8"),
    ],
    "fix": ["--epochs", "1"],
}
SAME = ["--data.workers", "0", "--output.tracker", "none"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    inline = [code for code in re.findall(r"`(fixres [^`]+)`", README) if "/" in code]
    return [shlex.split(line, comments=True)[1:] for line in [*lines, *inline] if line.startswith("fixres ")]


COMMANDS_OF_A_RUN = [words for words in commands() if any(word.startswith("runs/") for word in words)]
OTHER_COMMANDS = [words for words in commands() if words not in COMMANDS_OF_A_RUN]


def small(words: list[str]) -> list[str]:
    """Return a command of the README with what makes it short."""
    if "runs/a/recipe.yaml" in words:
        return [*words, *SAME]
    if words[:2] == ["train", "photos"]:
        return [*words, "--models", "tiny", "--minutes", "0.5", *SAME]
    if words[0] == "fix" and "--sizes" in words:
        # Heads for several sizes are solved, not trained.
        return words
    return [*words, *MINIATURE.get(words[0], []), *(SAME if words[0] == "train" else [])]


@pytest.fixture
def at_home(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder we are in: it holds the photos, the recipe and the foreign file the README speaks of."""
    monkeypatch.chdir(tmp_path)
    (recipe,) = blocks("yaml")
    (tmp_path / "my.yaml").write_text(recipe)
    sheet = Sheet(("a", "b"), Preprocess(64), 64, "all", "raw", (), {}, {}, {})
    save_product(tmp_path / "tiny", build_model("test_resnet", 2), sheet)
    torch.save({"epoch": 1, "state_dict": resnet18(num_classes=3).state_dict()}, tmp_path / "epoch_1.pth.tar")
    return tmp_path


@pytest.mark.usefixtures("at_home")
@pytest.mark.parametrize("words", OTHER_COMMANDS, ids=" ".join)
def test_every_command_of_the_readme_works(words: list[str]) -> None:
    assert main(small(words)) == 0


def test_the_commands_about_a_run_work_one_after_the_other(at_home: Path) -> None:
    assert min(len(COMMANDS_OF_A_RUN), len(OTHER_COMMANDS)) >= 6
    for words in COMMANDS_OF_A_RUN:
        assert main(small(words)) == 0, words
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), {})
    before, after = ((at_home / "runs" / name / "model" / "model.safetensors").read_bytes() for name in ("a", "again"))
    assert before == after


def test_the_table_of_commands_is_that_of_the_program() -> None:
    assert re.findall(r"^\| `fixres (\w+)` \|", README, re.MULTILINE) == list(COMMANDS)


def test_every_link_points_at_something() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_every_number_of_the_table_has_its_command() -> None:
    for recipe in ("elpv-demo", "elpv-direct"):
        assert f"fixres study {recipe} --seeds" in README.replace("\n", " ")
