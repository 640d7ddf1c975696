"""A folder source, what comes of it, and recordings for it."""

import json

import numpy as np
import soundfile

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Health, StreamInfo
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


def take(source, limit=100_000):
    """All items until the end, or until `limit` reads have brought nothing."""
    source.open()
    items = []
    while limit:
        try:
            item = source.read(0.5)
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


def told(items):
    return [(item.state, item.detail) for item in items if isinstance(item, Health)]


def verdicts(state):
    """What the lines of a state say last of each recording."""
    entries = map(json.loads, state.splitlines())
    return {entry["file"]: entry["verdict"] for entry in entries}
