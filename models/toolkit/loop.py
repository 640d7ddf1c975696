"""Training loop: optimizer steps, validation, checkpoints and a time budget.

A checkpoint holds the complete training state, including the random generators: a
run that was killed and resumed ends with the same weights as an uninterrupted one.
"""

import io
import math
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from neurovocal.engine.contracts.errors import EXIT_LOSS, ConfigError, NeurovocalError
from neurovocal.models.toolkit.files import write_file, writing


class TrainingInterrupted(NeurovocalError):  # noqa: N818 (a state, not a mistake)
    """The user stopped the training; its checkpoint is on disk."""

    exit_code = EXIT_LOSS


class Task(Protocol):
    """A network with its data and optimizer, trained one step at a time.

    ``carried`` holds the tensors that a step passes to the next one in addition to
    the weights; they are part of the checkpoint.
    """

    name: str
    updates: int
    validate_every: int
    patience: int | None
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    carried: dict[str, Tensor]

    @property
    def module(self) -> nn.Module:
        """Network to train."""
        ...

    def begin(self, progress: float) -> bool:
        """Set up the step at `progress`, a share of the training from 0 to 1.

        Returns
        -------
        bool
            True if a new phase starts; the best weights of the phase before are
            then discarded.
        """
        ...

    def step(self, progress: float) -> float:
        """Take one optimizer step and return the training loss."""
        ...

    def validate(self) -> dict[str, float]:
        """Measure the validation split; a smaller ``score`` is better.

        Without a score the last weights are kept.
        """
        ...


@dataclass(slots=True)
class Budget:
    """Wall-clock seconds allowed for a task; a limit of None means no limit."""

    limit_s: float | None = None
    spent_s: float = 0.0

    @property
    def share(self) -> float:
        """Share of the budget that is spent; 0 without a limit."""
        return 0.0 if self.limit_s is None else self.spent_s / self.limit_s


@dataclass(slots=True)
class History:
    """Course of a training: one row of measures per validation."""

    update: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best_score: float = math.inf
    best_row: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    finished: bool = False
    spent_s: float = 0.0
    phase_starts: list[int] = field(default_factory=list)


