"""Folders of a training: checkpoints, unfinished bundle and output."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from neurovocal.engine.contracts.bundle import MANIFEST_NAME, find_bundle
from neurovocal.engine.contracts.errors import BundleError, ConfigError
from neurovocal.engine.support.names import beside, resolved
from neurovocal.models.data.formats.segments import AnnotationChoice
from neurovocal.models.data.prepare import DatasetPlan
from neurovocal.models.data.soundness import Sound
from neurovocal.models.report.page import REPORT_FOLDER
from neurovocal.models.toolkit.files import write_file, writing
from neurovocal.models.toolkit.recipe import TrainConfig
from neurovocal.plugins.storage.durable import sync_folder
from neurovocal.plugins.storage.file_lock import FileLock

SCENES = "scenes-"
"""Beginning of the names of files with what a detector network is trained on."""
_FINGERPRINT = "fingerprint"
_BUNDLE_SUFFIXES = (".onnx", ".npz", ".json", ".md", ".yaml")


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
    unlabelled: Path | None = None
    """Folder of recordings without labels that the classifier trains on, too."""

    @property
    def work_path(self) -> Path:
        """Folder of the checkpoints and of the unfinished bundle."""
        return beside(self.out, after=".partial")

    @property
    def frames_path(self) -> Path:
        """Folder of stored frames, which exists while a training runs."""
        return self.work_path / "frames"


def with_real_out(job: TrainingJob) -> TrainingJob:
    """Return the job with the folder that ``--out`` leads to, if it is a link or dots.

    The work folder lies beside it, and a link stays.

    Raises
    ------
    ConfigError
        The link leads to itself.
    """
    if os.path.islink(job.out) or job.out.name in ("", ".."):
        real = resolved(job.out)
        if real.is_symlink():
            raise ConfigError(f"--out '{job.out}' is a link that leads to itself")
        return replace(job, out=real)
    return job


@contextmanager
def work_folder(job: TrainingJob) -> Iterator[None]:
    """Create and lock the folder of a training; remove it if it has no checkpoint.

    The lock ends with the process, however it ends.

    Raises
    ------
    ConfigError
        The folder cannot be created, or another training uses it.
    """
    folders = (job.work_path, *job.work_path.parents)
    created = [folder for folder in folders if not os.path.exists(folder)]
    lock = _locked(job)
    try:
        yield
    finally:
        shutil.rmtree(job.frames_path, ignore_errors=True)
        if not any(_kept(job.work_path)):
            _remove_unused(job.work_path, created)
        lock.release()


def _locked(job: TrainingJob) -> FileLock:
    """Create and lock the work folder."""
    lock = FileLock()
    while True:
        try:
            job.work_path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"'{job.work_path}' cannot be made ({error.strerror})"
            ) from error
        before = job.work_path.stat()
        try:
            lock.acquire(job.work_path)
        except ConfigError as error:
            raise ConfigError(
                f"another training writes to '{job.out}': wait for its end, or name "
                "another --out"
            ) from error
        # The other training may have ended, and removed the folder, in between.
        if job.work_path.exists() and os.path.samestat(before, job.work_path.stat()):
            return lock


def claim_work_folder(
    job: TrainingJob,
    config: TrainConfig,
    plan: DatasetPlan,
    sounds: Mapping[str, Sound],
    start: Sequence[str] = (),
) -> None:
    """Mark the work folder with a fingerprint of the recipe and of what is trained on.

    Recordings of the test split are no part of it: they may be mended between two
    starts. With ``restart``, checkpoints are removed.

    Parameters
    ----------
    job : TrainingJob
        Arguments of the training.
    config : TrainConfig
        Recipe.
    plan : DatasetPlan
        Split and units.
    sounds : mapping of str to Sound
        Digests of the recordings, by file name.
    start : sequence of str
        Digest of the bundle that the training starts from, and recordings without
        labels.

    Raises
    ------
    ConfigError
        The folder holds a training with another recipe or other data.
    DiskError
        The folder cannot be written to.
    """
    parts = [
        [
            [
                r.file,
                r.channel,
                sounds[r.file].digest,
                r.start_s,
                min(r.stop_s, r.duration_s),
            ]
            + [[a.onset_s, a.offset_s, a.unit] for a in r.own_annotations]
            for r in part
        ]
        for part in (plan.split.train, plan.split.valid)
    ]
    recipe = config.model_dump(mode="json", exclude={"card", "checkpoint_s"})
    content = json.dumps([recipe, parts, plan.units.names, *start], sort_keys=True)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    mark_work_folder(job, fingerprint)


def mark_work_folder(job: TrainingJob, fingerprint: str) -> None:
    """Mark the work folder with a fingerprint of recipe and data.

    With ``restart``, checkpoints are removed.

    Raises
    ------
    ConfigError
        The folder holds a training with another fingerprint.
    DiskError
        The folder cannot be written to.
    """
    path = job.work_path / _FINGERPRINT
    if job.restart:
        for old in _kept(job.work_path):
            old.unlink()
    elif path.is_file() and path.read_bytes() != fingerprint.encode():
        raise ConfigError(
            f"'{job.work_path}' holds an unfinished training with another recipe or "
            "other data: add --restart to begin anew, or name another --out"
        )
    write_file(path, fingerprint.encode())


def _kept(work: Path) -> Iterator[Path]:
    """Yield the files that a resumed training goes on from."""
    yield from work.glob("*.pt")
    yield from work.glob(f"{SCENES}*.npz")


def install_bundle(job: TrainingJob) -> None:
    """Move the finished bundle to ``--out``; an older bundle is removed afterwards.

    Raises
    ------
    DiskError
        The folder cannot be renamed.
    """
    old = job.work_path / "replaced"
    with writing(job.out):
        if job.out.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(job.out, old)
        os.replace(job.work_path / "bundle", job.out)
        sync_folder(job.out.parent)
    shutil.rmtree(job.work_path, ignore_errors=True)


def out_problems(job: TrainingJob) -> Iterator[str]:
    """Yield a sentence for each reason why ``--out`` cannot become the bundle."""
    out, work = job.out, job.work_path
    for read, noun in _inputs(job):
        for folder in (out, work):
            if _contains(folder, read):
                yield f"--out '{out}' would replace the {noun} '{read}': name another"
                return
    if _contains(out, Path.cwd()):
        yield f"--out '{out}' is the current folder, or above it: name a new folder"
    elif os.path.exists(out) and not os.path.isdir(out):
        yield f"--out '{out}' is a file: name a folder that is to be made"
    elif os.path.isdir(out) and (there := sorted(os.listdir(out))):
        surplus = [name for name in there if not _is_of_bundle(name)]
        if MANIFEST_NAME not in there:
            yield f"--out '{out}' holds other files: name a new folder"
        elif not job.overwrite:
            yield (
                f"--out '{out}' already is a bundle: name another folder, or add "
                "--overwrite (it is replaced when the new one is finished)"
            )
        elif surplus:
            yield (
                f"--out '{out}' holds files that are no part of a bundle and would be "
                f"lost: {', '.join(surplus[:5])}: move them, or name another folder"
            )
    if not os.path.exists(work) or _is_work_folder(work):
        return
    others = _others_in(work)
    if others:
        yield (
            f"'{work}', where the training keeps its checkpoints, exists and holds "
            f"other files ({', '.join(others[:3])}): move them, or name another --out"
        )
    elif not job.restart:
        yield (
            f"'{work}' holds an unfinished training without its file '{_FINGERPRINT}', "
            "which says of what: add --restart to begin anew, or name another --out"
        )


def _inputs(job: TrainingJob) -> Iterator[tuple[Path, str]]:
    """Yield what the training reads, with the noun for it."""
    yield job.dataset, "dataset"
    if job.unlabelled is not None:
        yield job.unlabelled, "folder of --unlabelled"
    if job.origin is not None:
        try:
            yield find_bundle(job.origin), "bundle of --from"
        except BundleError:  # told when it is loaded
            return


def _contains(folder: Path, path: Path) -> bool:
    """Return whether a path is a folder or lies in it, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_of_bundle(name: str) -> bool:
    """Return whether training writes a file of this kind to a bundle."""
    hidden = name.startswith(".")  # such as those that systems leave in folders
    return hidden or name == REPORT_FOLDER or Path(name).suffix in _BUNDLE_SUFFIXES


def _is_work_folder(work: Path) -> bool:
    """Return whether a folder is empty, or was made by a training."""
    return work.is_dir() and (
        (work / _FINGERPRINT).is_file() or not any(work.iterdir())
    )


def _others_in(work: Path) -> list[str]:
    """Return the names in a folder that are not those of a training's files.

    Without a checkpoint nothing shows that a training has made the folder.
    """
    names = sorted(os.listdir(work)) if work.is_dir() else [work.name]
    if not any(map(_is_checkpoint, names)):
        return names
    own = {f".{_FINGERPRINT}.new", "bundle", "replaced", "frames"}
    return [name for name in names if name not in own and not _is_checkpoint(name)]


def _is_checkpoint(name: str) -> bool:
    return Path(name.removesuffix(".new").lstrip(".")).suffix == ".pt"


def _remove_unused(work: Path, created: list[Path]) -> None:
    """Remove the fingerprint and what was created, if nothing else is in it."""
    for name in (_FINGERPRINT, f".{_FINGERPRINT}.new"):
        (work / name).unlink(missing_ok=True)
    shutil.rmtree(work / "bundle", ignore_errors=True)
    for folder in created or [work]:
        try:
            folder.rmdir()
        except OSError:  # removed already, or not empty
            return
