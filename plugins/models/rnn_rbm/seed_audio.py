"""A recording as the past of a song."""

from pathlib import Path
from typing import Any

import numpy as np

from neurovocal.engine.audio.resampler import Resampler
from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.plugin import BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import Block, Float32, StreamInfo
from neurovocal.plugins.models.onnx.session import Graph, finite
from neurovocal.plugins.models.rnn_rbm.song import GenerationSeed

# A recurrent state forgets within a second or two; more would only take time.
_LAST_S = 10.0


def past_of_recording(
    path: Path, bundle: Bundle, scoring: Graph, rest: GenerationSeed
) -> GenerationSeed:
    """Hear the end of a recording: its last frame, and the state before it.

    Parameters
    ----------
    path : Path
        Any file that libsndfile reads; its first channel counts.
    bundle : Bundle
        Whose front end hears it.
    scoring : Graph
        The bundle's RNN-RBM.
    rest : Past
        Where hearing begins.

    Raises
    ------
    ConfigError
        There is no such recording, or it is shorter than two frames.
    """
    frames = _frames(path, bundle)
    if len(frames) < 2:
        raise ConfigError(f"prime: '{path}' is shorter than two frames")
    _, _, states, _ = scoring.run({"frames": finite(frames), "u": rest.state})
    return GenerationSeed(frames[-1].copy(), finite(states[-2]).copy())


def _frames(path: Path, bundle: Bundle) -> Float32:
    """Frames of the recording's end, float32[n_frames, n_bins]."""
    samples, rate = _read(path)
    front_end = bundle.manifest.front_end
    block = Block(0, samples)
    parts: list[Any] = [block]
    if rate != front_end.sample_rate:
        resampler = Resampler(rate, front_end.sample_rate)
        parts = [*resampler.process(block), *resampler.flush()]
    info = StreamInfo("prime", front_end.sample_rate)
    context = BuildContext(clock=SystemClock(), run="prime", info=info, bundle=bundle)
    plugin = Registry().get("features", front_end.plugin)
    features = plugin.build(plugin.options.model_validate(front_end.options), context)
    found = [f.values for part in parts for f in features.process(part)]
    found += [f.values for f in features.flush()]
    empty = np.empty((0, front_end.n_bins), np.float32)
    return np.concatenate([empty, *found])


def _read(path: Path) -> tuple[Float32, int]:
    import soundfile

    if not path.is_file():
        raise ConfigError(f"prime: '{path}' cannot be read (no such file)")
    try:
        with soundfile.SoundFile(path) as file:
            rate: int = file.samplerate
            file.seek(max(0, file.frames - round(_LAST_S * rate)))
            samples = file.read(dtype="float32", always_2d=True)[:, :1]
    except (OSError, soundfile.LibsndfileError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"prime: '{path}' cannot be read ({reason})") from error
    return np.nan_to_num(samples, posinf=0.0, neginf=0.0), rate
