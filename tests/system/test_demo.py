"""The demo as a stranger runs it, and its page in a real browser. Slow: `make test-system`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, sync_playwright

from fixres.checkpoints.resolve import load
from fixres.runtime.run_folder import read_events

pytestmark = [pytest.mark.system, pytest.mark.timeout(2400)]
COMMAND = [str(Path(sys.executable).with_name("fixres"))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    folder = tmp_path_factory.mktemp("demo") / "run"
    start = time.monotonic()
    result = subprocess.run([*COMMAND, "demo", "--out", str(folder)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

    return folder, result.stderr, time.monotonic() - start


def test_the_demo_says_how_long_it_takes_and_keeps_to_it(demo: tuple[Path, str, float]) -> None:
    _, text, seconds = demo
    said = float(text.split("This takes about ")[1].split(" minutes")[0])
    assert 0.3 < said / (seconds / 60) < 3


def test_the_demo_leaves_the_run_folder_of_the_contract(demo: tuple[Path, str, float]) -> None:
    folder, text, _ = demo
    files = """recipe.yaml environment.json metrics.jsonl status.json split.json predictions.json comparison.csv
        report.html picture_files.npz checkpoints/last.pt
        model/config.json model/model.safetensors model/before_fix.safetensors model/README.md"""
    for name in files.split():
        assert (folder / name).stat().st_size > 0, name
    assert list((folder / "tensorboard").iterdir())
    for part in (
        "train size",
        "fixed at the train size",
        "of that, the size",
        "fixed minus before",
        "fixed: accuracy against size on val",
    ):
        assert part in text


def test_the_demo_fixes_the_head_and_the_last_statistics(demo: tuple[Path, str, float]) -> None:
    plan = next(e for e in read_events(demo[0]) if e["event"] == "plan" and e["stage"] == "fix")["text"]
    assert plan == "moves head+stats: trains 2 tensors, 2.56 k of 3.37 M parameters; running statistics updated: bn2"


def test_the_demo_classifies_far_better_than_the_larger_class(demo: tuple[Path, str, float]) -> None:
    (comparison,) = [e for e in read_events(demo[0]) if e["event"] == "comparison"]
    # 69 % of the pictures are of functional cells; the lower bounds leave more than three standard errors.
    assert comparison["num_images"] == 524
    assert comparison["rows"][0]["top1"] > 75
    assert comparison["rows"][-1]["top1"] > 77
    assert comparison["rows"][-1]["loss"] < comparison["rows"][0]["loss"]


def test_two_processes_train_the_demos_recipe_as_well_as_one(demo: tuple[Path, str, float], tmp_path: Path) -> None:
    folder = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fixres", "train"]
    command += ["elpv-demo", "--out", str(folder), "--runtime.threads", "1"]
    # One size: that two processes lose what one loses is tested step by step on small pictures.
    command += ["--evaluation.sizes", "64", "--evaluation.control", "false", "--fix.size", "64"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (one,), (two,) = ([e for e in read_events(run) if e["event"] == "comparison"] for run in (demo[0], folder))
    assert two["num_images"] == one["num_images"]
    low, high = one["rows"][0]["top1_ci95"]
    assert low <= two["rows"][0]["top1"] <= high
    assert low <= two["rows"][-1]["top1"]


def test_eval_of_the_demo_repeats_its_number_in_a_new_process(demo: tuple[Path, str, float], tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    result = subprocess.run(
        [*COMMAND, "eval", str(demo[0]), "--json", str(out)], capture_output=True, text=True, check=False
    )
    assert "repeats the logged result exactly" in result.stderr, result.stderr
    logged = load(demo[0]).details["results"][0]
    assert json.loads(out.read_text())["results"][0]["loss"] == logged["loss"]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the browser test needs chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser.new_page(viewport={"width": 1100, "height": 900})
        browser.close()


def test_the_report_stands_alone_in_a_browser(demo: tuple[Path, str, float], page: Page) -> None:
    requests: list[Request] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108 - playwright wraps functions only
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto((demo[0] / "report.html").as_uri(), timeout=120_000)
    assert not [r.url for r in requests if not r.url.startswith(("file:", "data:"))]
    assert not errors
    text = page.inner_text("body")
    for part in ("fixed", "64", "CC BY-NC-SA"):
        assert part in text
    pictures = page.locator("img").all()
    assert len(pictures) >= 6
    assert all(picture.evaluate("i => i.complete && i.naturalWidth > 0") for picture in pictures)
    assert page.locator("svg").count() >= 2
    for width in (390, 1100):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"scrolls at {width} px"
