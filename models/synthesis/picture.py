"""Real and drawn song as spectrograms, one above the other."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neurovocal.engine.errors import ConfigError
from neurovocal.engine.manifest import FrontEnd
from neurovocal.engine.types import Float32

_SHOWN_S = 2.0
_SHADES = 12  # more would only make the file larger


def draw_picture(path: Path, songs: Mapping[str, Float32], front_end: FrontEnd) -> None:
    """Write a PNG of the first two seconds of each song.

    Parameters
    ----------
    path : Path
    songs : mapping of str to float32[n_frames, n_bins]
        Title and scaled frames.
    front_end : FrontEnd
        Rate and hop of the frames.

    Raises
    ------
    ConfigError
        The file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    frames_per_s = front_end.sample_rate / front_end.hop_length
    figure, axes = pyplot.subplots(
        len(songs), 1, sharex=True, figsize=(9, 0.95 * len(songs)), squeeze=False
    )
    for (name, song), axis in zip(songs.items(), axes[:, 0], strict=True):
        shown = np.asarray(song)[: round(_SHOWN_S * frames_per_s)]
        axis.imshow(
            shown.T,
            origin="lower",
            aspect="auto",
            cmap=pyplot.get_cmap("magma", _SHADES),
            vmin=0,
            vmax=1,
            extent=(0, len(shown) / frames_per_s, 0, shown.shape[1]),
        )
        axis.set_yticks([])
        axis.set_ylabel(name.replace("_", "\n"), rotation=0, ha="right", va="center")
    axes[-1, 0].set_xlabel("s")
    figure.tight_layout(pad=0.3)
    try:
        figure.savefig(path, dpi=64)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--picture '{path}' cannot be written: {error}") from error
    finally:
        pyplot.close(figure)
