"""The demo in a real browser: load, choose, slide, run, read the numbers, download the picture."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from pictures import huge, text

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "artifacts" / "demo"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["Chromium"]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run", "--disable-dev-shm-usage"),
)
PATIENCE = 240  # seconds; machines that test are slow


@pytest.fixture(scope="module")
def address():
    """A demo of its own, offline, on a free port."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    with open(os.devnull, "w") as nowhere:
        server = subprocess.Popen(
            [sys.executable, "-u", str(ROOT / "scripts" / "demo.py")],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=nowhere,
            text=True,
        )
    try:
        found = None
        for line in server.stdout:
            found = re.search(r"open (http://\S+)", line)
            if found:
                break
        assert found, "the demo did not open"
        yield found[1]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    """A visitor who notes which other hosts the page asks for, and gets nothing from them."""
    visitor = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    page = visitor.new_page()
    page.set_default_timeout(1000 * PATIENCE)
    page.elsewhere = []

    def only_here(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            page.elsewhere.append(route.request.url)
            route.abort()

    page.route("**/*", only_here)
    page.goto(address)
    page.locator("#run").wait_for()
    yield page
    visitor.close()


def screenshot(page, name):
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)


def numbers(page):
    """The table's rows as lists of words."""
    page.locator("#numbers tbody tr").first.wait_for()
    return [row.locator("td").all_inner_texts() for row in page.locator("#numbers tbody tr").all()]


def slide(page, value):
    box = page.locator("#ratio input[type=number]")
    box.fill(str(value))
    box.press("Tab")


def choose_method(page, name):
    page.locator("#methods input").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.keyboard.press("Escape")


def tokens(page):
    return [row[1] for row in numbers(page)]


def wait_for_tokens(page, wanted):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and wanted not in tokens(page):
        time.sleep(0.5)
    assert wanted in tokens(page)


def test_a_visit(page, tmp_path):
    assert page.locator("h1").inner_text() == "hf_vtp"
    choose_method(page, "uniform")
    slide(page, 0.25)
    page.locator("#run").click()
    rows = numbers(page)
    assert [row[0] for row in rows] == ["unpruned", "vtp", "random", "uniform"]
    assert [row[1] for row in rows] == ["144 of 144", *["36 of 144"] * 3]
    for row in rows[1:]:
        assert float(row[2]) < float(rows[0][2]) and float(row[4]) > 0 and row[6]
    page.locator("#kept img").nth(2).wait_for()
    last, frame = page.locator("#kept img").nth(2).bounding_box(), page.locator("#kept").bounding_box()
    assert last["y"] + last["height"] <= frame["y"] + frame["height"]  # none is cut off
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "kept.png")
    picture = Image.open(tmp_path / "kept.png")
    assert picture.format == "PNG" and picture.width > 3 * 400 and picture.height > 400
    screenshot(page, "a_visit")
    page.get_by_label("chelsea").check()
    slide(page, 0.5)
    page.locator("#run").click()
    wait_for_tokens(page, "72 of 144")
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "kept.png")
    # the picture that was chosen an instant before: chelsea is wider than high, the scene before it square
    assert Image.open(tmp_path / "kept.png").height < 360
    screenshot(page, "a_photograph")
    assert page.elsewhere == []


def test_broken_uploads_are_a_sentence_and_the_page_lives(page, tmp_path):
    for make, words in ((text, "is not an image"), (huge, "more than 50 million pixels")):
        page.locator("#upload input[type=file]").set_input_files(make(tmp_path))
        page.get_by_text(words).wait_for()
        screenshot(page, f"refused_{make.__name__}")
        page.locator("#upload").get_by_label(re.compile("Clear|Remove")).first.click()
    own = tmp_path / "own.png"
    Image.effect_noise((200, 100), 90).save(own)
    page.locator("#upload input[type=file]").set_input_files(own)
    page.locator("#problem p").wait_for(state="detached")
    page.locator("#run").click()
    assert len(numbers(page)) == 3


def test_two_visitors_at_once(page, browser, address):
    other = browser.new_context().new_page()
    other.set_default_timeout(1000 * PATIENCE)
    other.goto(address)
    slide(page, 0.25)
    slide(other, 0.75)
    page.locator("#run").click()
    other.locator("#run").click()
    wait_for_tokens(page, "36 of 144")
    wait_for_tokens(other, "108 of 144")
    assert tokens(page) == ["144 of 144", *["36 of 144"] * 2]
    assert tokens(other) == ["144 of 144", *["108 of 144"] * 2]
    other.context.close()
