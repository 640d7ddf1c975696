"""Names that would do harm if the page took them for HTML."""

import json

from browser.chromium import visit
from browser.engines import HubPage
from playwright.sync_api import Browser

EVIL = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>&amp;\''
SWAP = "\u202egnp.exe\u0000\u2066"  # characters that turn the direction of text
LONG = "u" * 4096


def test_names_are_shown_as_text(browser: Browser) -> None:
    with HubPage(EVIL, SWAP) as engine:
        for number, unit in enumerate((EVIL, SWAP, LONG, "__proto__", "a"), start=1):
            engine.send_label(number, unit=unit, stream=EVIL)
            engine.send_label(number, unit=unit, stream=SWAP, station="s1")
        for stage in (EVIL, "constructor"):
            engine.send(
                "health", 9000, stream=EVIL, stage=stage, state="failed", detail=EVIL
            )
        engine.send("gap", 9000, stream=EVIL, start=9000, stop=9500, reason=EVIL)
        arguments = {EVIL: {EVIL: [EVIL]}}
        engine.send(
            "control", 9500, stream=EVIL, command=EVIL, model=EVIL, arguments=arguments
        )
        opened = visit(browser, engine.url)
        opened.until("() => neurovocal.page.tallies.labels === 10")
        page = opened.page
        page.select_option("#filter-kind", "all")
        opened.until("() => document.querySelectorAll('.log-row').length >= 10")
        opened.until("() => document.querySelector('#health').innerText.length > 20")
        text = page.locator("body").inner_text()
        assert "<img src=x" in text
        assert "\\u202e" in text  # made visible
        assert (
            page.evaluate("document.querySelectorAll('img, body script').length") == 0
        )
        assert page.evaluate("window.hit") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= 1400
        assert opened.problems == []
        page.context.close()


def test_messages_that_make_no_sense_do_not_stop_the_page(browser: Browser) -> None:
    with HubPage("aviary") as engine:
        opened = visit(browser, engine.url)
        opened.until("() => document.querySelector('#connection').innerText === 'live'")
        engine.hub.tell(json.dumps({"type": "of a later version", "x": 1}))
        engine.send("sighting", 100, species="of a later version")
        engine.send("label", 5000, segment=9, unit="a")  # fields are missing
        engine.send("stats", 5000, values={})
        for number in range(1, 4):
            engine.send_label(number)
        opened.until("() => neurovocal.page.tallies.labels >= 3")
        opened.until("() => neurovocal.report()[0]?.geometry !== null")
        assert opened.problems == []
        opened.page.context.close()


def test_very_many_names_are_bounded(browser: Browser) -> None:
    with HubPage("aviary") as engine:
        for number in range(1, 401):
            engine.send_label(number, unit=f"u{number}", stream=f"s{number % 100}")
        opened = visit(browser, engine.url)
        opened.until("() => neurovocal.page.tallies.labels === 400")
        page = opened.page
        assert page.evaluate("neurovocal.page.model.streams.size") <= 64
        assert page.evaluate("neurovocal.page.tallies.units.size") <= 201
        assert page.locator("article.stream").count() <= 3
        assert page.locator("#units tr").count() <= 24
        page.context.close()
