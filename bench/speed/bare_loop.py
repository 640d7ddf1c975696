"""Bare loop over a bundle's networks: the least that the same results can cost.

The loop has what the mathematics needs and nothing else: windowed transform (without
the frame's mean, where the bundle says so), power, scaling, a fixed threshold on the
level of a band, the bundle's ONNX graphs with their state fed back. It has no grid that
survives a gap, no noise floor, no hysteresis, no segments, no labels, no surprise, no
check of its input, and it stops at the first error.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from neurovocal.engine.config.plan import Plan
from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.types import Block, Float32, StreamInfo
from neurovocal.engine.lane.builder import build_lane
from neurovocal.engine.lane.lane import Lane
from neurovocal.engine.lane.stage import Timer
from neurovocal.plugins.features.options import SpectrogramOptions
from neurovocal.plugins.features.scaling import load_scaling
from neurovocal.plugins.features.spectrum import density_gain, window_of

BAND_HZ = (500.0, 10_000.0)
THRESHOLD = 1e-4  # mean square in the band
_WARM_UP_FRAMES = 500
_STRETCH_FRAMES = 100


class BareLoop:
    """Spectrogram, threshold and networks of a bundle, tile by tile, without an engine.

    Parameters
    ----------
    bundle : Bundle
        Its front end is a scaled logarithmic spectrogram.
    tile : int
        Frames per call.
    networks : sequence of {'classifier', 'rnn_rbm'}
        Graphs to run.
    """

    def __init__(self, bundle: Bundle, tile: int, networks: tuple[str, ...]) -> None:
        front_end = bundle.manifest.front_end
        options = SpectrogramOptions.model_validate(front_end.options)
        if options.scale != "log" or options.scaling is None:
            raise ValueError("the bare loop has a scaled logarithmic spectrogram only")
        rate, hop = front_end.sample_rate, front_end.hop_length
        length, _, n_fft = options.lengths(rate)
        self.samples_per_call = tile * hop
        self._remove_mean = options.detrend == "constant"
        self._window = window_of(options.window, length, options.tukey_alpha)
        self._gain = density_gain(self._window, rate, n_fft)
        self._floor = np.float32(options.floor)
        file, clip = options.scaling.file, options.scaling.clip
        self._scaling = load_scaling(bundle, file, front_end.n_bins, clip)
        low, high = (round(hz * n_fft / rate) for hz in BAND_HZ)
        self._band = slice(low, high)
        self._hz_per_bin = rate / n_fft

        self._overlap = length - hop
        self._samples = np.zeros(self._overlap + tile * hop, np.float32)
        self._frames = np.lib.stride_tricks.sliding_window_view(self._samples, length)[
            ::hop
        ]
        self._windowed = np.zeros((tile, n_fft), np.float32)
        self._spectrum = np.zeros((tile, n_fft // 2 + 1), np.complex64)
        self._networks = [_Network(bundle, name) for name in networks]

    def process(self, samples: Float32) -> tuple[Any, list[Any]]:
        """Return which frames are loud, and the outputs of the networks.

        Parameters
        ----------
        samples : float32[samples_per_call]
            The samples after those of the last call.
        """
        kept = self._samples
        kept[: self._overlap] = kept[self.samples_per_call :]
        kept[self._overlap :] = samples
        frames, windowed = self._frames, self._windowed[:, : len(self._window)]
        if self._remove_mean:
            mean = np.add.reduce(frames, axis=1, keepdims=True)
            mean /= len(self._window)
            frames = np.subtract(frames, mean, out=windowed)
        np.multiply(frames, self._window, out=windowed)
        spectrum = np.fft.rfft(self._windowed, axis=-1, out=self._spectrum)
        values = np.square(spectrum.real)
        values += np.square(spectrum.imag)
        values *= self._gain
        level = np.add.reduce(values[:, self._band], axis=1) * self._hz_per_bin
        is_loud = level > THRESHOLD
        values += self._floor
        np.log10(values, out=values)
        self._scaling.apply(values)
        return is_loud, [network.run(values) for network in self._networks]


class _Network:
    """ONNX graph of a bundle whose state outputs are its next state inputs."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = bundle.path(getattr(bundle.manifest, name).file)
        self._session = onnxruntime.InferenceSession(
            Path(path).read_bytes(), options, ["CPUExecutionProvider"]
        )
        inputs = {i.name: i.shape for i in self._session.get_inputs()}
        # A graph of several channels has an axis for them: here it has length 1.
        self._has_channels = len(inputs.pop("frames")) == 3
        self._state = {
            name: np.zeros([n if isinstance(n, int) else 1 for n in shape], np.float32)
            for name, shape in inputs.items()
        }
        outputs = [output.name for output in self._session.get_outputs()]
        self._next = [(name, outputs.index(f"{name}_next")) for name in self._state]

    def run(self, frames: Float32) -> list[Float32]:
        rows = frames[:, None] if self._has_channels else frames
        outputs: list[Float32] = self._session.run(
            None, {"frames": rows, **self._state}
        )
        for name, index in self._next:
            self._state[name] = outputs[index]
        return outputs


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time per frame of a lane and of the bare loop, in microseconds.

    Parameters
    ----------
    tile : int
        Frames per call.
    stages : str
        What was run, in words.
    lane_us, bare_us : float
        Each stretch of 0.4 s at its fastest of all rounds: what other programs take
        from the machine for a while does not count.
    parts_us : dict of str to float
        Of each stage of the lane, and of the lane around them: medians of the rounds,
        with the time that measuring them takes.
    """

    tile: int
    stages: str
    lane_us: float
    bare_us: float
    parts_us: dict[str, float]

    @property
    def ratio(self) -> float:
        """Cost of the lane as a multiple of that of the bare loop."""
        return self.lane_us / self.bare_us


class Pair:
    """A lane and the bare loop over the same networks, run in turn on the same audio.

    Parameters
    ----------
    plan : Plan
        The first lane's detector, bundle and first models are used.
    tile : int
        Frames per call; the audio comes in blocks of as many hops.
    n_models : int
        Models to run, in the order of the configuration.
    """

    def __init__(self, plan: Plan, tile: int, n_models: int) -> None:
        stages = plan.lanes[0]
        models = list(stages.models)[:n_models]
        if stages.bundle is None:
            raise ValueError("the configuration names no bundle")
        names = tuple(model.config.plugin for model in models)
        self.tile = tile
        self.stages = " + ".join(("detector", *names))
        self._plan = replace(stages, models=models)
        self._context = replace(plan.context, tile=tile)
        self._rate = stages.bundle.manifest.front_end.sample_rate
        self._lane = self._built(perf_counter_ns)
        self._parts = self._built(thread_time_ns)
        self._bare = BareLoop(stages.bundle, tile, names)
        self._rounds_us: list[NDArray[np.float64]] = []  # [n_stretches, 2] per frame
        self._parts_us: dict[str, list[float]] = {}

    def run(self, samples: Float32) -> None:
        """Measure one round; the lane's stream goes on from the last one.

        Parameters
        ----------
        samples : float32[n_samples, 1]
            At the bundle's rate.
        """
        length = self._bare.samples_per_call
        count = len(samples) // length
        pieces = [samples[i * length : (i + 1) * length] for i in range(count)]
        if not self._lane.position:
            n_warm_up = -(-_WARM_UP_FRAMES // self.tile)
            self._run_all([pieces[i % count] for i in range(n_warm_up)])
        busy_ns = [stage.metrics.busy_ns for stage in self._parts.stages]
        n_frames = count * self.tile
        spent_us = self._run_all(pieces) / 1000 / n_frames
        self._rounds_us.append(spent_us[:, :2])
        rest_us = float(spent_us[:, 2].sum())
        for stage, before in zip(self._parts.stages, busy_ns, strict=True):
            part_us = (stage.metrics.busy_ns - before) / 1000 / n_frames
            self._parts_us.setdefault(stage.plugin, []).append(part_us)
            rest_us -= part_us
        self._parts_us.setdefault("around them", []).append(rest_us)

    def cost(self) -> Cost:
        """Return the medians of all rounds."""
        lane_us, bare_us = np.min(self._rounds_us, axis=0).sum(axis=0).tolist()
        return Cost(
            tile=self.tile,
            stages=self.stages,
            lane_us=lane_us,
            bare_us=bare_us,
            parts_us={name: median(us) for name, us in self._parts_us.items()},
        )

    def _built(self, timer: Timer) -> Lane:
        info = StreamInfo("bench", self._rate, 1)
        return build_lane(
            self._plan, info, 0, self._context, wants_frames=True, timer=timer
        )

    def _run_all(self, pieces: list[Float32]) -> NDArray[np.int64]:
        """Measure lane, bare loop and lane with timed parts, in turn.

        Returns
        -------
        int64[n_stretches, 3]
            CPU time in ns.
        """
        position, length = self._lane.position, self._bare.samples_per_call
        blocks = [Block(position + i * length, p) for i, p in enumerate(pieces)]
        columns = [np.ascontiguousarray(piece[:, 0]) for piece in pieces]
        spent_ns = []
        # In turn for short stretches: the machine's speed changes within a round.
        step = max(1, _STRETCH_FRAMES // self.tile)
        for first in range(0, len(blocks), step):
            part = slice(first, first + step)
            times_ns = [thread_time_ns()]
            _drain(self._lane, blocks[part])
            times_ns.append(thread_time_ns())
            for column in columns[part]:
                self._bare.process(column)
            times_ns.append(thread_time_ns())
            _drain(self._parts, blocks[part])
            times_ns.append(thread_time_ns())
            spent_ns.append(np.diff(times_ns))
        return np.array(spent_ns)


def _drain(lane: Lane, blocks: list[Block]) -> None:
    for block in blocks:
        for _ in lane.process(block):
            pass
