"""The training loop: steps, looks at the validation split, checkpoints, a budget.

A checkpoint holds everything that decides what comes next, random generators
included: a run that was killed and resumed ends with the same weights as one that
was not.
"""

import math
import os
import signal
import threading
import time
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


class TrainingInterrupted(NeurovocalError):  # noqa: N818 (a state, not a mistake)
    """The user stopped the training; a checkpoint is safe on disk."""

    exit_code = EXIT_LOSS


class Task(Protocol):
    """What is trained, one optimizer step at a time.

    ``carried`` holds tensors that one step hands to the next, beside the weights.
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
        """The network."""
        ...

    def begin(self, progress: float) -> bool:
        """Prepare for the step at `progress` of the training.

        True says that a new phase begins, to which the best weights so far do
        not belong.
        """
        ...

    def step(self, progress: float) -> float:
        """Take one optimizer step; returns the training loss."""
        ...

    def validate(self) -> dict[str, float]:
        """Measures on the validation split; ``score`` is better when smaller."""
        ...


@dataclass(slots=True)
class Budget:
    """Wall-clock seconds that a task may take; None: as long as it needs."""

    limit_s: float | None = None
    spent_s: float = 0.0

    @property
    def share(self) -> float:
        """Share of the budget that is spent."""
        return 0.0 if self.limit_s is None else self.spent_s / self.limit_s


@dataclass(slots=True)
class History:
    """What happened so far: one row per look at the validation split."""

    update: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best_score: float = math.inf
    best_row: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    finished: bool = False
    spent_s: float = 0.0
    phase_starts: list[int] = field(default_factory=list)


class StopFlag:
    """Whether somebody asked the training to stop."""

    def __init__(self) -> None:
        self.raised = False


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn Ctrl-C (and SIGTERM) into a flag; a second one interrupts at once."""
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
    """Train until the updates or the budget are used up, or nothing improves.

    Parameters
    ----------
    task : Task
        Ends with its best weights.
    path : Path
        Checkpoint, resumed from when it exists.
    budget : Budget
        Time for this task, earlier tries at it included.
    stop : StopFlag
        Looked at between two steps.
    checkpoint_s : float
        Seconds between two checkpoints.
    report : callable
        ``report(progress, history, loss)`` after every step.

    Raises
    ------
    Interrupted
        `stop` was raised; the checkpoint is written.
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
            best = _look(task, history, smoothed, best)
        report(progress, history, smoothed)
        if time.monotonic() - saved_at > checkpoint_s:
            _save(path, task, history, best)
            saved_at = time.monotonic()
    if best:
        task.module.load_state_dict(best)
    task.module.eval()
    _save(path, task, history, best)
    return history


def _look(
    task: Task, history: History, loss: float, best: dict[str, Any]
) -> dict[str, Any]:
    """Measure on the validation split; returns the best weights so far."""
    task.module.eval()
    with torch.no_grad():
        measures = task.validate()
    row = {"update": float(history.update), "loss": loss, **measures}
    history.rows.append(row)
    if not math.isfinite(measures["score"]):
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
    content = {
        "module": task.module.state_dict(),
        "optimizer": task.optimizer.state_dict(),
        "carried": task.carried,
        "best": best,
        "history": {name: getattr(history, name) for name in history.__slots__},
        "torch_rng": torch.get_rng_state(),
        "rng": _plain(task.rng.bit_generator.state),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _load(path: Path, task: Task) -> tuple[History, dict[str, Any]]:
    try:
        content = torch.load(path, weights_only=True)
        history = History(**content["history"])
        task.begin(min(history.update / task.updates, 1 - 1e-9))
        task.module.load_state_dict(content["module"])
        task.optimizer.load_state_dict(content["optimizer"])
        task.carried = content["carried"]
        torch.set_rng_state(content["torch_rng"])
        task.rng.bit_generator.state = _arrays(content["rng"])
    except Exception as error:  # a torn file makes torch fail in any way
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"checkpoint '{path}' cannot be resumed from ({reason}): delete the "
            f"folder '{path.parent}' or say --restart"
        ) from error
    return history, content["best"]


def _plain(state: Any) -> Any:
    """Generator state without arrays, which a safe loader refuses."""
    if isinstance(state, dict):
        return {key: _plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def _arrays(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _arrays(value) for key, value in state.items()}
    return np.array(state, np.uint64) if isinstance(state, list) else state
