"""Detector `windows`: segments of equal length on the stream's grid."""

import numpy as np

from neurovocal.engine.contracts.types import Block, Gap, Offset, Onset
from neurovocal.engine.testing import check_processor
from neurovocal.plugins.detectors.windows import WindowsDetector


def audio(start, stop):
    return Block(start, np.zeros((stop - start, 1), np.float32))


def test_it_conforms():
    samples = np.zeros((20_000, 1), np.float32)
    check_processor(lambda: WindowsDetector(3000), samples)


def test_windows_follow_each_other_and_gaps_truncate_them():
    detector = WindowsDetector(100)
    marks = list(detector.process(audio(0, 250)))
    marks += detector.process(Gap(250, 330, "overrun"))
    marks += detector.process(audio(330, 420))
    marks += detector.flush()
    assert marks == [
        *(Onset(0, 0, 0.0), Offset(0, 0, 100, False)),
        *(Onset(1, 100, 0.0), Offset(1, 100, 200, False)),
        *(Onset(2, 200, 0.0), Offset(2, 200, 250, True)),
        *(Onset(3, 330, 0.0), Offset(3, 330, 400, False)),
        *(Onset(4, 400, 0.0), Offset(4, 400, 420, True)),
    ]
