"""The page of an engine that asks for a token."""

from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from browser.chromium import visit
from browser.engines import PagedRun
from playwright.sync_api import Browser
from processes.waiting import until

TOKEN = "correct-horse-battery"


def test_a_wrong_token_is_told_and_a_right_one_opens(
    browser: Browser, tmp_path: Path
) -> None:
    source = {
        "plugin": "synthetic",
        "options": {"duration_s": None, "pace": "realtime"},
    }
    paged = PagedRun(
        tmp_path,
        source=source,
        bundle=None,
        detector={"plugin": "energy"},
        web={"token": TOKEN},
    )
    with paged.started():
        opened = visit(browser, paged.url)
        page = opened.page
        assert page.url.endswith("/login")
        violations = Axe().run(page).response["violations"]
        serious = [v for v in violations if v["impact"] in ("serious", "critical")]
        assert serious == []
        page.fill("input[name=token]", "wrong-horse-battery")
        page.click("button")
        until(lambda: page.get_by_role("alert").inner_text() != "")
        assert page.url.endswith("/login")
        page.fill("input[name=token]", TOKEN)
        page.keyboard.press("Enter")
        opened.until("() => window.neurovocal?.report()[0]?.newest > 1")
        # A session that ended is told, and not taken for a server that is away.
        page.context.clear_cookies()
        page.evaluate("neurovocal.page.connection.open()")
        opened.until(
            "() => document.querySelector('#connection').innerText"
            ".startsWith('signed out')"
        )
        page.context.close()
