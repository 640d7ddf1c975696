"""Scoring graph of a bundle's RNN-RBM, and the check of its golden vectors."""

import numpy as np

from neurovocal.engine import Bundle, Float32
from neurovocal.engine.contracts.bundle import RnnRbmSpec
from neurovocal.plugins.models.onnx.session import Golden, Graph, finite
from neurovocal.plugins.storage.npz import read_npz


def scoring_graph(bundle: Bundle, spec: RnnRbmSpec) -> Graph:
    """Open the bundle's graph over frames; its tensors: docs/reference/bundle.md."""
    state = (spec.n_layers, spec.n_recurrent)
    return Graph(
        bundle,
        spec.file,
        {"frames": (None, spec.n_visible), "u": state},
        {
            "free_energy": (None,),
            "prediction": (None, spec.n_visible),
            "states": (None, *state),
            "u_next": state,
        },
    )


def error_variance(bundle: Bundle, spec: RnnRbmSpec) -> Float32 | None:
    """Return the error variance of the prediction per bin, for Gaussian units.

    Returns
    -------
    float32[n_visible] or None
        None for Bernoulli units.
    """
    if spec.visible == "bernoulli":
        return None
    chol = read_npz(bundle.path(spec.residual_file), "residual file", "chol")["chol"]
    variance: Float32 = np.square(chol).sum(axis=1, dtype=np.float32)
    return variance


def check_golden(
    golden: Golden, scoring: Graph, sampling: Graph, zeros: Float32
) -> Float32:
    """Compare all outputs with the golden ones, and return the golden predictions.

    Raises
    ------
    BundleError
        A graph fails, or an output differs.
    """
    free_energy, prediction, states, last = scoring.try_run(
        {"frames": golden.frames, "u": zeros}
    )
    golden.check(scoring, "free_energy", free_energy)
    golden.check(scoring, "prediction", prediction)
    golden.check(scoring, "states_last", last)
    mean, _ = sampling.try_run(
        {
            "frame": golden.frames[-1:],
            "u": states[-2],
            "noise": golden["noise"],
            "temperature": np.array(1.0, np.float32),
        }
    )
    golden.check(sampling, "mean", mean)
    return finite(prediction)
