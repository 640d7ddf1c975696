"""Record of a training in the bundle: manifest entry and history of measures."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel

from neurovocal.engine.support.text import plain
from neurovocal.models.data.datasets import AnnotatedRecording, Dataset
from neurovocal.models.data.prepare import DatasetPlan, PreparedDataset
from neurovocal.models.data.split.recordings import total_duration_s
from neurovocal.models.report.history import HISTORY_NAME
from neurovocal.models.toolkit.files import write_file
from neurovocal.models.toolkit.loop import History
from neurovocal.models.toolkit.recipe import TrainConfig


def summary(plan: DatasetPlan, config: TrainConfig) -> str:
    """Return a line on splits, units, threads and seed."""
    split = plan.split
    parts = ", ".join(
        f"{name} {len(part)} ({total_duration_s(part):.0f} s)"
        for name, part in (
            ("train", split.train),
            ("valid", split.valid),
            ("test", split.test),
        )
        if part
    )
    names = [name for name in plan.units.names if name]
    noun = "unit" if len(names) == 1 else "units"
    return (
        f"recordings: {parts}; split {split.rule}; {len(names)} {noun}: "
        f"{' '.join(names)}; {config.threads} thread(s), seed {config.seed}"
    )


def training_record(
    command: str,
    config: TrainConfig,
    dataset: Dataset,
    data: PreparedDataset,
    histories: Mapping[str, History | None],
) -> dict[str, Any]:
    """Build the manifest entry ``training``.

    Parameters
    ----------
    command : str
        Command line of the training.
    config : TrainConfig
        Recipe.
    dataset : Dataset
        Selected recordings.
    data : PreparedDataset
        Splits and warnings.
    histories : mapping of str to History
        Course of the training of each network; None for networks not trained.
    """
    split = data.split
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    entry = {
        "dataset": plain(dataset.folder.resolve().name),
        "split": split.rule,
        "seconds": {
            name: round(total_duration_s(part), 1) for name, part in parts.items()
        },
        "recordings": {name: _names(part) for name, part in parts.items()},
    }
    return run_record(command, entry, histories, data.warnings, config)


def run_record(
    command: str,
    data: Mapping[str, Any],
    histories: Mapping[str, History | None],
    notes: Sequence[str],
    recipe: BaseModel,
) -> dict[str, Any]:
    """Build the manifest entry ``training`` from what is said of the data.

    Parameters
    ----------
    command : str
        Command line of the training.
    data : mapping
        Entries on datasets, splits and recordings.
    histories : mapping of str to History
        Course of the training of each network; None for networks not trained.
    notes : sequence of str
        Warnings.
    recipe : BaseModel
        Recipe, whose card is left out.
    """
    return {
        "command": plain(command),
        "date": datetime.now(UTC).date().isoformat(),
        **data,
        "networks": {
            name: _network_record(history)
            for name, history in histories.items()
            if history is not None and history.best_row
        },
        "notes": list(notes),
        "recipe": recipe.model_dump(mode="json", exclude={"card"}),
        "versions": {
            "neurovocal": version("neurovocal"),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def write_history(folder: Path, histories: Mapping[str, History | None]) -> None:
    """Write the measures of all validations (docs/reference/bundle.md)."""
    content = {
        name: {
            "rows": [_finite(row) for row in history.rows],
            "phase_starts": history.phase_starts,
            "chosen_at": int(history.best_row["update"]),
        }
        for name, history in histories.items()
        if history is not None and history.best_row
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    write_file(folder / HISTORY_NAME, text.encode())


def _names(part: Sequence[AnnotatedRecording]) -> list[str]:
    """List the files of a split, with the times of parts of files."""
    names = [
        r.file
        if r.start_s == 0 and r.stop_s > r.duration_s
        else f"{r.file} from {r.start_s:.3f} to {min(r.stop_s, r.duration_s):.3f} s"
        for r in part
    ]
    return [plain(name) for name in names]


def _finite(row: dict[str, float]) -> dict[str, float | None]:
    """Round the values; values that JSON cannot hold (NaN, infinity) become None."""
    return {
        key: float(f"{value:.6g}") if math.isfinite(value) else None
        for key, value in row.items()
    }


def _network_record(history: History) -> dict[str, Any]:
    """Describe the training of a network and its best validation."""
    return {
        "updates": history.update,
        "chosen_at": int(history.best_row["update"]),
        "minutes": round(history.spent_s / 60, 2),
        "valid": {
            key: round(value, 5)
            for key, value in history.best_row.items()
            if key not in ("update", "loss")
        },
    }
