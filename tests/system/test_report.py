"""The report of a real run in a real browser, at the width of a desk and of a phone, in light, dark and on paper."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from fixres.config.yaml_text import dump

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
COMMAND = [sys.executable, "-m", "fixres"]
MAX_PAGE = 5_000_000
SECTIONS = ("result", "size", "seen", "why", "errors", "hardest", "calibration", "training", "reproduce")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of one finished run, that of one stopped in its first epoch, and that of two side by side."""
    folder = tmp_path_factory.mktemp("runs")
    recipe = {
        "data": {"uri": "elpv:", "license": "CC BY-NC-SA 4.0 (ELPV)"},
        "model": {"name": "test_resnet"},
        "train": {"size": 64, "epochs": 2},
        "fix": {"size": 96, "epochs": 1},
        "evaluation": {"sizes": [64, 96]},
        "output": {"tracker": "none"},
        "runtime": {"threads": 1},
    }
    (folder / "my.yaml").write_text(dump(recipe))
    run(["train", str(folder / "my.yaml"), "--out", str(folder / "whole")])
    half = folder / "half"
    half.mkdir()
    shutil.copy(folder / "whole" / "recipe.yaml", half)
    lines = (folder / "whole" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (half / "metrics.jsonl").write_text("".join(lines[: len(lines) // 3]) + '{"event": "tr')
    (half / "status.json").write_text('{"state": "stopped"}')
    found = {"one": [folder / "whole"], "half": [half], "both": [folder / "whole", half]}
    for name, runs in found.items():
        run(["report", *map(str, runs), "--out", str(folder / f"{name}.html")])
    return {name: folder / f"{name}.html" for name in found}


def run(words: list[str]) -> None:
    """Run one command of fixres."""
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, which asks for nothing by itself."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the browser test needs chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["one", "half", "both"])
def test_a_page_stands_alone_at_any_width_and_in_any_light(
    pages: dict[str, Path], browser: Browser, name: str, width: int, scheme: str
) -> None:
    assert pages[name].stat().st_size < MAX_PAGE
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    page = context.new_page()
    requests: list[Request] = []
    said: list[str] = []
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108 - playwright wraps functions only
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert not [r.url for r in requests if not r.url.startswith(("file:", "data:"))]
    assert not said
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    pictures = page.locator("img").all()
    assert len(pictures) >= 12
    assert all(picture.evaluate("i => i.complete && i.naturalWidth > 0") for picture in pictures)
    red, green, blue = colour(page, "body", "backgroundColor")
    assert (red + green + blue < 3 * 60) == (scheme == "dark")
    assert contrast(page, "body", "body") > 7
    assert contrast(page, "figcaption", "body") > 4.5
    context.close()


def colour(page: Page, selector: str, kind: str) -> list[float]:
    """Red, green and blue of an element, 0 to 255."""
    found = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{kind}")
    return [float(part) for part in found.removeprefix("rgb(").removesuffix(")").split(",")]


def contrast(page: Page, text: str, ground: str) -> float:
    """Contrast of text on its ground after WCAG 2."""

    def luminance(parts: list[float]) -> float:
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in (part / 255 for part in parts)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted(
        luminance(parts) for parts in (colour(page, text, "color"), colour(page, ground, "backgroundColor"))
    )
    return (light + 0.05) / (dark + 0.05)


def test_the_page_says_all_that_a_run_knows(pages: dict[str, Path], browser: Browser) -> None:
    page = browser.new_page()
    page.goto(pages["one"].as_uri())
    for key in SECTIONS:
        assert page.locator(f"#run1-{key}").count() == 1, key
        assert not page.locator(f"#run1-{key} .missing").count(), page.inner_text(f"#run1-{key}")
    text = page.inner_text("body")
    for part in ("Macro-F1", "by bootstrap", "CC BY-NC-SA", "fixres eval", "called", "sure than it is right"):
        assert part in text, part
    page.goto(pages["half"].as_uri())
    text = page.inner_text("body")
    assert "State of the run: stopped. The page shows what it has logged so far." in text
    assert "--resume" in text


def test_the_page_is_used_with_the_keyboard_alone(pages: dict[str, Path], browser: Browser) -> None:
    page = browser.new_page()
    page.goto(pages["both"].as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left >= 0")
    assert not page.evaluate("document.querySelector('#run1').open")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('href')") == "#run1-result":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#run1').open")
    assert page.evaluate("Math.abs(document.querySelector('#run1-result').getBoundingClientRect().top) < 900")


def test_paper_shows_what_is_folded_away_and_is_white(pages: dict[str, Path], browser: Browser) -> None:
    context = browser.new_context(color_scheme="dark", viewport={"width": 760, "height": 1000})
    page = context.new_page()
    page.goto(pages["one"].as_uri())
    assert not page.evaluate("document.querySelector('#run1-reproduce details').open")
    page.emulate_media(media="print", color_scheme="dark")
    assert min(colour(page, "body", "backgroundColor")) > 240
    assert page.evaluate("document.querySelector('#run1-reproduce details pre').getBoundingClientRect().height") > 500
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.pdf(format="A4").startswith(b"%PDF")
    context.close()
