"""A bundle's RNN-RBM by itself: it hears a past and sings on."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import bundle_frames
from neurovocal.plugins.models.onnx.session import Golden, Graph, finite
from neurovocal.plugins.models.rnn_rbm.sampler import Feedback, Sampler, sampling_graph
from neurovocal.plugins.sources.audio_files.file import Recording, inspect

# Frames that are drawn between two looks at the progress.
_AT_ONCE = 25


def frames_of_recording(bundle: Bundle, path: Path) -> Float32:
    """Frames of a recording's first channel at the bundle's rate.

    Returns
    -------
    float32[n_frames, n_bins]

    Raises
    ------
    AudioFileError
        The recording cannot be read.
    ConfigError
        It is shorter than two frames.
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
            f"'{path}' is too short to go on from: a past has at least two frames "
            f"({front_end.frame_length + front_end.hop_length} samples)"
        )
    return frames


class SequenceGenerator:
    """Draws frames one after the other, from a past on.

    Parameters
    ----------
    bundle : Bundle
        Must have an RNN-RBM.
    past : float32[n_frames, n_bins], optional
        What was heard before; by default the bundle's golden frames, a second or two
        of the animal itself.
    temperature, gibbs_steps, feedback
        As for `Sampler`.
    seed : int
        The same seed, options and past give the same frames.

    Attributes
    ----------
    past : float32[n_frames, n_bins]
        What was heard.
    gibbs_steps : int
        Per frame.

    Raises
    ------
    BundleError
        The bundle has no RNN-RBM, or one that does not fit.
    """

    def __init__(
        self,
        bundle: Bundle,
        past: Float32 | None = None,
        *,
        temperature: float = 1.0,
        gibbs_steps: int | None = None,
        feedback: Feedback = "mean_residual",
        seed: int = 0,
    ) -> None:
        spec = bundle.manifest.rnn_rbm
        if spec is None:
            raise BundleError(
                f"bundle '{bundle.folder}' has no rnn_rbm: it cannot sing; train one "
                "with a recipe that has `rnn_rbm`"
            )
        state = (spec.n_layers, spec.n_recurrent)
        listening = Graph(
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
        self.past = finite(Golden(bundle).frames if past is None else past)
        silence = np.zeros(state, np.float32)
        (heard,) = listening.try_run({"frames": self.past[:-1], "u": silence})
        self._sampler.start(self.past[-1], finite(heard), (seed,))

    def sing(self, n_frames: int) -> Iterator[Float32]:
        """Yield ``n_frames`` frames in parts, float32[n_part, n_bins]."""
        for first in range(0, n_frames, _AT_ONCE):
            yield self._sampler.draw(min(_AT_ONCE, n_frames - first))
