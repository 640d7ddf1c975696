"""Export of the RNN-RBM that draws frames after a plan, with its tables."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from neurovocal.engine.contracts.bundle import PlanSpec
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.data.frames import LabelledFrames
from neurovocal.models.rnn_rbm.graph import sampling_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.rnn_rbm.planned import annotated_items
from neurovocal.models.rnn_rbm.residual import collect_errors, fit_residual
from neurovocal.models.toolkit.files import write_npz
from neurovocal.models.toolkit.onnx_session import GraphExport
from neurovocal.models.toolkit.recipe import RnnRbmConfig
from neurovocal.models.toolkit.rows import Rows
from neurovocal.models.training.export.parity import check_planned, stable_noise
from neurovocal.plugins.models.rnn_rbm.plan.condition import (
    LEAD_IN_FRAMES,
    SILENCE,
    PlanItem,
    is_silence,
    plan_rows,
)

_QUANTILES = 33
# Silences between the same two units that make a distribution of their own.
_FEWEST_GAPS = 5
_GOLDEN_FRAMES = 100
_GOLDEN_STEPS = 20
# A pause where no recording has one.
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class TrainedPlan:
    """RNN-RBM after a plan, and the songs it was trained on.

    Parameters
    ----------
    model : RnnRbm
    config : RnnRbmConfig
    units : list of str
        Names of the units, without silence.
    train_songs, valid_songs : sequence of Rows
        Frames with their plan (`planned_songs`).
    train : sequence of LabelledFrames
        Recordings that the tables are computed from.
    pause_frames : float
        Silence that ends a phrase.
    frames_per_s : float
        Frame rate.
    """

    model: RnnRbm
    config: RnnRbmConfig
    units: list[str]
    train_songs: Sequence[Rows]
    valid_songs: Sequence[Rows]
    train: Sequence[LabelledFrames]
    pause_frames: float
    frames_per_s: float


def write_plan(
    export: GraphExport, trained: TrainedPlan, residual_level: float, seed: int
) -> PlanSpec:
    """Write and check ``rnn_rbm_plan.onnx``, its residual noise and its tables.

    Parameters
    ----------
    export : GraphExport
        Bundle that receives them; its golden vectors hold `frames`.
    trained : TrainedPlan
    residual_level : float
        Level of the noise of drawn frames, relative to the errors.
    seed : int
        Seed of noise and clusters.

    Raises
    ------
    BundleError
        torch and ONNX Runtime disagree, or the state does not contract.
    """
    model, config, n_units = trained.model.eval(), trained.config, len(trained.units)
    path = export.save(sampling_graph(model), "rnn_rbm_plan.onnx")
    frames = export.golden["frames"][:_GOLDEN_FRAMES]
    each = max(1, -(-_GOLDEN_FRAMES // (n_units + 1)))
    items = [PlanItem(unit, each) for unit in range(n_units + 1)]
    plan = plan_rows(items, n_units)[: len(frames)]
    rows = np.concatenate([frames[: len(plan)], plan], axis=1)
    rng = np.random.default_rng(seed)
    noise = stable_noise(model, rows, _GOLDEN_STEPS, rng)
    found, mean = check_planned(model, path, rows, noise)
    export.parity["plan"] = found
    with torch.no_grad():
        states = model.states(torch.from_numpy(rows)[:, None], model.initial_state())
    export.golden.update(
        {
            "plan_condition": rows[-1:, model.n_visible :],
            "plan_state": states[-2, :, 0].numpy(),
            "plan_frame": rows[-1:, : model.n_visible],
            "plan_noise": noise,
            "plan_mean": mean,
        }
    )
    train_errors, valid_errors = (
        collect_errors(model, songs, config.gibbs_steps, rng)
        for songs in (trained.train_songs, trained.valid_songs)
    )
    residual = fit_residual(
        train_errors, valid_errors, config.residual_components, seed
    )
    residual |= {
        name: np.float32(residual_level) * residual[name]
        for name in ("mixture_mean", "mixture_chol")
        if name in residual
    }
    write_npz(export.folder / "plan_residual.npz", residual)
    tables = unit_tables(
        trained.train, n_units, trained.pause_frames, trained.frames_per_s
    )
    tables |= rest_of(model, trained.train_songs)
    write_npz(export.folder / "plan.npz", tables)
    return PlanSpec(
        units=trained.units,
        n_visible=model.n_visible,
        n_condition=model.n_condition,
        n_hidden=model.n_hidden,
        n_recurrent=model.n_recurrent,
        n_layers=model.n_layers,
        gibbs_steps=config.gibbs_steps,
    )


def unit_tables(
    train: Sequence[LabelledFrames],
    n_units: int,
    pause_frames: float,
    frames_per_s: float,
) -> dict[str, Float32]:
    """Compute the quantiles of durations and silences of annotated song.

    Returns
    -------
    dict of str to float32 array
        `durations`, `gaps`, `pauses` and `ends` of `PlanTables`.
    """
    durations: list[list[int]] = [[] for _ in range(n_units)]
    gaps: dict[tuple[int, int], list[int]] = {}
    after: list[list[int]] = [[] for _ in range(n_units)]
    pauses: list[int] = []
    ends = np.zeros(n_units)
    for example in train:
        last, gap = None, 0
        for item in annotated_items(example):
            if item.unit == SILENCE:
                gap = item.n_frames
                continue
            unit = item.unit - 1
            durations[unit].append(item.n_frames)
            if last is not None and gap > pause_frames:
                pauses.append(gap)
                ends[last] += 1
            elif last is not None:
                gaps.setdefault((last, unit), []).append(gap)
                after[last].append(gap)
            last, gap = unit, 0
        if last is not None:
            ends[last] += 1
    every = [gap for part in after for gap in part] or [round(pause_frames / 4)]
    table = np.empty((n_units, n_units, _QUANTILES), np.float32)
    for first in range(n_units):
        for second in range(n_units):
            known = gaps.get((first, second), [])
            if len(known) < _FEWEST_GAPS:
                known = after[first] or every
            table[first, second] = _quantiles(known)
    counts = np.array([len(part) for part in durations])
    pause = round(_PAUSE_S * frames_per_s)
    return {
        "durations": np.stack([_quantiles(part or [1]) for part in durations]),
        "gaps": table,
        "pauses": _quantiles(pauses or [max(pause, round(pause_frames))]),
        "ends": (ends / np.maximum(counts, 1)).astype(np.float32),
    }


def rest_of(model: RnnRbm, songs: Sequence[Rows]) -> dict[str, Float32]:
    """Return a recorded silence before song, and the state before it.

    It is the longest silence before a song but for its last frames, in which the
    plan already leads to the first unit.
    """
    leads = []
    for song in songs:
        rows = song[:]
        silent = is_silence(rows[:, model.n_visible :])
        n_silent = len(rows) if silent.all() else int(np.argmin(silent))
        leads.append(rows[: max(2, n_silent - LEAD_IN_FRAMES)])
    lead = max(leads, key=len)
    with torch.no_grad():
        v, plan = model.split(torch.from_numpy(lead)[:, None])
        inputs = torch.cat([v[:-1], plan[1:]], dim=-1)
        states = model.states(inputs, model.initial_state())
    return {
        "rest_frame": np.ascontiguousarray(lead[-1, : model.n_visible]),
        "rest_state": states[-1, :, 0].numpy(),
    }


def _quantiles(lengths: Sequence[int]) -> Float32:
    """Return evenly spaced quantiles of lengths, float32[n_quantiles]."""
    levels = np.linspace(0, 1, _QUANTILES)
    found: Float32 = np.quantile(np.array(lengths, float), levels).astype(np.float32)
    return found