class StopFlag:
    """Request to stop a training, checked between steps."""

    def __init__(self) -> None:
        self.raised = False


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Raise a flag on SIGINT or SIGTERM; a second signal interrupts at once."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handler(number: int, frame: FrameType | None) -> None:
        if flag.raised:
            raise KeyboardInterrupt
        flag.raised = True

    before = {n: signal.signal(n, handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def fit(
    task: Task,
    path: Path,
    budget: Budget,
    stop: StopFlag,
    checkpoint_s: float,
    report: Callable[[float, History, float], None] = lambda share, history, loss: None,
) -> History:
    """Train until the updates or the budget are used up or validation stalls.

    Parameters
    ----------
    task : Task
        Task to train; it ends with its best weights.
    path : Path
        File of the checkpoint; the training resumes from it if it exists.
    budget : Budget
        Time allowed for this task, including runs before a resumption.
    stop : StopFlag
        Request to stop, checked between two steps.
    checkpoint_s : float
        Seconds between two checkpoints.
    report : callable
        Called as ``report(progress, history, loss)`` after every step.

    Returns
    -------
    History
        Measures of all validations, including those before a resumption.

    Raises
    ------
    TrainingInterrupted
        `stop` was raised; the checkpoint is written.
    ConfigError
        The validation score is not finite, or the checkpoint cannot be read.
    """
    history = History()
    best: dict[str, Any] = {}
    if path.is_file():
        history, best = _load(path, task)
    smoothed, started, saved_at = math.nan, time.monotonic(), time.monotonic()
    earlier_s = history.spent_s
    while not history.finished:
        history.spent_s = budget.spent_s = earlier_s + time.monotonic() - started
        progress = max(history.update / task.updates, budget.share)
        if stop.raised:
            _save(path, task, history, best)
            raise TrainingInterrupted(
                f"stopped at update {history.update} of {task.updates} of the "
                f"{task.name}: run the same command again to go on from there"
            )
        if progress >= 1.0 and history.rows:
            history.finished = True
            break
        if task.begin(min(progress, 1 - 1e-9)):
            history.best_score, history.stale, best = math.inf, 0, {}
            history.phase_starts.append(history.update)
        task.module.train()
        loss = task.step(progress)
        smoothed = loss if math.isnan(smoothed) else 0.95 * smoothed + 0.05 * loss
        history.update += 1
        is_last = history.update >= task.updates or budget.share >= 1.0
        if history.update % task.validate_every == 0 or is_last:
            best = _validate(task, history, smoothed, best)
        report(progress, history, smoothed)
        if time.monotonic() - saved_at > checkpoint_s:
            _save(path, task, history, best)
            saved_at = time.monotonic()
    if best:
        task.module.load_state_dict(best)
    task.module.eval()
    _save(path, task, history, best)
    return history


def _validate(
    task: Task, history: History, loss: float, best: dict[str, Any]
) -> dict[str, Any]:
    """Append a row of validation measures and return the best weights so far."""
    task.module.eval()
    with torch.no_grad():
        measures = task.validate()
    row = {"update": float(history.update), "loss": loss, **measures}
    history.rows.append(row)
    if "score" not in measures and math.isfinite(loss):
        history.best_row = row
        return {}
    if not math.isfinite(measures.get("score", loss)):
        raise ConfigError(
            f"the {task.name} diverged at update {history.update} (its validation "
            "score is not finite): lower learning_rate"
        )
    if measures["score"] < history.best_score:
        history.best_score, history.best_row, history.stale = measures["score"], row, 0
        return {k: v.clone() for k, v in task.module.state_dict().items()}
    history.stale += 1
    if task.patience is not None and history.stale >= task.patience:
        history.finished = True
    return best


def _save(path: Path, task: Task, history: History, best: dict[str, Any]) -> None:
    """Write a checkpoint; raises DiskError and keeps the one before if it fails."""
    content = {
        "module": task.module.state_dict(),
        "optimizer": task.optimizer.state_dict(),
        "carried": task.carried,
        "best": best,
        "history": {name: getattr(history, name) for name in history.__slots__},
        "torch_rng": torch.get_rng_state(),
        "rng": _arrays_to_lists(task.rng.bit_generator.state),
    }
    # In memory first: torch does not say why a disk takes nothing more.
    stream = io.BytesIO()
    torch.save(content, stream)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, stream.getvalue())


def _load(path: Path, task: Task) -> tuple[History, dict[str, Any]]:
    """Restore `task` from a checkpoint; returns its history and best weights."""
    try:
        if not path.stat().st_size:
            raise ValueError("it is empty, as a loss of power leaves a file")
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch reads wrong bytes as weights
                raise ValueError("its checksum is wrong")
        content = torch.load(path, weights_only=True)
        history = History(**content["history"])
        task.begin(min(history.update / task.updates, 1 - 1e-9))
        task.module.load_state_dict(content["module"])
        task.optimizer.load_state_dict(content["optimizer"])
        task.carried = content["carried"]
        torch.set_rng_state(content["torch_rng"])
        task.rng.bit_generator.state = _lists_to_arrays(content["rng"])
    except Exception as error:  # a damaged file makes torch raise errors of any type
        reason = "it is damaged, or was written by another program"
        if isinstance(error, ValueError) and str(error).startswith("it is empty"):
            reason = str(error)
        raise ConfigError(
            f"checkpoint '{path}' cannot be resumed from, {reason}: delete it to train "
            "this network anew, or add --restart to train all of them"
        ) from error
    return history, content["best"]


def _arrays_to_lists(state: Any) -> Any:
    """Replace arrays in a generator's state, which torch's safe loader rejects."""
    if isinstance(state, dict):
        return {key: _arrays_to_lists(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _lists_to_arrays(state: Any) -> Any:
    """Invert `_arrays_to_lists`."""
    if isinstance(state, dict):
        return {key: _lists_to_arrays(value) for key, value in state.items()}
    return np.array(state, np.uint64) if isinstance(state, list) else state
