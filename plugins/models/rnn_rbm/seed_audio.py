"""A recording as the past of a song."""

from pathlib import Path

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.lane.offline import bundle_frames
from neurovocal.plugins.models.onnx.session import Graph, finite
from neurovocal.plugins.models.rnn_rbm.sequence import GenerationSeed

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
    """Compute the frames of the end of a recording, float32[n_frames, n_bins]."""
    samples, rate = _read(path)
    return bundle_frames(bundle, samples, rate)


def _read(path: Path) -> tuple[Float32, int]:
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
