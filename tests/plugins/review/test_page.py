"""The review page in a real browser, by keyboard and by pointer."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.chromium import PHONE, Visit, chromium, visit
from playwright.sync_api import Browser
from processes.waiting import until as wait_until
from stages.reviews import RATE, collection, session, tones

from neurovocal.engine.support.endpoints import Address
from neurovocal.plugins.review.server import ReviewPage
from neurovocal.plugins.review.session import Edit, Query, ReviewSession
from neurovocal.plugins.web.access import Access
from neurovocal.plugins.web.server import PageServer

HOSTILE = "<img src=x onerror=document.title='hacked'>"
SEGMENTS = [
    (0.5, 0.7, "a"),
    (1.0, 1.2, "b"),
    (1.3, 1.5, "b"),
    (2.0, 2.3, HOSTILE),
    (3.0, 3.1, "a"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def review(tmp_path: Path) -> ReviewSession:
    path = tones(tmp_path / "song.wav", [each[:2] for each in SEGMENTS], 4.0)
    return session(tmp_path / "songs.review.sqlite", collection(path, SEGMENTS))


@pytest.fixture
def url(review: ReviewSession, tmp_path: Path) -> Iterator[str]:
    page = ReviewPage(lambda: review, tmp_path / "songs-reviewed", author="Ada")
    server = PageServer(Address("127.0.0.1", 0), Access(), page.routes(at_root=True))
    server.start()
    yield server.url
    server.stop()
    page.close()


def until(seen: Visit, script: str, argument: object = None) -> None:
    """Wait for the page; its policy forbids what Playwright's own waiting does."""
    wait_until(lambda: seen.page.evaluate(script, argument))


def opened(browser: Browser, url: str, **options: object) -> Visit:
    found = visit(browser, url, **options)
    until(found, "document.body.dataset.ready === 'yes'")
    found.page.evaluate(LISTEN)
    return found


def press(seen: Visit, *keys: str) -> None:
    for key in keys:
        seen.page.keyboard.press(key)


# All that the line of the status has said: a text may be followed by the next before
# it is looked at.
LISTEN = """() => {
    window.told = [];
    new MutationObserver((changes) => {
        for (const change of changes)
            for (const node of change.addedNodes) told.push(node.textContent);
    }).observe(document.getElementById('status'), {childList: true});
}"""
TOLD = """(text) => {
    const place = (window.told ?? []).findIndex((each) => each.includes(text));
    if (place >= 0) told.splice(0, place + 1);
    return place >= 0 || document.getElementById('status').textContent.includes(text);
}"""


def status(seen: Visit, text: str) -> None:
    """Wait until the page tells something, or has told it since the last wait."""
    until(seen, TOLD, text)


def events(review: ReviewSession) -> list[tuple[str, str]]:
    return [(event.author, event.action) for event in review.events()]


def times(review: ReviewSession) -> list[tuple[float, float, str]]:
    found, _ = review.select(Query())
    return [
        (round(s.onset / RATE, 3), round(s.offset / RATE, 3), s.unit) for s in found
    ]


def test_three_segments_by_keyboard_alone(browser, url, review):
    seen = opened(browser, url)
    press(seen, "b")  # the first one is a b
    status(seen, "b: labelled.")
    press(seen, "Enter")  # the second one is right
    status(seen, "b: confirmed.")
    press(seen, "Control+z")
    status(seen, "Undone.")
    assert [s.reviewed for s in review.select(Query())[0]][:2] == [True, False]
    press(seen, "Control+y")
    status(seen, "Done again.")
    press(seen, "+")
    status(seen, "Merged with the next.")
    assert times(review)[1] == (1.0, 1.5, "b")
    press(seen, "/", "ArrowLeft", "ArrowLeft", "Enter")
    status(seen, "Split.")
    assert times(review)[1:3] == [(1.0, 1.23, "b"), (1.23, 1.5, "b")]
    press(seen, "[")
    status(seen, "moves the onset")
    press(seen, "ArrowLeft", "Shift+ArrowLeft", "Escape")
    status(seen, "")
    until(seen, "() => document.getElementById('facts').textContent.includes('340 ms')")
    # The page shows an edge before the server has it.
    wait_until(lambda: times(review)[1] == (0.89, 1.23, "b"))
    assert events(review) == [
        ("Ada", action)
        for action in (
            *("label", "confirm", "undo", "redo", "merge", "split"),
            *("move", "move"),
        )
    ]
    press(seen, "Delete")
    status(seen, "Deleted.")
    assert times(review)[1] == (1.23, 1.5, "b")
    assert seen.problems == []
    assert len(seen.hosts) == 1


def test_a_late_answer_takes_no_edge_back(browser, url, review):
    seen = opened(browser, url)
    held = []

    def hold_the_first(route):
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    seen.page.route("**/events?*", hold_the_first)
    press(seen, "/", "Enter")
    status(seen, "Split.")
    wait_until(lambda: seen.page.evaluate("1") and held)
    press(seen, "[", "ArrowLeft")
    status(seen, "oved")
    route, answer = held[0]  # it tells the split, and knows no move
    with seen.page.expect_response("**/events?*"):
        route.fulfill(response=answer)
    press(seen, "Shift+ArrowLeft", "Escape")
    wait_until(lambda: len(events(review)) == 3)
    assert times(review)[0] == (0.39, 0.6, "a")


