"""Checks that exported graphs compute the same as torch, and that states contract."""

from pathlib import Path

import numpy as np
import torch

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.onnx_session import (
    CONTRACTION_FRAMES,
    PERTURBATION,
    Session,
    check_limits,
    check_outputs,
    max_difference,
    max_relative_difference,
)

# Largest remainder of a perturbed state. The state of a generator, which receives its
# own output, must contract; that of a classifier may persist but not grow.
RBM_CONTRACTED = 1e-5
CLASSIFIER_CONTRACTED = PERTURBATION


def check_classifier(
    model: Classifier, path: Path, frames: Float32
) -> dict[str, float]:
    """Compare the classifier's graph with torch over a state-threaded run.

    Parameters
    ----------
    model : Classifier
        Trained network.
    path : Path
        File of its graph.
    frames : float32[n_frames, n_bins]
        Input frames.

    Returns
    -------
    dict
        Largest differences by name.

    Raises
    ------
    BundleError
        A difference exceeds its tolerance, or the state grows.
    """
    with torch.no_grad():
        logits, after = model(torch.from_numpy(frames)[None])
    found = check_outputs(
        path,
        {"frames": frames},
        {"logits": logits[0].numpy()},
        {name: after[name][0].numpy() for name in model.shapes},
    )
    zeros = {name: np.zeros(shape, np.float32) for name, shape in model.shapes.items()}
    contraction = _classifier_contraction(Session(path), zeros, frames)
    found["contraction"] = contraction
    check_limits(path, found, CLASSIFIER_CONTRACTED)
    return found


def check_rnn_rbm(
    model: RnnRbm,
    scoring_path: Path,
    sampling_path: Path,
    frames: Float32,
    noise: Float32,
) -> dict[str, float]:
    """Compare both graphs of the RNN-RBM with torch over a state-threaded run.

    Parameters
    ----------
    model : RnnRbm
        Trained network.
    scoring_path, sampling_path : Path
        Files of its graphs.
    frames : float32[n_frames, n_visible]
        Input frames.
    noise : float32[n_steps, n_hidden]
        Uniform numbers in [0, 1), for the sampling graph.

    Returns
    -------
    dict
        Largest differences by name.

    Raises
    ------
    BundleError
        A difference exceeds its tolerance, or the state does not contract.
    """
    scoring, sampling = Session(scoring_path), Session(sampling_path)
    zeros = np.zeros((model.n_layers, model.n_recurrent), np.float32)
    expected = torch_outputs(model, frames, noise)
    whole = scoring.run(frames=frames, u=zeros)
    u, rows = zeros, []
    one = np.array(1.0, np.float32)
    for frame in frames:
        drawn = sampling.run(frame=frame[None], u=u, noise=noise, temperature=one)
        step = scoring.run(frames=frame[None], u=u)
        u = step["u_next"]
        rows.append(step)
    single = {
        name: np.concatenate([row[name] for row in rows])
        for name in ("free_energy", "prediction", "states")
    }
    # `drawn` follows the last frame, from the state before that frame.
    found = {
        "free_energy": max_relative_difference(
            single["free_energy"], expected["free_energy"]
        ),
        "prediction": max_difference(single["prediction"], expected["prediction"]),
        "states": max_difference(single["states"], expected["states"]),
        "mean": max_difference(drawn["mean"], expected["mean"]),
        "sampling_state": max_difference(drawn["u_next"], u),
        "free_energy_whole": max_relative_difference(
            whole["free_energy"], single["free_energy"]
        ),
        "prediction_whole": max_difference(whole["prediction"], single["prediction"]),
        "states_whole": max_difference(whole["states"], single["states"]),
        "contraction": _rbm_contraction(scoring, zeros, frames),
    }
    check_limits(scoring_path, found, RBM_CONTRACTED)
    return found


def torch_outputs(model: RnnRbm, frames: Float32, noise: Float32) -> dict[str, Float32]:
    """Compute the graphs' outputs with torch, by the names of the bundle format."""
    with torch.no_grad():
        v = torch.from_numpy(frames)[:, None]
        states = model.states(v, model.initial_state())
        last = states[:, -1]
        before = torch.cat([torch.zeros_like(last[:1]), last[:-1]])
        bv, bh = model.biases(before)
        free_energy = model.free_energy(v, bv, bh)[:, 0]
        bv, bh = model.biases(last)
        prediction = model.predict(v, bv, bh)[:, 0]
        rows = torch.from_numpy(noise)[:, None]
        mean = model.gibbs(v[-1], bv[-1], bh[-1], rows)
    return {
        "free_energy": free_energy.numpy(),
        "prediction": prediction.numpy(),
        "states": states[:, :, 0].numpy(),
        "mean": mean.numpy(),
    }


