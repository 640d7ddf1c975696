"""Whether the exported graphs do what was trained, frame for frame."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurovocal.engine.errors import BundleError
from neurovocal.engine.types import Float32
from neurovocal.models.classifier import Classifier
from neurovocal.models.rnn_rbm import RnnRbm
from neurovocal.plugins._onnx import open_session

STATE_TOLERANCE = 1e-5
OUTPUT_TOLERANCE = 1e-4
PERTURBATION = 1e-4
CONTRACTION_FRAMES = 1000
# What may be left of a perturbation. A generator that feeds on its own output must
# forget; a classifier may remember for seconds, but must not amplify.
RBM_CONTRACTED = 1e-5
CLASSIFIER_CONTRACTED = PERTURBATION


class Session:
    """An exported graph, run by name."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, **inputs: Any) -> dict[str, Float32]:
        """Run once; all outputs by name."""
        results = self._session.run(self._outputs, inputs)
        return dict(zip(self._outputs, results, strict=True))


def check_classifier(
    model: Classifier, path: Path, frames: Float32
) -> dict[str, float]:
    """Compare torch and ONNX Runtime over a run that carries its state.

    Parameters
    ----------
    model : Classifier
    path : Path
        Its graph.
    frames : float32[n_frames, n_bins]

    Returns
    -------
    dict
        Largest differences found.

    Raises
    ------
    BundleError
        One of them is larger than it may be.
    """
    session = Session(path)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in model.shapes.items()}
    whole = session.run(frames=frames, **zeros)
    rows, state = [], zeros
    for frame in frames:
        step = session.run(frames=frame[None], **state)
        state = {name: step[f"{name}_next"] for name in zeros}
        rows.append(step["logits"])
    with torch.no_grad():
        logits, after = model(torch.from_numpy(frames)[None])
    single = np.concatenate(rows)
    expected = logits[0].numpy()
    found = {
        "logits": _relative(single, expected),
        "logits_whole": _relative(whole["logits"], single),
        # Relative, since the cells of an LSTM are not bounded.
        "states": max(_relative(state[n], after[n][0].numpy()) for n in zeros),
        "states_whole": max(_relative(whole[f"{n}_next"], state[n]) for n in zeros),
        "contraction": _classifier_contraction(session, zeros, frames),
    }
    _refuse(path, found, CLASSIFIER_CONTRACTED)
    return found