def test_hostile_names_are_text(browser, url, review):
    seen = opened(browser, url)
    press(seen, "ArrowDown", "ArrowDown", "ArrowDown")
    until(seen, "t => document.getElementById('what').textContent.includes(t)", HOSTILE)
    press(seen, "F2")
    seen.page.keyboard.press("Control+a")
    seen.page.keyboard.type("<script>document.title='hacked'</script>")
    press(seen, "Enter")
    status(seen, "labelled.")
    assert times(review)[3][2] == "<script>document.title='hacked'</script>"
    assert "hacked" not in seen.page.title()
    assert seen.page.locator("img").count() == 0
    assert seen.problems == []


def test_units_are_typed_where_no_letter_is_enough(browser, url, review):
    seen = opened(browser, url)
    press(seen, "x")
    until(seen, "() => document.getElementById('label-dialog').open")
    seen.page.keyboard.type("y")
    press(seen, "Enter")
    status(seen, "xy: labelled.")
    press(seen, ".")
    until(seen, "() => document.getElementById('progress-words').textContent[0] == '2'")
    assert [unit for _, _, unit in times(review)][:2] == ["xy", "xy"]
    press(seen, "x")
    until(seen, "() => document.getElementById('label-dialog').open")
    press(seen, "Escape")
    assert len(events(review)) == 2


def test_a_drag_adds_and_an_edge_is_dragged(browser, url, review):
    seen = opened(browser, url)
    box = seen.page.locator("#picture").bounding_box()
    left, width = box["x"] + 46, box["width"] - 46
    view_s = 1.0  # five times 0.2 s around the first segment
    middle = box["y"] + box["height"] / 2

    def x(at_s: float) -> float:
        return left + (at_s - 0.1) / view_s * width

    seen.page.mouse.move(x(0.7), middle)
    seen.page.mouse.down()
    seen.page.mouse.move(x(0.75), middle, steps=5)
    seen.page.mouse.up()
    status(seen, "Moved.")
    assert times(review)[0] == pytest.approx((0.5, 0.75, "a"), abs=0.011)
    seen.page.mouse.move(x(0.2), middle)
    seen.page.mouse.down()
    seen.page.mouse.move(x(0.4), middle, steps=5)
    seen.page.mouse.up()
    status(seen, "Added: label it")
    assert times(review)[0] == pytest.approx((0.2, 0.4, ""), abs=0.011)
    press(seen, "a")
    status(seen, "a: labelled.")


def test_what_another_reviewer_does_is_told(browser, url, review):
    ada = opened(browser, url)
    bob = opened(browser, url)
    bob.page.fill("#author", "Bob")
    bob.page.locator("#picture").focus()
    press(bob, "b")
    status(bob, "b: labelled.")
    status(ada, "Bob has made 1 change.")
    until(ada, "() => document.getElementById('history').textContent.includes('Bob')")
    press(ada, "a")
    status(ada, "a: labelled.")
    assert events(review) == [("Bob", "label"), ("Ada", "label")]


def test_a_newer_change_that_was_not_seen_is_told(browser, url, review):
    ada = opened(browser, url)
    # Between two looks for changes of others.
    ada.page.evaluate(
        "window.fetch = (f => (u, o) => String(u).includes('events?')"
        " ? new Promise(() => {}) : f(u, o))(window.fetch)"
    )
    review.edit(Edit("label", "Bob", "s0", seen=0, unit="b"))
    press(ada, "c")
    until(ada, "() => document.getElementById('label-dialog').open")
    press(ada, "Enter")
    until(
        ada,
        "() => document.getElementById('status').textContent.includes('Bob had ch')",
    )


def test_sound_that_is_gone_is_told_and_labels_go_on(browser, url, review, tmp_path):
    (tmp_path / "song.wav").unlink()
    seen = visit(browser, url)
    until(seen, "document.body.dataset.ready === 'yes'")
    status(seen, "song.wav")
    press(seen, "b")
    # What is told of the label is followed by the missing sound of the next segment.
    wait_until(lambda: times(review)[0][2] == "b")
    status(seen, "song.wav")


def test_export_by_the_button(browser, url, review, tmp_path):
    seen = opened(browser, url)
    press(seen, "Enter")
    status(seen, "confirmed")
    seen.page.click("#export-open")
    seen.page.click("#export-go")
    until(
        seen,
        "() => document.getElementById('export-result').textContent"
        ".includes('neurovocal train')",
    )
    assert (tmp_path / "songs-reviewed" / "annotations.csv").is_file()


def test_filters_and_orders(browser, url, review):
    seen = opened(browser, url)
    assert seen.page.locator("#list li").count() == 5
    seen.page.select_option("#unit", "a")
    until(seen, "() => document.querySelectorAll('#list li').length === 2")
    seen.page.select_option("#unit", "")
    seen.page.check("#unreviewed")
    until(seen, "() => document.querySelectorAll('#list li').length === 5")
    press(seen, "Enter")
    status(seen, "confirmed")
    seen.page.select_option("#order", "unit")
    until(seen, "() => document.querySelectorAll('#list li').length === 4")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible(browser, url, theme):
    seen = opened(browser, url, color_scheme=theme)
    press(seen, "Enter")
    status(seen, "confirmed")
    for prepare in ("", "help-open", "export-open", "name-unit"):
        if prepare:
            seen.page.click(f"#{prepare}")
        found = Axe().run(seen.page).response["violations"]
        serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
        assert serious == [], f"{prepare}: {found}"
        press(seen, "Escape")


def test_it_fits_a_phone(browser, url):
    seen = opened(browser, url, viewport=PHONE)
    width = seen.page.evaluate("document.documentElement.scrollWidth")
    assert width <= PHONE["width"]
