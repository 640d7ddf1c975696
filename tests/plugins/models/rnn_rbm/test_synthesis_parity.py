"""Parity of the shipped bundle's graphs and torch, with the same weights and noise.

Each frame is drawn after the same frames, while each side keeps its own state: fed
back, rounding errors would grow for a while (up to 1e-2) before they decay. Noise
within rounding of a unit's probability, a few numbers in ten thousand, is moved away
from it, so that both sides draw the same unit.
"""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes.cli_process import RECORDING

from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import ManualClock
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.types import Frames, Offset, StreamInfo, Synthesis
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.models.training.transfer import Origin
from neurovocal.plugins.models.rnn_rbm.model import plugin
from neurovocal.plugins.models.rnn_rbm.sampler import Sampler
from neurovocal.plugins.models.rnn_rbm.seed_audio import last_frames

N_FRAMES = 500
TOLERANCE = 1e-4
FEEDBACKS = ["mean", "sampled", "mean_residual"]
MARGIN = 1e-4


class RecordedNoise:
    """Random generator that returns recorded numbers."""

    def __init__(self) -> None:
        self.numbers: list[np.ndarray] = []
        self.moved = self.count = 0

    def record(self, noise: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Return uniform noise, moved away from the probabilities `p`."""
        near = np.abs(p - noise) < MARGIN
        self.moved += int(near.sum())
        self.count += near.size
        side = np.where(p > 0.5, -2 * MARGIN, 2 * MARGIN)
        return np.where(near, p + side, noise).astype(np.float32)

    def random(self, shape: Any = None, dtype: Any = None) -> np.ndarray:
        return self.numbers.pop(0)

    standard_normal = random


class TorchReference:
    """The shipped RNN-RBM in torch."""

    def __init__(self) -> None:
        self.bundle = load_bundle("bengalese-finch")
        origin = Origin.load("bengalese-finch")
        spec = self.bundle.manifest.rnn_rbm
        assert spec is not None
        config = origin.recipe(TrainConfig()).rnn_rbm
        assert config is not None
        self.model = RnnRbm(config, spec.n_visible)
        origin.initialize_rnn_rbm(self.model)
        self.model.eval()
        self.spec = spec
        with np.load(self.bundle.path(spec.residual_file)) as arrays:
            self.residual = {name: torch.from_numpy(arrays[name]) for name in arrays}

    def states(self, frames: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return self.model.states(
                torch.from_numpy(frames)[:, None], self.model.initial_state()
            )

    def predictions(self, frames: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            bv, bh = self.model.biases(self.states(frames)[:, -1])
            return self.model.predict(torch.from_numpy(frames)[:, None], bv, bh)[
                :, 0
            ].numpy()

    def generate(
        self,
        frame: np.ndarray,
        u: torch.Tensor,
        noise_record: RecordedNoise,
        feedback: str,
    ) -> np.ndarray:
        """Draw frames, and record all random numbers."""
        rng, drawn = np.random.default_rng(3), []
        for _ in range(N_FRAMES):
            with torch.no_grad():
                v = torch.from_numpy(frame)[None, None]
                u = self.model.states(v, u)[0]
                bv, bh = self.model.biases(u[-1])
                v, rows = v[0], []
                for _ in range(self.spec.gibbs_steps):
                    noise = rng.random(self.model.n_hidden, dtype=np.float32)
                    p = self.model.hidden(v, bh)[0].numpy()
                    rows.append(noise_record.record(noise, p))
                    row = torch.from_numpy(rows[-1])[None, None]
                    v = self.model.gibbs(v, bv, bh, row)
            noise_record.numbers.append(np.array(rows))
            frame = v[0].numpy()
            if feedback == "sampled":
                uniform = rng.random(len(frame), dtype=np.float32)
                noise_record.numbers.append(noise_record.record(uniform, frame))
                frame = (noise_record.numbers[-1] < frame).astype(np.float32)
            elif feedback == "mean_residual":
                frame = frame + self.error(u[-1, 0], rng, noise_record)
                frame = np.clip(frame, 0, 1).astype(np.float32)
            drawn.append(frame)
        # The last tile may draw more than is compared; one to three numbers a frame.
        noise_record.numbers += noise_record.numbers[-120:]
        return np.array(drawn)

    def error(
        self, u: torch.Tensor, rng: np.random.Generator, noise_record: RecordedNoise
    ) -> np.ndarray:
        """Sample the residual from the mixture."""
        with torch.no_grad():
            scores = u @ self.residual["gate_weight"] + self.residual["gate_bias"]
            edges = torch.softmax(scores, 0).cumsum(0)[:-1].numpy()
        chance = rng.random(dtype=np.float32)
        while np.abs(edges - chance).min() < MARGIN:
            chance = rng.random(dtype=np.float32)
        normal = rng.standard_normal(self.spec.n_visible, dtype=np.float32)
        noise_record.numbers += [np.array(chance), normal]
        number = int((edges <= chance).sum())
        mean = self.residual["mixture_mean"][number]
        chol = self.residual["mixture_chol"][number]
        return (mean + chol @ torch.from_numpy(normal)).numpy()


@pytest.fixture(scope="module")
def reference() -> TorchReference:
    torch.set_num_threads(1)
    return TorchReference()


@pytest.fixture(scope="module")
def live(reference: TorchReference) -> np.ndarray:
    """Frames of the last ten seconds of the shipped recording."""
    return last_frames(RECORDING, reference.bundle)[: N_FRAMES + 40]


def synthesize(
    reference: TorchReference, live: np.ndarray, mode: str, **options: Any
) -> Any:
    """Return the frames that the plugin synthesizes in a mode."""
    front_end = reference.bundle.manifest.front_end
    hop, length = front_end.hop_length, front_end.frame_length
    context = BuildContext(
        clock=ManualClock(),
        run="test",
        info=StreamInfo("x", front_end.sample_rate),
        bundle=reference.bundle,
        base=Path.cwd(),
    )
    checked = plugin.options.model_validate({"synthesis": mode, **options})
    model = plugin.build(checked, context)
    events: list[Any] = []
    for k in range(0, len(live), 8):
        events += model.process(Frames(k, hop, length, live[k : k + 8]))
        if k == 24:
            events += model.process(Offset(0, 0, 25 * hop + length, False))
    parts = [e.values for e in events if isinstance(e, Synthesis)]
    return np.concatenate(parts)[:N_FRAMES]


def assert_equal(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape == (N_FRAMES, expected.shape[1])
    errors = np.abs(found - expected).max(axis=1)
    assert errors.max() <= TOLERANCE, f"first at frame {np.argmax(errors > TOLERANCE)}"


def test_predictions_are_those_of_torch(
    reference: TorchReference, live: np.ndarray
) -> None:
    found = synthesize(reference, live, "predict")
    assert_equal(found, reference.predictions(live)[:N_FRAMES])


@pytest.mark.parametrize("feedback", FEEDBACKS)
@pytest.mark.parametrize("mode", ["continue", "free", "prime"])
def test_generated_frames_are_those_of_torch(
    reference: TorchReference,
    live: np.ndarray,
    mode: str,
    feedback: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"feedback": feedback, "continue_frames": N_FRAMES}
    rest = np.zeros_like(live[0]), reference.model.initial_state()
    start = {"continue": (live[25], reference.states(live)[24]), "free": rest}
    if mode == "prime":
        seed_frames = last_frames(RECORDING, reference.bundle)
        start["prime"] = seed_frames[-1], reference.states(seed_frames)[-2]
        options["prime"] = str(RECORDING)
    noise_record = RecordedNoise()
    expected = reference.generate(*start[mode], noise_record, feedback)
    assert noise_record.moved < 1e-3 * noise_record.count
    start_sampler = Sampler.start

    def start_with_recorded_noise(self: Sampler, *seed: Any) -> None:
        start_sampler(self, *seed)
        monkeypatch.setattr(self, "_rng", noise_record)

    def step_after_the_expected_frame(self: Sampler) -> np.ndarray:
        drawn = step(self)
        count = next(steps)
        if count < N_FRAMES:
            self.frame = expected[count]
        return drawn

    step, steps = Sampler.step, itertools.count()
    monkeypatch.setattr(Sampler, "start", start_with_recorded_noise)
    monkeypatch.setattr(Sampler, "step", step_after_the_expected_frame)
    assert_equal(synthesize(reference, live, mode, **options), expected)
