"""The discovery page in a real browser, and its routes."""

import csv
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.chromium import PHONE, Visit, chromium, visit
from playwright.sync_api import Browser
from processes.waiting import PATIENCE_S
from processes.waiting import until as wait_until

from neurovocal.engine.support.endpoints import Address
from neurovocal.models.discovery.folder import DiscoveryFolder
from neurovocal.models.discovery.page import DiscoveryPage
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.server import PageServer

HOSTILE = "<img src=x onerror=document.title='hacked'>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def shown(found: Path) -> DiscoveryPage:
    return DiscoveryPage(DiscoveryFolder(found), "Ada")


@pytest.fixture
def url(shown: DiscoveryPage) -> Iterator[str]:
    server = PageServer(Address("127.0.0.1", 0), Access(), shown.routes())
    server.start()
    yield server.url
    server.stop()


def until(seen: Visit, script: str, argument: object = None) -> None:
    """Wait for the page; its policy forbids what Playwright's own waiting does."""
    wait_until(lambda: seen.page.evaluate(script, argument))


def opened(browser: Browser, url: str, **options: object) -> Visit:
    seen = visit(browser, f"{url}discover", **options)
    until(seen, "document.body.dataset.ready === 'yes'")
    return seen


def status(seen: Visit, text: str) -> None:
    until(seen, "t => document.getElementById('status').textContent.includes(t)", text)


def labels(folder: Path) -> list[str]:
    with (folder / "annotations.csv").open(newline="", encoding="utf-8") as stream:
        return [row["label"] for row in csv.DictReader(stream)]


def changes(shown: DiscoveryPage, found: Path) -> list[tuple[str, str]]:
    return [(e["kind"], e["author"]) for e in DiscoveryFolder(found).changes()]


def test_name_and_export_by_keyboard_alone(browser, url, shown, found):
    seen = opened(browser, url)
    keyboard = seen.page.keyboard
    seen.page.focus("#map")
    keyboard.press("ArrowRight")
    until(seen, "neurovocal.current() !== null")
    number = seen.page.evaluate("neurovocal.current()")
    while seen.page.evaluate("neurovocal.clusterOf(neurovocal.current())") == "unknown":
        keyboard.press("ArrowDown")
    number = seen.page.evaluate("neurovocal.current()")
    label = int(shown.clusters.labels[number])
    keyboard.press("n")
    until(seen, "document.activeElement.matches('.cluster.current input')")
    keyboard.type("whistle")
    keyboard.press("Enter")
    status(seen, "The cluster is called whistle.")
    seen.page.focus("#export")
    keyboard.press("Enter")
    until(seen, "document.getElementById('export-dialog').open")
    assert "neurovocal train" in seen.page.inner_text("#export-commands")
    expected = int((shown.clusters.labels == label).sum())
    assert labels(found).count("whistle") == expected
    assert changes(shown, found) == [("name", "Ada")]
    keyboard.press("Escape")
    seen.page.focus("#map")
    keyboard.press("Control+z")
    status(seen, "taken back")
    assert shown.clusters.name(label) == f"c{label + 1}"
    assert not seen.problems


def test_click_lasso_and_move(browser, url, shown):
    seen = opened(browser, url)
    box = seen.page.locator("#map").bounding_box()
    assert box is not None
    x, y = seen.page.evaluate("neurovocal.place(5)")
    seen.page.mouse.click(box["x"] + x, box["y"] + y)
    until(seen, "neurovocal.chosen().length === 1")
    until(seen, "document.getElementById('sound').currentSrc.includes('sound?id=')")
    seen.page.click("#lasso")
    corners = [(2, 2), (box["width"] - 2, 2), (box["width"] - 2, box["height"] - 2)]
    seen.page.mouse.move(box["x"] + 2, box["y"] + box["height"] - 2)
    seen.page.mouse.down()
    for dx, dy in corners:
        seen.page.mouse.move(box["x"] + dx, box["y"] + dy, steps=3)
    seen.page.mouse.up()
    until(seen, "neurovocal.chosen().length === 72")
    seen.page.select_option("#move-to", "unknown")
    seen.page.click("#move")
    status(seen, "72 segments are moved.")
    assert (shown.clusters.labels == -1).all()
    seen.page.click("#undo")
    status(seen, "taken back")
    assert (shown.clusters.labels >= 0).any()
    assert not seen.problems


def test_merge_split_and_cluster_anew(browser, url, shown):
    seen = opened(browser, url)
    page = seen.page
    before = len(shown.clusters.clusters())
    for number in range(before):
        page.check(f'[data-focus="tick-{shown.clusters.clusters()[number]["number"]}"]')
    page.click("#merge")
    status(seen, "1 are left")
    page.click(".cluster [aria-pressed]")
    page.fill("#min-size", "8")
    page.click("#split")
    until(seen, "n => document.querySelectorAll('.cluster').length >= n", 3)
    page.click("#recluster")
    page.click("#anew-go")
    status(seen, "clusters,")
    assert len(shown.clusters.clusters()) == before
    assert not seen.problems


