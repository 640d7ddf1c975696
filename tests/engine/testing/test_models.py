"""Conformance check of models: a correct one passes, each faulty one is found."""

import numpy as np
import pytest
from stages.example_stages import SONG, Framer, LevelDetector

from neurovocal.engine.contracts.types import (
    Frames,
    Gap,
    Label,
    Offset,
    Onset,
    Posteriors,
)
from neurovocal.engine.testing import check_model, recut


class Namer:
    """Correct model: a running sum, and a label at the end of each segment."""

    latency = 0

    def __init__(self):
        self.reset()

    def reset(self):
        self.sum, self.onset = np.float32(0), None

    def process(self, item):
        match item:
            case Gap():
                self.reset()
            case Frames():
                rows = self.sum + np.cumsum(item.values.sum(axis=1), dtype=np.float32)
                self.sum = rows[-1]
                yield Posteriors(item.first, 64, 128, rows[:, None])
            case Onset():
                self.onset = item.sample
            case Offset():
                yield self.label(item)

    def label(self, item):
        unit = f"{float(self.sum):.6g}"
        return Label(item.segment, item.onset, item.sample, unit, 0.5, "final", "n")

    def flush(self):
        return ()


def broken_models():
    class Keeps(Namer):
        """`reset` keeps the state."""

        def reset(self):
            self.sum = getattr(self, "sum", np.float32(0))

    class Across(Namer):
        """A gap keeps the state."""

        def process(self, item):
            return () if isinstance(item, Gap) else super().process(item)

    class Random(Namer):
        """Draws from a generator without a seed."""

        def process(self, item):
            if isinstance(item, Frames):
                self.sum = np.float32(np.random.default_rng().normal())
            return super().process(item)

    class Writes(Namer):
        """Changes the frames that other models get."""

        def process(self, item):
            if isinstance(item, Frames):
                item.values[:] += 1
            return super().process(item)

    class Explodes(Namer):
        """The state grows without bound."""

        def process(self, item):
            with np.errstate(all="ignore"):
                self.sum = np.float32(self.sum * 1e30)
                yield from super().process(item)

    class Moves(Namer):
        """Labels with another onset than the segment's."""

        def label(self, item):
            return Label(
                item.segment, item.onset + 1, item.sample, "", 0.5, "final", ""
            )

    class Invents(Namer):
        """Labels of segments without an onset."""

        def label(self, item):
            return Label(
                item.segment + 1, item.onset, item.sample, "", 0.5, "final", ""
            )

    class Certain(Namer):
        """Posteriors above one."""

        def label(self, item):
            return Label(item.segment, item.onset, item.sample, "", 1.5, "final", "")

    class Hasty(Namer):
        """A final label without an offset."""

        def label(self, item):
            return Label(item.segment, item.onset, None, "", 0.5, "final", "")

    class Mute(Namer):
        """Returns no event."""

        def process(self, item):
            return ()

    return [
        (Keeps, "reset: something was kept"),
        (Across, "gap: something was kept"),
        (Random, "two models differ"),
        (Writes, "changed its input"),
        (Explodes, "not a finite number"),
        (Moves, "onset was changed"),
        (Invents, "never began"),
        (Certain, "beyond 0 and 1"),
        (Hasty, "without offset"),
        (Mute, "no result"),
    ]


def model_items():
    """Return the items of a song in the order of a lane."""
    framer, ear = Framer(), LevelDetector()
    for block in recut(SONG, [512]):
        yield from framer.process(block)
        yield from ear.process(block)
    yield from ear.flush()


def test_a_correct_model_passes():
    check_model(Namer, list(model_items()))


@pytest.mark.parametrize(
    ("make", "sentence"),
    broken_models(),
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_model_is_found(make, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_model(make, list(model_items()))