def stable_noise(
    model: RnnRbm, frames: Float32, n_steps: int, rng: np.random.Generator
) -> Float32:
    """Draw noise for the golden Gibbs chain that is robust against rounding.

    `frames` are rows with their plan for a model that has one.

    The state of a hidden unit depends on rounding, and thus on the machine, if its
    noise is close to its probability: such values are moved by `2 * margin`.

    Returns
    -------
    float32[n_steps, n_hidden]
    """
    margin = 1e-3
    noise = rng.random((n_steps, model.n_hidden), dtype=np.float32)
    with torch.no_grad():
        rows = torch.from_numpy(frames)[:, None]
        u = model.states(rows, model.initial_state())[-1, -1]
        bv, bh = model.biases(u)
        v, _ = model.split(rows[-1])
        for row in noise:
            p = model.hidden(v, bh)[0].numpy()
            near = np.abs(p - row) < margin
            row[near] = np.where(p > 0.5, p - 2 * margin, p + 2 * margin)[near]
            hidden = torch.from_numpy((p > row).astype(np.float32))[None]
            v = model.visible(hidden, bv)
    return noise


def check_planned(
    model: RnnRbm, path: Path, rows: Float32, noise: Float32
) -> tuple[dict[str, float], Float32]:
    """Compare the graph that draws after a plan with torch over a state-threaded run.

    Parameters
    ----------
    model : RnnRbm
        Trained network with a plan.
    path : Path
        File of its graph.
    rows : float32[n_frames, n_visible + n_condition]
        Frames, each with the plan of the frame after it.
    noise : float32[n_steps, n_hidden]
        Uniform numbers in [0, 1).

    Returns
    -------
    found : dict
        Largest differences by name.
    mean : float32[1, n_visible]
        Expectation of the frame after the last one, by torch.

    Raises
    ------
    BundleError
        A difference exceeds its tolerance, or the state does not contract.
    """
    session = Session(path)
    zeros = np.zeros((model.n_layers, model.n_recurrent), np.float32)
    with torch.no_grad():
        all_rows = torch.from_numpy(rows)[:, None]
        states = model.states(all_rows, model.initial_state())
        bv, bh = model.biases(states[-1, -1])
        last, _ = model.split(all_rows[-1])
        mean = model.gibbs(last, bv, bh, torch.from_numpy(noise)[:, None]).numpy()
    after = states[:, :, 0].numpy()
    feed = _planned_feed(model, rows[-1])
    drawn = session.run(**feed, u=after[-2], noise=noise)["mean"]
    u, other, worst = zeros, _perturbed(zeros, np.random.default_rng(0)), 0.0
    few = noise[:1]  # the state does not depend on Gibbs steps
    for number in range(max(len(rows), CONTRACTION_FRAMES)):
        feed = _planned_feed(model, rows[number % len(rows)])
        u, other = (
            session.run(**feed, u=state, noise=few)["u_next"] for state in (u, other)
        )
        if number < len(rows):
            worst = max(worst, max_difference(u, after[number]))
    found = {
        "states": worst,
        "mean": max_difference(drawn, mean),
        "contraction": max_difference(u, other),
    }
    check_limits(path, found, RBM_CONTRACTED)
    return found, mean


def _planned_feed(model: RnnRbm, row: Float32) -> dict[str, Float32]:
    """Return the inputs of the planned graph but state and noise."""
    return {
        "frame": row[None, : model.n_visible],
        "condition": row[None, model.n_visible :],
        "temperature": np.array(1.0, np.float32),
    }


def _classifier_contraction(
    session: Session, zeros: dict[str, Float32], frames: Float32
) -> float:
    """Return the largest remainder of a perturbed state of the classifier."""
    rng = np.random.default_rng(0)
    states = zeros
    other = {name: _perturbed(value, rng) for name, value in zeros.items()}
    for part in _repeated(frames):
        ends = [session.run(frames=part, **s) for s in (states, other)]
        states, other = ({n: end[f"{n}_next"] for n in zeros} for end in ends)
    return max(max_difference(states[name], other[name]) for name in zeros)


def _rbm_contraction(session: Session, zeros: Float32, frames: Float32) -> float:
    """Return the largest remainder of a perturbed state of the RNN-RBM."""
    u, other = zeros, _perturbed(zeros, np.random.default_rng(0))
    for part in _repeated(frames):
        u, other = (session.run(frames=part, u=s)["u_next"] for s in (u, other))
    return max_difference(u, other)


def _perturbed(state: Float32, rng: np.random.Generator) -> Float32:
    """Add `PERTURBATION` with random signs to a state."""
    signs = rng.choice([-1.0, 1.0], state.shape).astype(np.float32)
    return state + np.float32(PERTURBATION) * signs


def _repeated(frames: Float32) -> list[Float32]:
    """Repeat frames up to `CONTRACTION_FRAMES` of them."""
    times, rest = divmod(CONTRACTION_FRAMES, len(frames))
    return [frames] * times + ([frames[:rest]] if rest else [])
