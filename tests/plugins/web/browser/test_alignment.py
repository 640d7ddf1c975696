"""Spectrogram and boxes of the page, beside sounds whose onsets are known."""

from pathlib import Path

import numpy as np
from browser.chromium import visit
from browser.engines import PagedRun
from playwright.sync_api import Browser

from neurovocal.engine import BuildContext
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.plugins.sources.synthetic import SyntheticOptions, SyntheticSource

RATE, FRAME = 32000, 256
SOUND = {"sample_rate": RATE, "duration_s": 600.0, "snr_db": 40.0, "seed": 3}
# What the page has drawn where, and the loudness of each pixel column of the
# spectrogram as the screen shows it: of one moment, since the page goes on drawing.
DRAWN = """() => {
  const picture = [...neurovocal.page.pictures.values()][0];
  const { x, y, width, height } = picture.boxes.heard;
  const image = picture.context.getImageData(x, y + 12, width, height - 24);
  const found = [];
  for (let column = 0; column < width; column += 1) {
    let sum = 0;
    for (let row = 0; row < image.height; row += 1) {
      sum += 255 - image.data[4 * (row * width + column)];
    }
    found.push(sum / image.height);
  }
  return { columns: found, geometry: neurovocal.report()[0].geometry };
}"""


def test_sounds_are_drawn_within_one_frame_of_their_samples(
    browser: Browser, tmp_path: Path
) -> None:
    options = SyntheticOptions.model_validate(SOUND)
    source = SyntheticSource(options, BuildContext(ManualClock(), "run"))
    truth = [unit.onset for unit in source.truth()]
    paged = PagedRun(
        tmp_path,
        source={"plugin": "synthetic", "options": SOUND | {"pace": "realtime"}},
        bundle=None,
        detector={"plugin": "energy"},
    )
    with paged.started():
        opened = visit(browser, paged.url)
        opened.until("() => neurovocal.report()[0]?.newest > 5")
        opened.page.keyboard.press("Space")
        # No boxes, whose lines are dark, too: only what the samples made.
        opened.page.evaluate(
            "() => { for (const s of neurovocal.page.model.streams.values())"
            " { s.segments.length = 0; s.misses.length = 0; s.version += 1; } }"
        )
        before = opened.report()[0]["geometry"]["pixelsPerSecond"]
        opened.page.keyboard.press("+")
        opened.page.keyboard.press("+")
        opened.until(
            "before => { const { geometry } = neurovocal.report()[0];"
            " return geometry.segments.length === 0"
            " && geometry.pixelsPerSecond > 2 * before; }",
            before,
        )
        drawn = opened.page.evaluate(DRAWN)
        columns, geometry = np.array(drawn["columns"]), drawn["geometry"]
        opened.page.context.close()
    per_second = geometry["pixelsPerSecond"]
    compared = 0
    quiet, loud = np.percentile(columns, [20, 95])
    for onset in truth:
        x = (onset / RATE - geometry["left"]) * per_second
        if not 20 < x < len(columns) - 20:
            continue
        near = columns[round(x) - 15 : round(x) + 16]
        above = near > (quiet + loud) / 2
        if above[:8].any() or not above.any():
            continue  # another sound ends there, or this one is faint
        edge = round(x) - 15 + int(np.argmax(above))
        assert abs(edge - x) / per_second <= (FRAME / RATE) + 1.5 / per_second
        compared += 1
    assert compared >= 3
