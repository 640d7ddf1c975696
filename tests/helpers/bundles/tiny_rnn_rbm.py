"""The tiny bundle's RNN-RBM, its input frames, and its expected output."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from bundles.tiny_bundle import N_BINS, N_RECURRENT
from numpy.typing import NDArray

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import (
    Event,
    Frames,
    StreamInfo,
    Surprise,
    Synthesis,
)
from neurovocal.plugins.models.rnn_rbm.model import RnnRbm
from neurovocal.plugins.models.rnn_rbm.model import plugin as rnn_rbm_plugin
from neurovocal.plugins.models.rnn_rbm.options import PrimeOptions
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler, sampling_graph

RATE, HOP, LENGTH = 32000, 128, 256
Floats = NDArray[np.float32]


def build(folder: Path, *, latency: int = 0, **options: Any) -> RnnRbm:
    """Build the plugin with options and the detector's latency in samples."""
    context = BuildContext(
        clock=ManualClock(),
        run="test",
        info=StreamInfo("test", RATE),
        bundle=load_bundle(folder),
        detector_latency=latency,
    )
    validated = rnn_rbm_plugin.options.model_validate(options)
    model = rnn_rbm_plugin.build(validated, context)
    assert isinstance(model, RnnRbm)
    return model


def make_frames(n_frames: int, seed: int = 0) -> Floats:
    """Make scaled frames with a loud band, float32[n_frames, n_bins]."""
    rng = np.random.default_rng(seed)
    frames = rng.uniform(0, 0.3, (n_frames, N_BINS))
    frames[20:40, 30:40] += 0.6
    return frames.astype(np.float32)


def tiles(values: Floats, tile: int = 8, first: int = 0) -> list[Frames]:
    """Cut frames into tiles; the first has the number `first`."""
    return [
        Frames(first + k, HOP, LENGTH, values[k : k + tile])
        for k in range(0, len(values), tile)
    ]


def process(model: RnnRbm, items: Iterable[Any]) -> list[Event]:
    return [event for item in items for event in model.process(item)]


def surprise_of(events: Iterable[Event]) -> Floats:
    return np.concatenate([e.values for e in events if isinstance(e, Surprise)])


def synthesis_of(events: Iterable[Event]) -> list[Synthesis]:
    return [event for event in events if isinstance(event, Synthesis)]


def run(folder: Path, name: str, **feed: Any) -> dict[str, Floats]:
    """Run a graph of the bundle without the plugin."""
    session = ort.InferenceSession(str(folder / name))
    names = [output.name for output in session.get_outputs()]
    arrays = {key: np.asarray(value, np.float32) for key, value in feed.items()}
    return dict(zip(names, session.run(names, arrays), strict=True))


def scored(folder: Path, frames: Floats) -> dict[str, Floats]:
    """Run the scoring graph from a state of zeros."""
    return run(folder, "rnn_rbm.onnx", frames=frames, u=np.zeros((1, N_RECURRENT)))


def generated_frames(events: list[Any]) -> Floats:
    """Join the generated frames, and assert that none is missing between them."""
    parts = synthesis_of(events)
    for before, after in itertools.pairwise(parts):
        assert after.first == before.first + len(before.values)
    return np.concatenate([part.values for part in parts])


def draw_frames(
    folder: Path, n: int, frame: Any = 0, state: Any = 0, seed: Any = (0,), **how: Any
) -> Floats:
    """Draw `n` frames with a sampler in one call."""
    bundle = load_bundle(folder)
    spec = bundle.manifest.rnn_rbm
    assert spec is not None
    sampler = Sampler(sampling_graph(bundle, spec), bundle, **how)
    zeros = np.zeros((1, N_RECURRENT), np.float32), np.zeros(N_BINS, np.float32)
    sampler.start(zeros[1] + np.float32(frame), zeros[0] + np.float32(state), seed)
    return sampler.draw(n)


def change(model: Any, **options: Any) -> None:
    """Change options as the command ``set`` does."""
    merged = {**model.options.model_dump(), **options}
    checked = type(model.options).model_validate(merged)
    model.apply("set", model.prepare("set", checked))


def prime(model: Any, path: Path | None = None) -> None:
    """Seed the generation as the command ``prime`` does."""
    arguments = PrimeOptions(path=None if path is None else str(path))
    model.apply("prime", model.prepare("prime", arguments))
