"""A file source, its items, and recordings for it."""

from pathlib import Path

import numpy as np
import soundfile

from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.errors import EndOfStream
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Block
from neurovocal.plugins.sources.file import plugin

RATE = 16_000


def make(clock=None, base=Path(), **options):
    context = BuildContext(clock or ManualClock(), "run", base, stream="lane")
    return plugin.build(plugin.options(**options), context)


def problems(base=Path(), **options):
    context = BuildContext(ManualClock(), "run", base)
    return list(plugin.check(plugin.options(**options), context))


def read_all(source, timeout=10.0):
    source.open()
    try:
        return rest_of(source, timeout)
    finally:
        source.close()


def rest_of(source, timeout=10.0):
    items = []
    while True:
        try:
            item = source.read(timeout)
        except EndOfStream:
            return items
        if item is not None:
            items.append(item)


def samples_of(items):
    return np.concatenate([i.samples for i in items if isinstance(i, Block)])


def noise(count, channels=1, seed=0):
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, (count, channels))
    return values.astype(np.float32)


def write(path, values, rate=RATE, **kwargs):
    soundfile.write(path, values, rate, **kwargs)
    return str(path)
