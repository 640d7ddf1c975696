"""Histories of the models: rows, and running sums of posteriors."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from neurovocal.plugins.models.history import PosteriorHistory, RowHistory


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    first=st.integers(0, 1000),
    data=st.data(),
)
def test_posterior_history_sums_any_recent_frames(
    counts: list[int], first: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(-3, 1, (sum(counts), 3))
    history = PosteriorHistory(3, keep=60)
    done = 0
    for count in counts:
        history.append(first + done, rows[done : done + count])
        done += count
    assert history.stop == first + done
    oldest = max(0, done - 60)
    assert history.first - first <= oldest
    lo = data.draw(st.integers(oldest, done))
    hi = data.draw(st.integers(lo, done))
    got = history.sum_before(first + hi) - history.sum_before(first + lo)
    np.testing.assert_allclose(got, rows[lo:hi].sum(axis=0), atol=1e-9)
    nearest = history.nearest(first + done + 5)
    np.testing.assert_allclose(nearest, rows[-1], atol=1e-9)


def test_posterior_history_is_bounded() -> None:
    history = PosteriorHistory(3, keep=100)
    for k in range(0, 100_000, 8):
        history.append(k, np.full((8, 3), -1.0))
        assert history.stop - history.first <= 2 * 100 + 8
    total = history.sum_before(100_000) - history.sum_before(99_950)
    np.testing.assert_allclose(total, -50.0)


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    first=st.integers(0, 500),
)
def test_row_history_returns_recent_rows_only(counts: list[int], first: int) -> None:
    rows = np.arange(sum(counts) * 2, dtype=np.float32).reshape(-1, 2)
    history = RowHistory((2,), keep=50)
    done = 0
    for count in counts:
        history.append(first + done, rows[done : done + count])
        done += count
    for k in range(max(0, done - 50), done):
        row = history.get(first + k)
        assert row is not None
        assert np.array_equal(row, rows[k])
    assert history.get(first + done) is None
    assert history.get(first - 1) is None
    known = sum(history.get(first + k) is not None for k in range(done))
    assert known <= 2 * 50 + 40
