"""The live page of a real run, in a real browser."""

import json
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.chromium import PHONE, Visit, visit
from browser.engines import PagedRun
from playwright.sync_api import Browser

from neurovocal.engine.journal import read_events

LABELS = "() => neurovocal.drawn().filter((d) => d.status === 'final').length >= "


@pytest.fixture
def seen(browser: Browser, run: PagedRun) -> Iterator[Visit]:
    """The page with at least 20 final labels drawn."""
    opened = visit(browser, run.url)
    opened.until(LABELS + "20")
    yield opened
    assert opened.problems == []
    opened.page.context.close()


def freeze(opened: Visit) -> None:
    """Stop scrolling, with the last frame drawn."""
    opened.page.keyboard.press("Space")
    opened.until("() => neurovocal.report().every((r) => !r.live)")


# The run goes on: rows are counted and looked at in one moment.
EVERY_ROW = (
    "() => {{ const rows = [...document.querySelectorAll('.log-row')];"
    " return rows.length >= {number} && rows.every((row) => {{"
    " const is = (name) => row.classList.contains(name);"
    " return {condition}; }}); }}"
)


def rows(opened: Visit) -> int:
    number: int = opened.page.evaluate("neurovocal.rows()")
    return number


def test_shows_all_parts(seen: Visit, run: PagedRun) -> None:
    page = seen.page
    assert page.title() == "NeuroVocal"
    assert page.locator("#stations").inner_text().startswith("aviary")
    assert page.locator("article.stream h2").inner_text() == "aviary"
    headings = page.locator("main h2").all_inner_texts()
    for part in ("Log", "Units", "Transitions", "Health", "Latency", "Steering"):
        assert part in headings
    assert page.locator("#units tr").count() > 3
    assert "median" in page.locator("#latency-words").inner_text()
    seen.until("() => document.querySelector('#health').innerText.includes('heard')")
    seen.until("() => document.querySelector('#connection').innerText === 'live'")
    assert " UTC" in page.locator(".stream .clock").inner_text()
    assert seen.hosts == {f"127.0.0.1:{run.port}"}


def test_boxes_stand_within_one_frame_of_the_labels_samples(
    seen: Visit, run: PagedRun
) -> None:
    freeze(seen)
    geometry = seen.report()[0]["geometry"]
    rate, hop = 32000, 128
    # The journal has all of them, however long ago the page was frozen.
    kept = [
        json.loads(event.header)
        for event in read_events(run.journal)
        if event.kind == "label"
    ]
    by_segment = {each["segment"]: each for each in kept if each["status"] == "final"}
    compared = 0
    for box in geometry["segments"]:
        label = by_segment.get(box["segment"])
        # The journal goes on while the page stands: its last box may not have ended.
        if label is None or box["state"] in ("open", "provisional", "revised"):
            continue
        for edge, x in (("onset", box["x0"]), ("offset", box["x1"])):
            time = geometry["left"] + (x - geometry["x"]) / geometry["pixelsPerSecond"]
            assert abs(time * rate - label[edge]) <= hop
        assert box["unit"] == label["unit"]
        compared += 1
    assert compared >= 5


def test_a_loss_is_hatched_and_told(browser: Browser, run: PagedRun) -> None:
    opened = visit(browser, run.url)
    opened.until("() => neurovocal.page.model.streams.size > 0")
    opened.until(
        "() => [...neurovocal.page.model.streams.values()]"
        ".some((s) => s.spans.some((span) => span.kind === 'gap'))"
    )
    opened.page.keyboard.press("Space")
    # The gap is at 3 s: show it, wherever the newest sound is by now.
    opened.page.evaluate(
        "() => { const s = [...neurovocal.page.model.streams.values()][0];"
        " neurovocal.page.view.show(3.2, s, [s]); }"
    )
    opened.until(
        "() => neurovocal.report()[0].geometry.spans"
        ".some((s) => s.kind === 'gap' && s.x1 - s.x0 > 10)"
    )
    opened.page.select_option("#filter-kind", "losses")
    opened.until("() => document.querySelectorAll('.log-row.gap').length > 0")
    assert "400 ms lost" in opened.page.locator(".log-row.gap").last.inner_text()
    opened.page.context.close()


def test_keyboard_alone_does_everything(seen: Visit) -> None:
    page = seen.page
    freeze(seen)
    page.keyboard.press("p")
    page.keyboard.press("p")
    page.keyboard.press("Enter")
    seen.until("() => document.querySelector('#player-audio').duration > 0.05")
    # The recording has 32 kHz: it is heard as fast as it was sung.
    assert "slower" not in page.locator("#player-words").inner_text()
    span = page.locator("#span").inner_text()
    page.keyboard.press("+")
    assert page.locator("#span").inner_text() != span
    page.keyboard.press("f")
    seen.until("() => [...neurovocal.page.pictures.values()][0].highRow < 129")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("End")
    seen.until("() => neurovocal.report()[0].live")
    page.keyboard.press("l")
    page.keyboard.press("ArrowDown")
    row = page.locator("#log").get_attribute("aria-activedescendant")
    assert page.locator(f"#{row}").get_attribute("aria-selected") == "true"
    page.keyboard.press("?")
    assert page.locator("#help").get_attribute("open") is not None
    assert page.locator("#help").evaluate("(dialog) => dialog.scrollTop") == 0
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    assert page.locator("#announce").get_attribute("aria-pressed") == "true"
    seen.until("() => document.querySelector('#said-labels').textContent !== ''")
    page.keyboard.press("r")


