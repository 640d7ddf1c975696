"""What the page tells of a shadow: agreement, confusions, and the end of it."""

from browser.chromium import visit
from browser.engines import HubPage
from playwright.sync_api import Browser


def compare(engine: HubPage, number: int, unit: str | None, other: str | None) -> None:
    engine.send(
        "comparison",
        1000 * number,
        onset=1000 * number,
        offset=1000 * number + 60,
        unit=unit,
        posterior=None if unit is None else 0.9,
        shadow_unit=other,
        shadow_posterior=None if other is None else 0.8,
        agrees=unit == other,
        shadow="new.yaml",
    )


def test_disagreements_are_counted_and_listed(browser: Browser) -> None:
    with HubPage("aviary") as engine:
        for number in range(8):
            compare(engine, number, "a", "a")
        compare(engine, 8, "a", "b")
        compare(engine, 9, None, "c")
        opened = visit(browser, engine.url)
        panel = opened.page.locator("#shadow-panel")
        opened.until("() => !document.querySelector('#shadow-panel').hidden")
        opened.until(
            "() => document.querySelector('#shadow').innerText.includes('80.0 %')"
        )
        text = panel.inner_text()
        assert "new.yaml" in text
        rows = panel.locator("tbody tr")
        cells = [rows.nth(n).locator("td").all_inner_texts() for n in range(2)]
        assert sorted(cells) == [["a", "b", "1"], ["nothing heard", "c", "1"]]
        assert panel.locator(".differences li").count() == 2
        # Without `control` nothing can be decided from the page.
        assert "Promote" not in text
        opened.page.select_option("#filter-kind", "shadow")
        opened.until("() => document.querySelectorAll('.log-row').length === 2")
        engine.send("control", 10000, command="swap", model="", arguments={})
        opened.until(
            "() => document.querySelector('#shadow').innerText.includes('taken over')"
        )
        assert opened.problems == []
        opened.page.context.close()


def say(engine: HubPage, sample: int, detail: str) -> None:
    engine.send("health", sample, stage="swap", state="healthy", detail=detail)


def test_a_second_shadow_of_the_same_name_is_counted_anew(browser: Browser) -> None:
    with HubPage("aviary") as engine:
        say(engine, 0, "new.yaml runs as a shadow")
        compare(engine, 1, "a", "b")
        opened = visit(browser, engine.url)
        panel = opened.page.locator("#shadow")

        def until_it_says(words: str) -> None:
            opened.until(
                f"() => document.querySelector('#shadow').innerText.includes('{words}')"
            )

        until_it_says("0.0 % of 1 segment agree")
        say(engine, 2000, "the shadow new.yaml is dropped: it was asked for")
        until_it_says("It was dropped: it was asked for.")
        say(engine, 3000, "new.yaml runs as a shadow")
        until_it_says("no segment was compared yet")
        compare(engine, 4, "a", "a")
        until_it_says("100.0 % of 1 segment agree")
        # A page that is loaded now reads the same from the past.
        opened.page.reload()
        until_it_says("100.0 % of 1 segment agree")
        assert "dropped" not in panel.inner_text()
        assert opened.problems == []
        opened.page.context.close()


def test_a_shadow_of_a_run_that_was_killed_is_not_shown_as_running(
    browser: Browser,
) -> None:
    with HubPage("aviary") as engine:
        say(engine, 0, "new.yaml runs as a shadow")
        compare(engine, 1, "a", "b")
        opened = visit(browser, engine.url)
        words = "document.querySelector('#shadow').innerText"
        opened.until(f"() => {words}.includes('0.0 % of 1 segment agree')")
        engine.send_label(5)
        opened.until("() => document.querySelectorAll('.log-row').length > 0")
        assert "ended" not in opened.page.locator("#shadow").inner_text()
        engine.send_label(0, run="run2")
        opened.until(f"() => {words}.includes('It ended with its run.')")
        opened.page.reload()
        engine.send_label(1, run="run2")
        opened.until(f"() => {words}.includes('It ended with its run.')")
        assert opened.problems == []
        opened.page.context.close()
