"""The server's page in a real browser. Slow: `make test-system`."""

from __future__ import annotations

import base64
import os
import re
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.serving import Running, encoded, make_run, picture, serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
AXE = files("axe_playwright_python") / "axe.min.js"
SHOTS = os.environ.get("FIXRES_SCREENSHOTS", "")
PATIENCE = 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(make_run(tmp_path_factory.mktemp("page") / "run"), "--threads", "1") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "the browser test needs chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
            ],
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, server: Running, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that fails its test when it asks another host for anything, or when its script trips."""
    options = getattr(request, "param", {})
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    elsewhere: list[str] = []
    broken: list[str] = []

    def note(url: str) -> None:
        if not url.startswith((server.url, "data:", "blob:")):
            elsewhere.append(url)

    opened.on("request", lambda one: note(one.url))
    opened.on("pageerror", lambda error: broken.append(str(error)))
    opened.goto(server.url)
    expect(opened.locator("#what")).to_contain_text("test_resnet", timeout=PATIENCE)
    yield opened
    context.close()
    assert not elsewhere
    assert not broken


def shoot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def upload(page: Page, data: bytes | None = None, name: str = "cell.png") -> None:
    content = encoded(picture(3, (200, 150)), "PNG") if data is None else data
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": content})


def require_three_sizes(page: Page) -> None:
    expect(page.locator(".card")).to_have_count(3, timeout=PATIENCE)
    titles = [title.inner_text() for title in page.locator(".card h3").all()]
    assert titles == ["Train size: 32 px", "Test size, not fixed: 48 px", "Test size, fixed: 48 px"]
    assert page.locator(".card img").evaluate_all("all => all.every(i => i.complete && i.naturalWidth > 0)")
    sizes = page.locator(".card img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert sizes == [32, 48, 48]
    assert page.locator(".bars").first.locator("li").count() == 3
    shares = [float(text.split()[0]) for text in page.locator(".card").first.locator(".share").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert all(re.fullmatch(r"\d+\.\d ms", text) for text in page.locator(".time").all_inner_texts())


def test_an_uploaded_picture_is_shown_at_every_size(page: Page, server: Running) -> None:
    assert page.locator("#empty").is_visible()
    shoot(page, "empty")
    upload(page)
    require_three_sizes(page)
    assert not page.locator("#empty").is_visible()
    assert "cell.png" in page.inner_text("#curl")
    assert page.inner_text("#curl").startswith("curl -F 'file=@cell.png'")
    assert f"{server.url}/v1/predict?size=48" in page.inner_text("#curl")
    assert "At 48 px" in page.inner_text("#status")
    shoot(page, "answer")


def test_a_pasted_and_a_dropped_picture_are_taken(page: Page) -> None:
    data = base64.b64encode(encoded(picture(4), "PNG")).decode()
    for kind in ("paste", "drop"):
        page.evaluate(
            """([kind, data]) => {
              const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], kind + ".png", { type: "image/png" }));
              const event = kind === "paste"
                ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
                : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
              document.getElementById("drop").dispatchEvent(event);
            }""",
            [kind, data],
        )
        expect(page.locator("#curl")).to_contain_text(f"{kind}.png", timeout=PATIENCE)
        require_three_sizes(page)


@pytest.mark.parametrize("page", [{"permissions": ["camera"]}], indirect=True)
def test_a_picture_of_the_camera_is_taken(page: Page) -> None:
    page.click("#shoot")
    expect(page.locator("#camera")).to_be_visible(timeout=PATIENCE)
    page.click("#snap")  # once the camera has given a picture: before, the button is disabled
    expect(page.locator("#curl")).to_contain_text("camera.png", timeout=PATIENCE)
    assert not page.locator("#camera").is_visible()
    require_three_sizes(page)


def test_where_the_network_looks_can_be_switched_on_and_off(page: Page) -> None:
    upload(page)
    require_three_sizes(page)
    plain = page.locator(".card img").evaluate_all("all => all.map(i => i.src)")
    page.click("#explain")
    expect(page.locator(".card img").last).to_have_attribute("alt", re.compile("^Where"), timeout=PATIENCE)
    assert page.get_attribute("#explain", "aria-pressed") == "true"
    assert page.locator(".card img").evaluate_all("all => all.map(i => i.src)") != plain
    shoot(page, "explained")
    page.click("#explain")
    assert page.locator(".card img").evaluate_all("all => all.map(i => i.src)") == plain


def test_a_file_that_is_no_picture_has_its_message_and_the_page_goes_on(page: Page) -> None:
    upload(page, b"no picture at all", "notes.png")
    expect(page.locator("#problem")).to_contain_text("notes.png is not a picture this server takes", timeout=PATIENCE)
    assert page.get_attribute("#problem", "role") == "alert"
    shoot(page, "error")
    upload(page)
    require_three_sizes(page)
    assert not page.locator("#problem").is_visible()


def test_a_name_is_shown_as_text(page: Page) -> None:
    upload(page, name="<img src=x onerror=alert(1)>'; rm -rf.png")
    require_three_sizes(page)
    assert "<img src=x" in page.inner_text("#curl")
    assert page.locator("#curl img").count() == 0


def test_a_server_that_is_away_is_said_and_noticed_when_back(page: Page) -> None:
    page.context.set_offline(True)
    upload(page)
    expect(page.locator("#offline")).to_be_visible(timeout=PATIENCE)
    shoot(page, "offline")
    page.context.set_offline(False)
    expect(page.locator("#offline")).to_be_hidden(timeout=PATIENCE)
    upload(page)
    require_three_sizes(page)


def test_the_keyboard_reaches_everything(page: Page) -> None:
    upload(page)
    require_three_sizes(page)
    page.evaluate("document.body.focus()")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    for name in ("choose", "shoot", "explain", "curl", "copy"):
        assert name in reached
    page.focus("#explain")
    page.keyboard.press("Enter")
    expect(page.locator("#explain")).to_have_attribute("aria-pressed", "true", timeout=PATIENCE)
    with page.expect_file_chooser():
        page.focus("#choose")
        page.keyboard.press("Enter")


@pytest.mark.parametrize(
    "page",
    [
        {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True},
        {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"},
        {"viewport": {"width": 1100, "height": 900}, "color_scheme": "dark"},
    ],
    indirect=True,
    ids=["phone", "phone dark", "dark"],
)
def test_a_phone_and_the_dark_need_no_sideways_scrolling(page: Page, request: pytest.FixtureRequest) -> None:
    upload(page)
    require_three_sizes(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    dark = "dark" in request.node.callspec.id
    assert (ground == "rgb(255, 255, 255)") != dark
    for button in page.locator("button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
    shoot(page, request.node.callspec.id.replace(" ", "-"))


@pytest.mark.parametrize("page", [{}, {"color_scheme": "dark"}], indirect=True, ids=["light", "dark"])
def test_axe_finds_no_serious_violation(page: Page) -> None:
    script = AXE.read_text(encoding="utf-8")
    for state in ("empty", "answer", "error"):
        if state == "answer":
            upload(page)
            require_three_sizes(page)
        if state == "error":
            upload(page, b"x")
            expect(page.locator("#problem")).to_be_visible(timeout=PATIENCE)
        page.evaluate(script)
        found = page.evaluate("axe.run().then(r => r.violations.map(v => [v.impact, v.id, v.nodes[0].html]))")
        assert not [one for one in found if one[0] in ("serious", "critical")], found


def test_a_token_is_asked_for_once(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    with serving(make_run(tmp_path / "run"), "--token-file", str(tmp_path / "token"), "--threads", "1") as guarded:
        context = browser.new_context()
        page = context.new_page()
        page.goto(guarded.url)
        expect(page.locator("#token-form")).to_be_visible(timeout=PATIENCE)
        page.fill("#token", "secret")
        page.keyboard.press("Enter")
        expect(page.locator("#what")).to_contain_text("test_resnet", timeout=PATIENCE)
        upload(page)
        require_three_sizes(page)
        assert "secret" not in page.inner_text("#curl")
        context.close()
