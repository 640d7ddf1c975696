"""Bundle of a detector network: graph, golden vectors, manifest and card."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neurovocal.engine.contracts.bundle import (
    Bundle,
    DetectorNetworkSpec,
    DetectorSpec,
    Manifest,
    load_bundle,
)
from neurovocal.engine.contracts.types import Float32
from neurovocal.engine.support.text import plain
from neurovocal.models.detection.datasets import CallSet, DetectorData
from neurovocal.models.detection.network import DetectorNetwork, detector_graph
from neurovocal.models.detection.recipe import DetectorRecipe
from neurovocal.models.detection.scenes import Scene
from neurovocal.models.detection.thresholds import DetectorRules
from neurovocal.models.export.bundle import write_manifest
from neurovocal.models.toolkit.files import write_file, write_npz
from neurovocal.models.toolkit.loop import History
from neurovocal.models.toolkit.onnx_session import (
    GraphExport,
    Session,
    check_limits,
    max_relative_difference,
)
from neurovocal.models.training.card import UNKNOWN
from neurovocal.models.training.record import write_history
from neurovocal.models.training.workspace import TrainingJob
from neurovocal.plugins.detectors.band_excess import N_BANDS

GRAPH = "detector.onnx"
_GOLDEN_ROWS = 500


@dataclass(frozen=True, slots=True, eq=False)
class TrainedDetector:
    """Trained network with what was chosen and measured on validation recordings."""

    model: DetectorNetwork
    rules: DetectorRules
    golden: Scene
    figures: dict[str, dict[str, float]]
    history: History


def write_detector_bundle(
    folder: Path,
    trained: TrainedDetector,
    data: DetectorData,
    recipe: DetectorRecipe,
    job: TrainingJob,
) -> Bundle:
    """Write a bundle that is a detector alone, and verify it.

    Raises
    ------
    BundleError
        torch and ONNX Runtime disagree.
    """
    folder.mkdir(parents=True)
    model, rules = trained.model.eval(), trained.rules
    excess = _golden_rows(trained.golden)
    export = GraphExport(folder, golden={"excess": excess})
    path = export.save(detector_graph(model), GRAPH)
    export.parity["detector"] = check_detector(model, path, excess)
    with torch.no_grad():
        logits, _ = model(torch.from_numpy(excess)[None])
    export.golden["scores"] = torch.sigmoid(logits[0]).numpy()
    write_npz(folder / "golden.npz", export.golden)
    write_history(folder, {"detector": trained.history})
    licence, attribution = _rights(data, recipe)
    manifest = Manifest(
        name=recipe.card.name or job.out.name,
        species=recipe.card.species or "any",
        licence=licence,
        attribution=attribution,
        detector=DetectorSpec(plugin="network"),
        detector_network=DetectorNetworkSpec(
            n_bands=N_BANDS,
            state=model.shapes,
            look_ahead=recipe.network.look_ahead,
            on=rules.on,
            off=rules.off,
            min_duration=rules.min_duration,
            gap_fill=rules.gap_fill,
        ),
        training={
            **_record(trained, data, recipe, job),
            "parity": {
                k: float(f"{v:.2g}") for k, v in export.parity["detector"].items()
            },
        },
        figures={
            f"detector, {name}": {key: round(value, 3) for key, value in row.items()}
            for name, row in trained.figures.items()
        },
    )
    write_file(folder / "README.md", plain(_card(manifest, recipe)).encode())
    write_manifest(folder, manifest)
    return load_bundle(folder)


def check_detector(
    model: DetectorNetwork, path: Path, excess: Float32
) -> dict[str, float]:
    """Compare the detector's graph with torch over a state-threaded run.

    Parameters
    ----------
    model : DetectorNetwork
        Trained network.
    path : Path
        File of its graph.
    excess : float32[n_rows, n_bands]
        Input rows.

    Returns
    -------
    dict
        Largest differences by name, run row by row and in one call (``..._whole``).

    Raises
    ------
    BundleError
        A difference exceeds its tolerance.
    """
    session = Session(path)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in model.shapes.items()}
    whole = session.run(excess=excess, **zeros)
    rows, state = [], zeros
    for row in excess:
        step = session.run(excess=row[None], **state)
        state = {name: step[f"{name}_next"] for name in zeros}
        rows.append(step["scores"])
    with torch.no_grad():
        logits, after = model(torch.from_numpy(excess)[None])
        expected = torch.sigmoid(logits[0]).numpy()
    single = np.concatenate(rows)
    found = {
        "scores": max_relative_difference(single, expected),
        "scores_whole": max_relative_difference(whole["scores"], single),
        "states": max(
            max_relative_difference(state[n], after[n][0].numpy()) for n in zeros
        ),
        "states_whole": max(
            max_relative_difference(whole[f"{n}_next"], state[n]) for n in zeros
        ),
    }
    check_limits(path, found, np.inf)
    return found


def _golden_rows(scene: Scene) -> Float32:
    """Return rows with calls in them, float32[500, n_bands]."""
    is_call = np.flatnonzero(scene.target == 1)
    first = max(0, int(is_call[0]) - 25) if len(is_call) else 0
    rows = scene.excess[first : first + _GOLDEN_ROWS].astype(np.float32)
    times = -(-_GOLDEN_ROWS // max(1, len(rows)))
    return np.ascontiguousarray(np.tile(rows, (times, 1))[:_GOLDEN_ROWS])


def _rights(data: DetectorData, recipe: DetectorRecipe) -> tuple[str, str]:
    """Return licence and attribution: the recipe's, or all of the datasets'."""
    licences = sorted({each.licence for each in data.cards.values()})
    credited = [each.attribution for each in data.cards.values() if each.attribution]
    return (
        recipe.card.licence or "; ".join(licences) or UNKNOWN,
        recipe.card.attribution or " ".join(dict.fromkeys(credited)),
    )


def _record(
    trained: TrainedDetector,
    data: DetectorData,
    recipe: DetectorRecipe,
    job: TrainingJob,
) -> dict[str, Any]:
    history = trained.history
    return {
        "command": plain(job.command),
        "date": datetime.now(UTC).date().isoformat(),
        "datasets": {
            name: {"licence": card.licence, "attribution": card.attribution}
            for name, card in data.cards.items()
        },
        "split": "by recording, at random within each dataset",
        "seconds": {
            "train": _seconds(data.sets, "train"),
            "valid": _seconds(data.sets, "valid"),
            "background": round(sum(each.duration_s for each in data.backgrounds), 1),
        },
        "recordings": {
            of.name: {
                "train": [plain(each.source.file) for each in of.train],
                "valid": [plain(each.source.file) for each in of.valid],
            }
            for of in data.sets
        },
        "networks": {
            "detector": {
                "updates": history.update,
                "chosen_at": int(history.best_row["update"]),
                "minutes": round(history.spent_s / 60, 2),
            }
        },
        "notes": list(data.notes),
        "recipe": recipe.model_dump(mode="json", exclude={"card"}),
        "versions": {
            "neurovocal": version("neurovocal"),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _seconds(sets: tuple[CallSet, ...], part: str) -> float:
    durations = [each.source.duration_s for of in sets for each in getattr(of, part)]
    return round(float(sum(durations)), 1)


def _card(manifest: Manifest, recipe: DetectorRecipe) -> str:
    """Write the README.md of the bundle in Markdown."""
    training, spec = manifest.training, manifest.detector_network
    assert spec is not None
    lines = [
        f"# {manifest.name}",
        "",
        *([recipe.card.description.strip(), ""] if recipe.card.description else []),
        f"* Species: {manifest.species}",
        f"* Licence: {manifest.licence}",
        f"* Attribution: {manifest.attribution or 'none asked for'}",
        f"* A segment begins where the score reaches {spec.on:g} and ends where it "
        f"falls below {spec.off:g}; it lasts {spec.min_duration} hops or more, and "
        f"pauses of less than {spec.gap_fill} hops are filled.",
        f"* Trained on {training['seconds']['train']} s of annotated recordings, and "
        f"{recipe.scenes.synthetic} synthetic ones, with "
        f"{training['seconds']['background']} s of backgrounds; chosen on "
        f"{training['seconds']['valid']} s.",
        "",
        "Made by",
        "",
        f"    {training['command']}",
        "",
        "## What went in",
        "",
        "| dataset | licence | attribution |",
        "| --- | --- | --- |",
    ]
    for name, card in training["datasets"].items():
        cells = (name, card["licence"], card["attribution"])
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    lines += [
        "",
        "## Figures on the recordings that chose weights and thresholds",
        "",
        "Recordings of the same animals are in the training: this is no test.",
        "Those with whole groups of animals left out are in docs/detectors.md.",
        "",
        "| dataset | F1 of onsets | F1 of overlap 0.5 |",
        "| --- | --- | --- |",
    ]
    for name, row in manifest.figures.items():
        lines.append(
            f"| {name.removeprefix('detector, ')} | {row['onset_f1']:g} | "
            f"{row['overlap_f1']:g} |"
        )
    return "\n".join([*lines, ""])
