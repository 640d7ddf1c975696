"""The page while its engine goes away and comes back."""

import json
from pathlib import Path

from browser.chromium import visit
from browser.engines import HubPage, PagedRun
from playwright.sync_api import Browser
from processes.waiting import until

from neurovocal.engine.journal import read_events, runs

FINAL = (
    "() => [...neurovocal.page.log.byKey.values()].filter((r) => r.status === 'final')"
)
DRAWN = "() => neurovocal.drawn().filter((d) => d.status === 'final').length >= "


def test_no_label_is_missing_after_a_restart_of_the_engine(
    browser: Browser, tmp_path: Path
) -> None:
    paged = PagedRun(tmp_path, models=[{"plugin": "classifier"}])
    with paged.started() as first:
        opened = visit(browser, paged.url)
        opened.until(DRAWN + "10")
        paged.interrupt(first)
        opened.until(
            "() => document.querySelector('#connection').innerText"
            ".includes('next try in')"
            " && document.querySelector('header').innerText.includes('Try now')"
        )
    with paged.started() as second:
        until(lambda: len(paged.events("label")) > 20)
        opened.until("() => document.querySelector('#connection').innerText === 'live'")
        opened.until("() => neurovocal.report()[0].geometry !== null")
        known = len(opened.page.evaluate(f"({FINAL})()"))
        opened.until(f"() => ({FINAL})().length > {known + 5}")
        paged.interrupt(second)
    opened.until(
        "() => document.querySelector('#connection').innerText"
        ".startsWith('not connected')"
    )
    shown = opened.page.evaluate(f"({FINAL})().map((r) => [r.run, r.sample, r.unit])")
    opened.page.context.close()
    kept = []
    for run in runs(paged.journal):
        for event in read_events(paged.journal, run=run.run):
            label = json.loads(event.header)
            if event.kind == "label" and label["status"] == "final":
                kept.append([run.run, label["onset"], label["unit"]])
    assert len({run for run, _, _ in kept}) == 2
    # The last ones may have been journalled when the page had lost its server.
    missing = [label for label in kept if label not in shown]
    newest = kept[-1][0]
    assert [label for label in missing if label[0] != newest] == []
    assert all(label in kept[-30:] for label in missing)


def test_lost_messages_are_fetched(browser: Browser) -> None:
    with HubPage("aviary") as engine:
        for number in range(5):
            engine.send_label(number)
        opened = visit(browser, engine.url)
        opened.until("() => neurovocal.rows() === 5")
        # A message that never reaches this browser, as behind a relay that lost it.
        opened.page.evaluate(
            "() => { const page = neurovocal.page; const take = page.takeEvent;"
            " page.takeEvent = (station, header) => header.segment === 5 ||"
            " take.call(page, station, header); }"
        )
        engine.send_label(5, unit="lost")
        engine.send_label(6)
        opened.until("() => neurovocal.rows() === 7")
        opened.until("() => neurovocal.page.tallies.units.get('lost') === 1")
        opened.page.context.close()


def test_a_server_that_is_away_is_tried_with_growing_pauses(browser: Browser) -> None:
    with HubPage("aviary") as engine:
        opened = visit(browser, engine.url)
        opened.until("() => document.querySelector('#connection').innerText === 'live'")
    opened.until("() => neurovocal.page.state.attempt >= 3")
    state = opened.page.evaluate("neurovocal.page.state")
    assert state["state"] in ("waiting", "connecting")
    assert opened.page.evaluate("document.querySelector('#said-news').textContent")
    opened.page.context.close()


def test_columns_that_were_dropped_and_messages_that_were_lost_are_told(
    browser: Browser,
) -> None:
    with HubPage("aviary") as engine:
        opened = visit(browser, engine.url)
        opened.until("() => document.querySelector('#connection').innerText === 'live'")
        engine.hub.tell('{"type":"dropped","columns":1204}')
        engine.hub.tell(
            '{"type":"lost","station":"s0","topic":"nv1/label/pond","count":3}'
        )
        opened.until(
            "() => ['1\\u2009204', '3 messages of nv1/label/pond lost'].every("
            "(words) => document.querySelector('#losses').innerText.includes(words))"
        )
        opened.page.context.close()