def test_two_people_do_not_overwrite_each_other(browser, url, shown):
    first, second = opened(browser, url), opened(browser, url)
    for seen, name in ((first, "a"), (second, "b")):
        field = seen.page.locator(".cluster input[type=text]").first
        field.fill(name)
        field.press("Enter")
        status(seen, "called a" if name == "a" else "somebody else")
    assert shown.clusters.clusters()[0]["name"] == "a"
    until(second, "document.querySelector('.cluster input[type=text]').value === 'a'")


def test_hostile_names_are_text(browser, url, shown):
    seen = opened(browser, url)
    field = seen.page.locator(".cluster input[type=text]").first
    field.fill(HOSTILE)
    field.press("Enter")
    status(seen, "The cluster is called")
    again = opened(browser, url)
    assert again.page.title().startswith("Discover")
    assert not again.page.locator("img").count()
    assert shown.clusters.clusters()[0]["name"] == HOSTILE


def test_pictures_come(browser, url):
    seen = opened(browser, url)
    until(seen, "neurovocal.pictures() > 20")
    # Drawn pictures hold more than one colour.
    script = """() => {
      const canvas = document.querySelector('.cluster canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, 38, 38).data;
      return new Set(new Uint32Array(data.buffer)).size > 20;
    }"""
    until(seen, script)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_finding_of_axe(browser, url, theme):
    seen = opened(browser, url, color_scheme=theme, bypass_csp=True)
    seen.page.click(".cluster [aria-pressed]")
    for dialog in (None, "help-open", "export", "recluster"):
        if dialog:
            seen.page.click(f"#{dialog}")
            until(seen, "document.querySelector('dialog[open]') !== null")
        found = Axe().run(seen.page).response["violations"]
        serious = [
            (each["id"], [node["html"] for node in each["nodes"]][:3])
            for each in found
            if each["impact"] in ("serious", "critical")
        ]
        assert not serious, dialog
        if dialog:
            seen.page.keyboard.press("Escape")


def test_phone(browser, url):
    seen = opened(browser, url, viewport=PHONE, has_touch=True, is_mobile=True)
    width = seen.page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
    x, y = seen.page.evaluate("neurovocal.place(3)")
    seen.page.evaluate("document.getElementById('map').scrollIntoView()")
    box = seen.page.locator("#map").bounding_box()
    seen.page.touchscreen.tap(box["x"] + x, box["y"] + y)
    until(seen, "neurovocal.chosen().length === 1")


# ---- routes ----


def get(url: str) -> tuple[int, bytes, str]:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return answer.status, answer.read(), answer.headers["content-type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers["content-type"]


def post(url: str, content: object, kind: str = "application/json") -> tuple[int, dict]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_points_and_patches(url, shown):
    count = len(shown.clusters.segments)
    _, content, _ = get(f"{url}discover/api/points")
    assert len(content) == 28 * count
    places = np.frombuffer(content, "<f4", 2 * count).reshape(count, 2)
    np.testing.assert_array_equal(places, shown.clusters.places)
    _, content, _ = get(f"{url}discover/api/patches?ids=3,1")
    folder = DiscoveryFolder(shown._folder.path)
    assert content == folder.patches(count)[[3, 1]].tobytes()


@pytest.mark.parametrize(
    "ids", ["", "1,", "-1", "72", "1e3", "\u0661", "0," * 600 + "0"]
)
def test_impossible_segments_are_refused(url, ids):
    query = urllib.parse.quote(ids)
    assert get(f"{url}discover/api/patches?ids={query}")[0] == 400
    assert get(f"{url}discover/api/sound?id={query}")[0] == 400


def test_sound_is_a_wav_file(url, shown):
    code, content, kind = get(f"{url}discover/api/sound?id=0")
    assert (code, kind, content[:4]) == (200, "audio/wav", b"RIFF")


def test_sound_of_a_recording_that_is_gone(url, shown):
    shown.clusters.recordings[:] = [
        replace(recording, path=f"{recording.path}.gone")
        for recording in shown.clusters.recordings
    ]
    code, content, _ = get(f"{url}discover/api/sound?id=0")
    assert code == 404
    assert "error" in json.loads(content)


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"{", "application/json", 400),
        ([], "application/json", 400),
        ({"change": 3}, "application/json", 400),
        ({"revision": 7, "change": {"kind": "undo"}}, "application/json", 409),
        ({"revision": 0, "change": {"kind": "undo"}}, "application/json", 400),
        ({"revision": 0, "change": {"kind": "undo"}}, "text/plain", 415),
        (b" " * (5 * 2**20), "application/json", 413),
    ],
)
def test_faulty_changes_are_refused(url, shown, found, content, kind, code):
    answered, told = post(f"{url}discover/api/change", content, kind)
    assert answered == code
    assert told["error"]
    assert not changes(shown, found)