def check_rnn_rbm(
    model: RnnRbm,
    scoring_path: Path,
    sampling_path: Path,
    frames: Float32,
    noise: Float32,
) -> dict[str, float]:
    """Same as `check_classifier`, for both graphs of the RNN-RBM.

    Parameters
    ----------
    noise : float32[n_steps, n_hidden]
        Uniform in [0, 1), for the sampling graph.
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
    # drawn is the last frame's: from the state before it.
    found = {
        "free_energy": _relative(single["free_energy"], expected["free_energy"]),
        "prediction": _absolute(single["prediction"], expected["prediction"]),
        "states": _absolute(single["states"], expected["states"]),
        "mean": _absolute(drawn["mean"], expected["mean"]),
        "sampling_state": _absolute(drawn["u_next"], u),
        "free_energy_whole": _relative(whole["free_energy"], single["free_energy"]),
        "prediction_whole": _absolute(whole["prediction"], single["prediction"]),
        "states_whole": _absolute(whole["states"], single["states"]),
        "contraction": _rbm_contraction(scoring, zeros, frames),
    }
    _refuse(scoring_path, found, RBM_CONTRACTED)
    return found


def check_outputs(
    path: Path,
    inputs: dict[str, Float32],
    state: str,
    expected: dict[str, Float32],
    after: Float32,
) -> dict[str, float]:
    """Same as `check_classifier`, for a graph with rows in, rows out and one state.

    Parameters
    ----------
    path : Path
    inputs : dict of str to float32[T, ...]
    state : str
        Name of the state, which begins with zeros.
    expected : dict of str to float32[T, ...]
        What torch says of the same rows.
    after : float32
        State after them, as torch says.
    """
    session = Session(path)
    whole = session.run(**inputs, **{state: np.zeros_like(after)})
    carried = np.zeros_like(after)
    rows: dict[str, list[Float32]] = {name: [] for name in expected}
    for at in range(len(next(iter(inputs.values())))):
        step = session.run(
            **{name: row[at : at + 1] for name, row in inputs.items()},
            **{state: carried},
        )
        carried = step[f"{state}_next"]
        for name in expected:
            rows[name].append(step[name])
    found = {"states": _absolute(carried, after)}
    found["states_whole"] = _absolute(whole[f"{state}_next"], carried)
    for name, values in expected.items():
        single = np.concatenate(rows[name])
        found[name] = _relative(single, values)
        found[f"{name}_whole"] = _relative(whole[name], single)
    _refuse(path, found, np.inf)
    return found


def torch_outputs(model: RnnRbm, frames: Float32, noise: Float32) -> dict[str, Float32]:
    """What torch says the graphs shall answer (names of docs/bundle.md)."""
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


def clear_noise(
    model: RnnRbm, frames: Float32, n_steps: int, rng: np.random.Generator
) -> Float32:
    """Noise for the golden Gibbs chain that no rounding can tip.

    A hidden unit whose probability lies within rounding of its noise would fire
    on one machine and not on another: such draws are moved away.

    Returns
    -------
    float32[n_steps, n_hidden]
    """
    margin = 1e-3
    noise = rng.random((n_steps, model.n_hidden), dtype=np.float32)
    with torch.no_grad():
        v = torch.from_numpy(frames)[:, None]
        u = model.states(v, model.initial_state())[-1, -1]
        bv, bh = model.biases(u)
        v = v[-1]
        for row in noise:
            p = model.hidden(v, bh)[0].numpy()
            near = np.abs(p - row) < margin
            row[near] = np.where(p > 0.5, p - 2 * margin, p + 2 * margin)[near]
            fired = torch.from_numpy((p > row).astype(np.float32))[None]
            v = model.visible(fired, bv)
    return noise


def _classifier_contraction(
    session: Session, zeros: dict[str, Float32], frames: Float32
) -> float:
    """What is left of a perturbed state after many frames, largest value."""
    rng = np.random.default_rng(0)
    states = zeros
    other = {name: _perturbed(value, rng) for name, value in zeros.items()}
    for part in _enough(frames):
        ends = [session.run(frames=part, **s) for s in (states, other)]
        states, other = ({n: end[f"{n}_next"] for n in zeros} for end in ends)
    return max(_absolute(states[name], other[name]) for name in zeros)


def _rbm_contraction(session: Session, zeros: Float32, frames: Float32) -> float:
    u, other = zeros, _perturbed(zeros, np.random.default_rng(0))
    for part in _enough(frames):
        u, other = (session.run(frames=part, u=s)["u_next"] for s in (u, other))
    return _absolute(u, other)


def _perturbed(state: Float32, rng: np.random.Generator) -> Float32:
    signs = rng.choice([-1.0, 1.0], state.shape).astype(np.float32)
    return state + np.float32(PERTURBATION) * signs


def _enough(frames: Float32) -> list[Float32]:
    """The frames again and again, `CONTRACTION_FRAMES` of them."""
    times, rest = divmod(CONTRACTION_FRAMES, len(frames))
    return [frames] * times + ([frames[:rest]] if rest else [])


def _absolute(found: Float32, expected: Float32) -> float:
    return float(np.abs(found - expected).max(initial=0.0))


def _relative(found: Float32, expected: Float32) -> float:
    scale = np.maximum(1.0, np.abs(expected))
    return float((np.abs(found - expected) / scale).max(initial=0.0))


def _refuse(path: Path, found: dict[str, float], contracted: float) -> None:
    problems = []
    for name, value in found.items():
        limit = OUTPUT_TOLERANCE
        if "state" in name:
            limit = STATE_TOLERANCE
        elif name == "contraction":
            limit = contracted
        if value <= limit:  # NaN is not
            continue
        if name == "contraction":
            problems.append(
                f"{path.name}: the recurrent state does not forget: a perturbation of "
                f"{PERTURBATION:g} is {value:.2g} after {CONTRACTION_FRAMES} frames "
                f"(at most {limit:g}): train longer or with stronger dropout, and an "
                "RNN-RBM with gates: sigmoid"
            )
        else:
            problems.append(
                f"{path.name}: torch and ONNX Runtime differ in {name} by "
                f"{value:.2g} ({limit:g} is allowed)"
            )
    if problems:
        raise BundleError(problems)
