"""Bundle of a detector network: graph, golden vectors, manifest and card."""

from dataclasses import dataclass
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
from neurovocal.models.detection.judged import batch_of
from neurovocal.models.detection.network import DetectorNetwork, detector_graph
from neurovocal.models.detection.recipe import DetectorRecipe
from neurovocal.models.detection.scenes import Scene
from neurovocal.models.toolkit.files import write_file, write_npz
from neurovocal.models.toolkit.loop import History
from neurovocal.models.toolkit.onnx_session import GraphExport, check_outputs
from neurovocal.models.training.card import UNKNOWN
from neurovocal.models.training.export.bundle import write_manifest
from neurovocal.models.training.record import run_record, write_history
from neurovocal.models.training.workspace import TrainingJob
from neurovocal.plugins.detectors.band_excess import N_BANDS

GRAPH = "detector.onnx"
_GOLDEN_ROWS = 500


@dataclass(frozen=True, slots=True, eq=False)
class TrainedDetector:
    """Trained network with what was measured on validation recordings."""

    model: DetectorNetwork
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
    model = trained.model.eval()
    golden = _golden_rows(trained.golden)
    export = GraphExport(folder, golden=golden)
    with torch.no_grad():
        corrections, after = model(*batch_of(golden["levels"], golden["scores"]))
    expected = corrections[0].numpy()
    parity = check_outputs(
        export.save(detector_graph(model), GRAPH),
        golden,
        {"corrections": expected},
        {name: after[name][0].numpy() for name in model.shapes},
    )
    write_npz(folder / "golden.npz", {**golden, "corrections": expected})
    write_history(folder, {"detector": trained.history})
    licence, attribution = _rights(data, recipe)
    record = run_record(
        job.command,
        _data_record(data),
        {"detector": trained.history},
        data.notes,
        recipe,
    )
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
        ),
        training={
            **record,
            "parity": {name: float(f"{value:.2g}") for name, value in parity.items()},
        },
        figures={
            f"detector, {name}": {key: round(value, 3) for key, value in row.items()}
            for name, row in trained.figures.items()
        },
    )
    write_file(folder / "README.md", plain(_card(manifest, recipe)).encode())
    write_manifest(folder, manifest)
    return load_bundle(folder)


def _golden_rows(scene: Scene) -> dict[str, Float32]:
    """Return levels and scores with calls in them, of 500 rows."""
    is_call = np.flatnonzero(scene.target == 1)
    first = max(0, int(is_call[0]) - 25) if len(is_call) else 0
    at = np.resize(np.arange(first, max(first + 1, len(scene.target))), _GOLDEN_ROWS)
    return {
        "levels": scene.levels[at].astype(np.float32),
        "scores": scene.scores[at].astype(np.float32),
    }


def _rights(data: DetectorData, recipe: DetectorRecipe) -> tuple[str, str]:
    """Return licence and attribution: the recipe's, or all of the datasets'."""
    licences = sorted({each.licence for each in data.cards.values()})
    credited = [each.attribution for each in data.cards.values() if each.attribution]
    return (
        recipe.card.licence or "; ".join(licences) or UNKNOWN,
        recipe.card.attribution or " ".join(dict.fromkeys(credited)),
    )


def _data_record(data: DetectorData) -> dict[str, Any]:
    return {
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
    }


def _seconds(sets: tuple[CallSet, ...], part: str) -> float:
    durations = [each.source.duration_s for of in sets for each in getattr(of, part)]
    return round(float(sum(durations)), 1)


def _card(manifest: Manifest, recipe: DetectorRecipe) -> str:
    """Write the README.md of the bundle in Markdown."""
    training = manifest.training
    lines = [
        f"# {manifest.name}",
        "",
        *([recipe.card.description.strip(), ""] if recipe.card.description else []),
        f"* Species: {manifest.species}",
        f"* Licence: {manifest.licence}",
        f"* Attribution: {manifest.attribution or 'none asked for'}",
        "* Thresholds and durations are those of the detector `bands`, whose score it "
        "corrects.",
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
        "## Figures on the recordings that chose the weights",
        "",
        "Recordings of the same animals are in the training: this is no test.",
        "Those with whole groups of animals left out: docs/performance/detectors.md.",
        "",
        "| dataset | F1 of onsets | of overlap 0.5 | `bands`: onsets | overlap 0.5 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in manifest.figures.items():
        values = " | ".join(f"{value:g}" for value in row.values())
        lines.append(f"| {name.removeprefix('detector, ')} | {values} |")
    return "\n".join([*lines, ""])
