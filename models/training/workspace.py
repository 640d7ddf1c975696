"""Folders of a training: checkpoints, unfinished bundle and output."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from neurovocal.engine.contracts.bundle import MANIFEST_NAME
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.data.datasets import Dataset
from neurovocal.models.data.formats.segments import AnnotationChoice
from neurovocal.models.toolkit.recipe import TrainConfig

_FINGERPRINT = "fingerprint"


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Arguments of a training, as given on the command line."""

    dataset: Path
    out: Path
    annotation_format: str | None = None
    minutes: float | None = None
    restart: bool = False
    overwrite: bool = False
    command: str = ""
    origin: str | None = None
    """Bundle to start from: a folder, or the name of a built-in bundle."""
    choice: AnnotationChoice | None = None
    """Which of the labels are meant; None for the default."""

    @property
    def work_path(self) -> Path:
        """Folder of the checkpoints and of the unfinished bundle."""
        return self.out.with_name(f"{self.out.name}.partial")

    @property
    def frames_path(self) -> Path:
        """Folder of stored frames, which exists while a training runs."""
        return self.work_path / "frames"


@contextmanager
def work_folder(job: TrainingJob) -> Iterator[None]:
    """Create the folder of a training, and remove it if it has no checkpoint.

    Raises
    ------
    ConfigError
        ``--out`` cannot become a bundle, or the folder cannot be created.
    """
    _check_out(job.out, job.overwrite)
    created = [p for p in (job.work_path, *job.work_path.parents) if not p.exists()]
    try:
        job.work_path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"'{job.work_path}' cannot be made ({error.strerror})"
        ) from error
    try:
        yield
    finally:
        shutil.rmtree(job.frames_path, ignore_errors=True)
        if not any(job.work_path.glob("*.pt")):
            _remove_unused(job.work_path, created)


def claim_work_folder(
    job: TrainingJob, config: TrainConfig, dataset: Dataset, origin: str | None
) -> None:
    """Mark the work folder with a fingerprint of recipe and data.

    With ``restart``, checkpoints are removed.

    Parameters
    ----------
    job : TrainingJob
        Arguments of the training.
    config : TrainConfig
        Recipe.
    dataset : Dataset
        Selected recordings.
    origin : str, optional
        Digest of the bundle that the training starts from.

    Raises
    ------
    ConfigError
        The folder holds a training with another recipe or other data.
    """
    listing = [
        [r.file, r.path.stat().st_size, r.sample_rate, len(r.annotations), r.channel]
        + [[a.onset_s, a.offset_s, a.unit] for a in r.annotations]
        for r in dataset.recordings
    ]
    recipe = config.model_dump(mode="json", exclude={"card", "checkpoint_s"})
    start = [origin] if origin else []
    content = json.dumps([recipe, listing, *start], sort_keys=True)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    path = job.work_path / _FINGERPRINT
    if job.restart:
        for old in job.work_path.glob("*.pt"):
            old.unlink()
    elif path.is_file() and path.read_text(encoding="utf-8") != fingerprint:
        raise ConfigError(
            f"'{job.work_path}' holds an unfinished training with another recipe or "
            "other data: say --restart to begin anew, or name another --out"
        )
    path.write_text(fingerprint, encoding="utf-8")


def install_bundle(job: TrainingJob) -> None:
    """Move the finished bundle to ``--out``; an older bundle is removed afterwards."""
    old = job.out.with_name(f"{job.out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if job.out.exists():
        os.replace(job.out, old)
    os.replace(job.work_path / "bundle", job.out)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(job.work_path)


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise ConfigError if a bundle cannot be written to `out`."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out '{out}' is a file: name a folder that is to be made")
    if out.is_dir() and any(out.iterdir()):
        if not (out / MANIFEST_NAME).is_file():
            raise ConfigError(f"--out '{out}' holds other files: name a new folder")
        if not overwrite:
            raise ConfigError(
                f"--out '{out}' already is a bundle: name another folder, or say "
                "--overwrite (it is replaced when the new one is finished)"
            )


def _remove_unused(work: Path, created: list[Path]) -> None:
    """Remove the fingerprint and the empty folders that were created."""
    (work / _FINGERPRINT).unlink(missing_ok=True)
    for folder in created or [work]:
        try:
            folder.rmdir()
        except OSError:  # removed already, or not empty
            return
