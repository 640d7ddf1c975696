"""Recording as the seed of a generated sequence."""

from pathlib import Path

from neurovocal.engine import Bundle, ConfigError, Float32
from neurovocal.engine.lane.offline import bundle_frames
from neurovocal.plugins.models.onnx.session import Graph, finite
from neurovocal.plugins.models.rnn_rbm.sequence import GenerationSeed

# The recurrent state depends on the last second or two; more would only take time.
_LAST_S = 10.0


def seed_from_recording(
    path: Path, bundle: Bundle, scoring: Graph, rest: GenerationSeed
) -> GenerationSeed:
    """Compute the last frame of a recording, and the recurrent state before it.

    Parameters
    ----------
    path : Path
        Any file that libsndfile reads; its first channel is used.
    bundle : Bundle
        Bundle whose front end computes the frames.
    scoring : Graph
        Scoring graph of the bundle's RNN-RBM.
    rest : GenerationSeed
        Seed whose state the recording begins from.

    Raises
    ------
    ConfigError
        There is no such recording, or it is shorter than two frames.
    """
    frames = last_frames(path, bundle)
    if len(frames) < 2:
        raise ConfigError(f"prime: '{path}' is shorter than two frames")
    _, _, states, _ = scoring.run({"frames": finite(frames), "u": rest.state})
    return GenerationSeed(frames[-1].copy(), finite(states[-2]).copy())


def last_frames(path: Path, bundle: Bundle) -> Float32:
    """Compute the frames of a recording's last ten seconds, float32[n_frames, n_bins].

    Raises
    ------
    ConfigError
        There is no such recording.
    """
    samples, rate = _read_end(path)
    return bundle_frames(bundle, samples, rate)


def _read_end(path: Path) -> tuple[Float32, int]:
    """Read the last ten seconds: float32[n_samples] and their sample rate."""
    import soundfile

    if not path.is_file():
        raise ConfigError(f"prime: '{path}' cannot be read (no such file)")
    try:
        with soundfile.SoundFile(path) as file:
            rate: int = file.samplerate
            file.seek(max(0, file.frames - round(_LAST_S * rate)))
            samples = file.read(dtype="float32", always_2d=True)[:, 0]
    except (OSError, soundfile.LibsndfileError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"prime: '{path}' cannot be read ({reason})") from error
    return samples, rate
