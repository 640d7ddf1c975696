"""A browser for the tests of the page, and a run that they look at."""

from collections.abc import Iterator

import pytest
from browser.chromium import chromium
from browser.engines import PagedRun
from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagedRun]:
    """A finch that sings without end; losses, near misses and a synthesis included."""
    paged = PagedRun(
        tmp_path_factory.mktemp("run"),
        detector={"plugin": "energy", "options": {"near_misses": True}},
        models=[
            {"plugin": "classifier"},
            {"plugin": "rnn_rbm", "options": {"synthesis": "predict", "seed": 7}},
        ],
        faults=[{"fault": "drop", "at_s": 3.0, "for_s": 0.4}],
    )
    with paged.started():
        yield paged
