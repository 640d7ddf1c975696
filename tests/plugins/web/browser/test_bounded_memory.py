"""A page that stays open for a day does not grow."""

import numpy as np
import pytest
from browser.chromium import visit
from browser.engines import HubPage
from playwright.sync_api import Browser, CDPSession

from neurovocal.engine import Frames

HOURS = 24
HOP = 50  # samples of 1 ms: twenty columns a second


def heap_mb(session: CDPSession) -> float:
    """Memory of the page's scripts after a collection, arrays included."""
    session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")
    return float(used["usedSize"] + used.get("backingStorageSize", 0)) / 2**20


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_day_of_events_in_the_log(browser: Browser) -> None:
    columns = np.linspace(0, 1, 20 * 64, dtype=np.float32).reshape(20, 64)
    heaps = []
    with HubPage("aviary") as engine:
        opened = visit(browser, engine.url)
        opened.until("() => document.querySelector('#connection').innerText === 'live'")
        session = opened.page.context.new_cdp_session(opened.page)
        for second in range(HOURS * 3600):
            engine.send_label(second, unit="abcdefgh"[second * 7 % 8])
            if second % 10 == 0:
                span = {"onset": 1000 * second + 500, "offset": 1000 * second + 520}
                score = {"score": 3.0, "threshold": 4.0, "reason": "quiet"}
                engine.send("near_miss", span["onset"], omitted=0, **span, **score)
            if second % 60 == 0:
                engine.send(
                    "health", 1000 * second, stage="source", state="healthy", detail=""
                )
            frames = Frames(20 * second, HOP, 2 * HOP, columns)
            engine.hub.add_columns("s0", "pond", "run1", 1000, frames)
            if second % 1000 == 999:
                opened.until(f"() => neurovocal.page.tallies.labels > {second - 5}")
            if second % 3600 == 3599:
                heaps.append(heap_mb(session))
        assert opened.page.evaluate("neurovocal.page.tallies.labels") == HOURS * 3600
        assert opened.page.evaluate("neurovocal.page.log.byKey.size") <= 6000
        assert opened.page.locator(".log-row").count() < 60
        assert opened.problems == []
        opened.page.context.close()
    print("heap in MB after each hour:", " ".join(f"{heap:.1f}" for heap in heaps))
    # Logs and pictures are full after two hours at the latest.
    assert max(heaps[3:]) <= 1.1 * max(heaps[1:3]) + 1
