"""Durations, silences and ends of the units of a bundle's plan: its tables."""

from dataclasses import dataclass

import numpy as np

from neurovocal.engine import Bundle, BundleError, Float32
from neurovocal.engine.contracts.bundle import PlanSpec
from neurovocal.plugins.storage.npz import read_npz


@dataclass(frozen=True, slots=True, eq=False)
class PlanTables:
    """Distributions that lengths are drawn from, as quantiles of annotated song.

    Parameters
    ----------
    durations : float32[n_units, n_quantiles]
        Frames of a unit.
    gaps : float32[n_units, n_units, n_quantiles]
        Frames of silence between a unit and the one after it.
    pauses : float32[n_quantiles]
        Frames of silence between two phrases.
    ends : float32[n_units]
        Probability that a phrase ends after the unit.
    rest_frame : float32[n_visible]
        Frame of silence that a song begins after.
    rest_state : float32[n_layers, n_recurrent]
        State before that frame.
    """

    durations: Float32
    gaps: Float32
    pauses: Float32
    ends: Float32
    rest_frame: Float32
    rest_state: Float32


def load_tables(bundle: Bundle, spec: PlanSpec) -> PlanTables:
    """Read the tables of a bundle's plan.

    Raises
    ------
    BundleError
        Arrays are missing, or have other shapes than the manifest states.
    """
    path = bundle.path(spec.tables_file)
    arrays = read_npz(path, "tables of the plan", *PlanTables.__slots__)
    tables = PlanTables(**{name: arrays[name] for name in PlanTables.__slots__})
    n, q = len(spec.units), tables.pauses.shape[-1:]
    expected = (
        (n, *q),
        (n, n, *q),
        q,
        (n,),
        (spec.n_visible,),
        (spec.n_layers, spec.n_recurrent),
    )
    shapes = tuple(getattr(tables, name).shape for name in PlanTables.__slots__)
    if shapes != expected or not q or q[0] < 2:
        raise BundleError(
            f"tables of the plan '{path}' are not for {n} units and "
            f"{spec.n_recurrent} recurrent units"
        )
    return tables


def draw_length(quantiles: Float32, chance: float) -> int:
    """Return the length at a quantile of a distribution, in frames, at least 1.

    Parameters
    ----------
    quantiles : float32[n_quantiles]
        Lengths at evenly spaced quantiles from 0 to 1.
    chance : float
        Uniform random number in [0, 1).
    """
    at = chance * (len(quantiles) - 1)
    length = np.interp(at, np.arange(len(quantiles)), quantiles)
    return max(1, round(float(length)))
