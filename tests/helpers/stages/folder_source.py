"""Helpers for tests of the folder source: build it, read it, write recordings."""

import json

import numpy as np
import soundfile

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Health, StreamEnd, StreamInfo
from neurovocal.plugins.sources.folder.source import plugin

RATE = 8000


def make(folder, clock=None, **options):
    options = {"path": str(folder), "follow": False, **options}
    context = BuildContext(clock or ManualClock(), "run")
    return plugin.build(plugin.options(**options), context)


def write(path, n_samples=800, seed=0, channels=1):
    values = np.random.default_rng(seed).uniform(-1, 1, (n_samples, channels))
    soundfile.write(path, values, RATE, subtype="PCM_16")
    return path


def read_confirmed(source):
    """Read an item; confirm the end of a recording, as if all sinks had kept it."""
    item = source.read(0.5)
    if not isinstance(item, StreamEnd):
        return item
    source.confirm(item, True)
    return None


def read_all(source, limit=100_000):
    """Read all items until the end, or until `limit` reads have returned None.

    The ends of recordings are confirmed, as if all sinks had kept their events.
    """
    source.open()
    items = []
    while limit:
        try:
            item = read_confirmed(source)
        except EndOfStream:
            break
        if item is None:
            limit -= 1
        else:
            items.append(item)
    source.close()
    return items


def names(items):
    return [item.stream for item in items if isinstance(item, StreamInfo)]


def health_of(items):
    return [(item.state, item.detail) for item in items if isinstance(item, Health)]


def statuses(state):
    """Return the last status of each recording in the lines of a state file."""
    entries = map(json.loads, state.splitlines())
    return {entry["file"]: entry["verdict"] for entry in entries}
