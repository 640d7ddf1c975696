"""Offline generation of frames by a bundle's RNN-RBM: from a seed, or after a plan."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import bundle_frames
from neurovocal.plugins.models.onnx.session import Golden, Graph, finite
from neurovocal.plugins.models.rnn_rbm.plan.condition import SILENCE
from neurovocal.plugins.models.rnn_rbm.plan.sampler import (
    PlannedSampler,
    Planner,
    no_plan,
    parse_units,
)
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback, Sampler, sampling_graph
from neurovocal.plugins.sources.audio_files.file import Recording, inspect

# Frames of one part, after which the progress is shown.
_FRAMES_PER_PART = 25


def read_seed_frames(bundle: Bundle, path: Path) -> Float32:
    """Compute the frames of a recording's first channel at the bundle's rate.

    Returns
    -------
    float32[n_frames, n_bins]

    Raises
    ------
    AudioFileError
        The recording cannot be read.
    ConfigError
        The recording is shorter than two frames.
    """
    header = inspect(path)
    recording = Recording(header)
    recording.open()
    parts = []
    while len(part := recording.read(header.sample_rate)):
        parts.append(part[:, 0].copy())
    recording.close()
    frames = bundle_frames(bundle, np.concatenate(parts), header.sample_rate)
    if len(frames) < 2:
        front_end = bundle.manifest.front_end
        raise ConfigError(
            f"'{path}' is too short: at least two frames are needed "
            f"({front_end.frame_length + front_end.hop_length} samples)"
        )
    return frames


class SequenceGenerator:
    """Generator of a sequence of frames that continues seed frames.

    Parameters
    ----------
    bundle : Bundle
        Must have an RNN-RBM.
    seed_frames : float32[n_frames, n_bins], optional
        Frames before the first generated one; by default the bundle's golden frames,
        a second or two of the animal itself.
    temperature, gibbs_steps, feedback
        As for `Sampler`.
    seed : int
        Seed of the noise; the same seed, options and seed frames give the same
        frames.

    Attributes
    ----------
    seed_frames : float32[n_frames, n_bins]
        Frames before the first generated one.
    gibbs_steps : int
        Gibbs steps per frame.

    Raises
    ------
    BundleError
        The bundle has no RNN-RBM, or its graph does not fit the manifest.
    """

    def __init__(
        self,
        bundle: Bundle,
        seed_frames: Float32 | None = None,
        *,
        temperature: float = 1.0,
        gibbs_steps: int | None = None,
        feedback: Feedback = "mean_residual",
        seed: int = 0,
    ) -> None:
        spec = bundle.manifest.rnn_rbm
        if spec is None:
            raise BundleError(
                f"bundle '{bundle.folder}' has no rnn_rbm to generate song with; "
                "train one with a recipe that has `rnn_rbm`"
            )
        state = (spec.n_layers, spec.n_recurrent)
        scoring = Graph(
            bundle,
            spec.file,
            {"frames": (None, spec.n_visible), "u": state},
            {"u_next": state},
        )
        self._sampler = Sampler(
            sampling_graph(bundle, spec),
            bundle,
            feedback=feedback,
            temperature=temperature,
            gibbs_steps=gibbs_steps,
        )
        self.gibbs_steps = gibbs_steps or spec.gibbs_steps
        if seed_frames is None:
            seed_frames = Golden(bundle).frames
        self.seed_frames = finite(seed_frames)
        zeros = np.zeros(state, np.float32)
        (last,) = scoring.try_run({"frames": self.seed_frames[:-1], "u": zeros})
        self._sampler.start(self.seed_frames[-1], finite(last), (seed,))

    def generate(self, n_frames: int) -> Iterator[Float32]:
        """Generate `n_frames` frames; yield them in parts, float32[n_part, n_bins]."""
        for first in range(0, n_frames, _FRAMES_PER_PART):
            yield self._sampler.draw(min(_FRAMES_PER_PART, n_frames - first))


@dataclass(frozen=True, slots=True)
class SungUnit:
    """Unit of a planned song, in frames ``[first, stop)``."""

    unit: str
    first: int
    stop: int


class PlannedGenerator:
    """Generator of frames after a plan of units.

    Parameters
    ----------
    bundle : Bundle
        Must have a plan.
    units : str
        Units to sing first, separated by spaces.
    goes_on : bool
        Whether drawn units follow them, without end.
    temperature, gibbs_steps, feedback
        As for `Sampler`.
    seed : int
        Seed of all draws.

    Attributes
    ----------
    gibbs_steps : int
        Gibbs steps per frame.
    sung : list of SungUnit
        The units generated so far.

    Raises
    ------
    BundleError
        The bundle has no plan, or its graph does not fit the manifest.
    ConfigError
        A unit is none of the bundle's.
    """

    def __init__(
        self,
        bundle: Bundle,
        units: str = "",
        *,
        goes_on: bool = False,
        temperature: float = 1.0,
        gibbs_steps: int | None = None,
        feedback: Feedback = "mean_residual",
        seed: int = 0,
    ) -> None:
        spec = bundle.manifest.plan
        if spec is None:
            raise BundleError(no_plan(bundle))
        first = parse_units(units, spec.units) if units or not goes_on else ()
        planner = Planner(bundle)
        self._units = spec.units
        self._plan = planner.song_plan()
        self._sampler = PlannedSampler(
            planner,
            self._plan,
            feedback=feedback,
            temperature=temperature,
            gibbs_steps=gibbs_steps,
        )
        self._sampler.begin(first, (seed,), free=goes_on)
        self.gibbs_steps = gibbs_steps or spec.gibbs_steps
        self.sung: list[SungUnit] = []
        self._n_frames = 0

    def generate(self, n_frames: int | None) -> Iterator[Float32]:
        """Generate frames until the plan ends; yield them, float32[n_part, n_bins].

        Parameters
        ----------
        n_frames : int, optional
            Most frames; None: all.
        """
        parts: list[Float32] = []
        while not self._plan.has_ended and self._n_frames != n_frames:
            self._add(self._plan.unit)
            parts.append(self._sampler.step())
            self._n_frames += 1
            if len(parts) == _FRAMES_PER_PART:
                yield np.array(parts)
                parts = []
        if parts:
            yield np.array(parts)

    def _add(self, unit: int) -> None:
        """Count the next frame for its unit; there is silence between two units."""
        at = self._n_frames
        if unit == SILENCE:
            return
        if self.sung and self.sung[-1].stop == at:
            self.sung[-1] = SungUnit(self.sung[-1].unit, self.sung[-1].first, at + 1)
        else:
            self.sung.append(SungUnit(self._units[unit - 1], at, at + 1))
