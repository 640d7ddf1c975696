"""Damaged bundles, and data sets that cannot be trained on."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from golden.session import ROOT, Case


def shipped_bundle(name: str) -> Path:
    """Find the folder of a bundle that ships."""
    found = [
        path.parent
        for path in ROOT.glob(f"*/**/{name}/manifest.yaml")
        if not {".venv", ".src", "tests"} & set(path.relative_to(ROOT).parts)
    ]
    return min(found)


def _copied(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        shutil.copytree(shipped_bundle("zebra-finch"), folder / "bundle")
        change(folder / "bundle")

    return prepare


def _flipped(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 0xFF
        (folder / name).write_bytes(bytes(content))

    return change


def _edited(old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "manifest.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text, f"the manifest does not hold {old!r}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


_DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte of the classifier": _flipped("classifier.onnx"),
    "a byte of the golden outputs": _flipped("golden.npz"),
    "a byte of the scaling": _flipped("scaling.npz"),
    "no classifier": lambda folder: (folder / "classifier.onnx").unlink(),
    "no scaling": lambda folder: (folder / "scaling.npz").unlink(),
    "no manifest": lambda folder: (folder / "manifest.yaml").unlink(),
    "manifest is not YAML": _edited("version: 1", "version: [1"),
    "manifest is a list": lambda f: (f / "manifest.yaml").write_text("- 1\n"),
    "version": _edited("version: 1", "version: 7"),
    "unknown key": _edited("version: 1", "version: 1\nspecie: bird"),
    "no name": _edited("name: zebra-finch", "nmae: zebra-finch"),
    "duplicate key": _edited("version: 1", "version: 1\nversion: 1"),
    "bins": _edited("n_bins: 129", "n_bins: 128"),
    "hop": _edited("hop_length: 128", "hop_length: 64"),
    "unknown front end": _edited("plugin: spectrogram", "plugin: spectogram"),
    "file outside": _edited("file: classifier.onnx", "file: ../classifier.onnx"),
    "file that is not listed": _edited("file: classifier.onnx", "file: other.onnx"),
    "silence": _edited("silence: ''", "silence: quiet"),
    "decision": _edited("decision: vote", "decision: dice"),
    "sample rate": _edited("sample_rate: 44100", "sample_rate: fast"),
}


def cases() -> Iterator[Case]:
    """Yield a check of each damaged bundle."""
    for name, change in _DAMAGES.items():
        yield Case(name, ("bundle", "check", "bundle"), prepare=_copied(change))
    damaged = _copied(_flipped("classifier.onnx"))
    yield Case("show a damaged one", ("bundle", "show", "bundle"), prepare=damaged)
    yield Case(
        "label with a damaged one",
        ("label", "INPUTS/other.wav", "--bundle", "bundle"),
        prepare=damaged,
    )
    yield Case("check nothing", ("bundle", "check", "zebrafinch"))
    yield Case(
        "check a file", ("bundle", "check", "x.yaml"), {"x.yaml": "version: 1\n"}
    )
    yield Case("check a folder without a bundle", ("bundle", "check", "."))


def _broken(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        inputs = next(p / "inputs" for p in folder.parents if (p / "inputs").is_dir())
        shutil.copytree(inputs / "tones", folder / "tones")
        change(folder / "tones")

    return prepare


def _rows(change: Callable[[list[str]], list[str]]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        path = folder / "annotations.csv"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return write


_BROKEN: dict[str, Callable[[Path], object]] = {
    "no annotations": lambda folder: (folder / "annotations.csv").unlink(),
    "empty annotations": _rows(lambda rows: []),
    "no rows": _rows(lambda rows: rows[:1]),
    "missing column": _rows(lambda rows: ["file,onset_s,offset_s", *rows[1:]]),
    "labels missing": _rows(lambda rows: [rows[0], rows[1][:-1], *rows[2:]]),
    "crossing": _rows(lambda rows: [rows[0], "song0.wav,1.15,1.3,b", *rows[1:]]),
    "backwards": _rows(lambda rows: [rows[0], "song0.wav,0.5,0.4,a", *rows[1:]]),
    "no number": _rows(lambda rows: [rows[0], "song0.wav,x,0.4,a", *rows[1:]]),
    "beyond the end": _rows(lambda rows: [*rows, "song0.wav,9.0,9.1,a"]),
    "absent file": _rows(lambda rows: [*rows, "song9.wav,0.1,0.2,a"]),
    "file outside": _rows(lambda rows: [*rows, "../song9.wav,0.1,0.2,a"]),
    "file that is text": lambda f: (f / "song3.wav").write_text("not audio\n" * 50),
    "one unit": _rows(lambda rows: [rows[0], rows[1]]),
}


def dataset_cases() -> Iterator[Case]:
    """Yield trainings that are refused."""
    recipe = ("--out", "made", "--config", "INPUTS/recipe-classifier.yaml")
    for name, change in _BROKEN.items():
        yield Case(name, ("train", "tones", *recipe), prepare=_broken(change))
    yield Case("no data set", ("train", "none", "--out", "made"))
    tones = ("train", "INPUTS/tones", "--out", "made")
    yield Case("unknown form", (*tones, "--format", "xml"))
    yield Case("no recipe", (*tones, "--config", "none.yaml"))
    yield Case("no origin", (*tones, "--from", "finch"))
    recipe_text = "version: 1\nclasifier: {}\nclassifier: {n_hidden: 0, updates: x}\n"
    bad = (*tones, "--config", "recipe.yaml")
    yield Case("bad recipe", bad, {"recipe.yaml": recipe_text})
    yield Case("onto a folder", (*tones[:-1], "."), {"notes": "mine"})
    yield Case("minutes", (*tones, "--minutes", "0"))
    yield Case(
        "evaluate a broken data set",
        ("evaluate", "zebra-finch", "tones"),
        prepare=_broken(_BROKEN["crossing"]),
    )
