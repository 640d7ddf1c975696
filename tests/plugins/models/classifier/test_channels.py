"""Stages of a bundle for several channels: the events are those of one by one."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT
from stages.channels import Pair
from stages.lanes import script

from neurovocal.engine.cli.session import plan_of
from neurovocal.engine.config.schema import locate_config
from neurovocal.engine.contracts.types import StreamInfo
from neurovocal.engine.lane.builder import build_lane

RECORDING = ROOT / "configs" / "recordings" / "bengalese-finch.flac"
N_CHANNELS = 5
LENGTHS = st.lists(st.integers(500, 9000), min_size=1, max_size=8)


def song_of_channels():
    """Return parts of a song, faint and loud, and one channel without a sound."""
    samples, rate = soundfile.read(RECORDING, stop=12 * 32_000, dtype="float32")
    starts = [0, 40_000, 120_000, 200_000]
    columns = [samples[start : start + 3 * rate] for start in starts]
    columns[2] = columns[2] * np.float32(0.05)
    columns.append(np.zeros(3 * rate, np.float32))
    return np.stack(columns, axis=1), rate


ARRAY, RATE = song_of_channels()


def pair_of(n_models, tile, *settings):
    plan = plan_of(locate_config("demo", list(settings)))
    lane = replace(plan.lanes[0], models=list(plan.lanes[0].models)[:n_models])
    context = replace(plan.context, tile=tile)
    info = StreamInfo("array", RATE, N_CHANNELS)
    return Pair(
        lambda: build_lane(lane, info, 0, context, wants_frames=True),
        N_CHANNELS,
        RATE,
    )


@pytest.fixture(scope="module", params=[1, 8], ids=["tile 1", "tile 8"])
def classifiers(request):
    return pair_of(1, request.param)


def test_labels_of_channels_together_are_those_of_each(classifiers):
    items = script(ARRAY, [(50_000, 2_000)], [1600])
    alone, together = classifiers.play(items)
    assert together.blocks_together > 20
    for own, joint in zip(alone.events, together.events, strict=True):
        assert joint == own
    steps = [step for channel in alone.events for step in channel]
    labels = [event for _, events in steps for event in events if event[0] == "Label"]
    assert {label[6] for label in labels} == {"provisional", "revised", "final"}


def test_surprise_and_songs_of_channels_together_are_those_of_each():
    models = pair_of(2, 8, "models.1.options.synthesis=continue")
    alone, together = models.play(script(ARRAY[: 2 * RATE], [(30_000, 900)], [1600]))
    assert together.blocks_together > 10
    assert together.events == alone.events
    kinds = {e[0] for events in alone.events for _, step in events for e in step}
    assert {"Surprise", "Synthesis", "Label"} <= kinds


@settings(max_examples=3, deadline=None)
@given(lengths=LENGTHS, at=st.integers(0, len(ARRAY)), missing=st.integers(0, 5000))
def test_labels_do_not_depend_on_blocks(classifiers, lengths, at, missing):
    alone, together = classifiers.play(script(ARRAY, [(at, missing)], lengths))
    assert together.events == alone.events