def test_tab_reaches_every_control_and_shows_where_it_is(seen: Visit) -> None:
    page = seen.page
    page.evaluate("document.activeElement.blur()")
    reached: list[str] = []
    for _ in range(80):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(
            "() => { const n = document.activeElement;"
            " return [n.id || n.className,"
            " getComputedStyle(n).outlineStyle !== 'none']; }"
        )
        if reached and name == reached[0]:
            break
        if name and name not in reached:  # the player has several parts
            reached.append(name)
            assert outlined, f"{name} does not show that it has the focus"
    for name in ("pause", "gain", "frame", "player-speed", "filter-kind", "log"):
        assert name in reached


def test_filters_of_the_log(seen: Visit) -> None:
    page = seen.page
    page.select_option("#filter-kind", "rejected")
    seen.until(EVERY_ROW.format(number=4, condition="is('rejected')"))
    page.select_option("#filter-kind", "heard")
    seen.until(EVERY_ROW.format(number=4, condition="!is('rejected')"))
    page.select_option("#filter-unit", "e")
    is_e = "querySelector('.unit')?.innerText.endsWith('e')"
    seen.until(EVERY_ROW.format(number=1, condition="row." + is_e))
    n_rows = rows(seen)
    page.fill("#filter-to", "0.5")
    assert rows(seen) < n_rows
    page.fill("#filter-to", "1")
    page.select_option("#filter-unit", "")
    page.select_option("#filter-kind", "both")
    page.fill("#filter-text", "near miss")
    seen.until(EVERY_ROW.format(number=1, condition="is('near_miss')"))


def test_steering_sets_the_temperature(seen: Visit, run: PagedRun) -> None:
    page = seen.page
    seen.until("() => document.querySelector('#steering select').value === 'predict'")
    page.fill("#steering input[type=number]", "0.7")
    said = page.locator("#steering .said")
    # A busy machine may refuse a command that its lane did not take in time.
    for _ in range(5):
        page.click("text=Set temperature")
        seen.until(
            "() => !document.querySelector('#steering .said').innerText.endsWith('…')"
        )
        if "done" in said.inner_text():
            break
    assert said.inner_text() == "Temperature 0.7: done."
    assert any(
        event["arguments"] == {"temperature": 0.7} for event in run.events("control")
    )
    page.click("#steering summary")
    page.get_by_role("button", name="Status").click()
    seen.until(
        "() => document.querySelector('#steering .said').innerText.startsWith('Run ')"
    )
    assert "takes no commands" in said.inner_text()
    assert "temperature=0.7" in said.inner_text()
    page.get_by_role("button", name="Stop the run").click()
    assert page.locator("#confirm").get_attribute("open") is not None
    page.click("#confirm-no")
    assert run.events("control")[0]["command"] != "stop"


@pytest.mark.parametrize(("scheme", "size"), [("light", "desktop"), ("dark", "phone")])
def test_axe_finds_nothing_serious(
    browser: Browser, run: PagedRun, scheme: str, size: str
) -> None:
    options = {"viewport": PHONE} if size == "phone" else {}
    opened = visit(browser, run.url, color_scheme=scheme, **options)
    opened.until(LABELS + "5")
    opened.page.evaluate(
        "() => document.querySelectorAll('main details').forEach((d) => {"
        " d.open = true; })"
    )
    opened.until("() => document.querySelectorAll('#summary tr').length > 0")
    found = Axe().run(opened.page).response["violations"]
    serious = [
        (one["id"], [node["html"] for node in one["nodes"]][:3])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    opened.page.context.close()
    assert serious == []


def test_a_phone_needs_no_sideways_scrolling(browser: Browser, run: PagedRun) -> None:
    opened = visit(browser, run.url, viewport=PHONE, has_touch=True)
    opened.until(LABELS + "5")
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.tap("#pause")
    opened.until("() => !neurovocal.report()[0].live")
    page.tap("summary:has-text('Display')")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    low = page.evaluate(
        "() => [...document.querySelectorAll('main button')]"
        ".filter((b) => b.offsetParent && b.offsetHeight < 24).length"
    )
    assert low == 0  # what a finger can hit (WCAG 2.2, target size)
    page.context.close()


def test_a_hidden_page_asks_for_no_columns(browser: Browser, run: PagedRun) -> None:
    opened = visit(browser, run.url)
    opened.until(LABELS + "1")
    page = opened.page
    page.evaluate(
        "() => { Object.defineProperty(document, 'hidden', {value: true,"
        " configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    # What was sent before the request arrived is drawn; then no new column comes.
    opened.until(
        "() => new Promise((done) => { const s ="
        " [...neurovocal.page.model.streams.values()][0];"
        " const before = s.epoch.rings.frames.newest; const labels ="
        " s.segments.length; const look = () => s.segments.length > labels ?"
        " done(s.epoch.rings.frames.newest === before) : setTimeout(look, 50);"
        " look(); })"
    )
    page.context.close()
