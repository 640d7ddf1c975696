"""Learning curves: the measures of a training at each validation."""

import json
from dataclasses import dataclass
from typing import Any

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.engine.contracts.errors import BundleError
from neurovocal.models.report.draw import LINES, page_figure, svg
from neurovocal.models.report.parts import Drawing, Part, Section

HISTORY_NAME = "history.json"
_MEASURES = {
    "classifier": {
        "loss": "loss (training)",
        "cross_entropy": "cross entropy per frame (left out)",
        "score": "cross entropy per frame (left out)",
        "frame_error": "frame error (left out)",
    },
    "rnn_rbm": {
        "loss": "loss (training)",
        "score": "squared error of the next frame (validation)",
        "free_energy": "free energy per frame, nats (validation)",
        "w_norm": "norm of W",
    },
}


@dataclass(frozen=True, slots=True)
class LearningCurves:
    """History of one network.

    Parameters
    ----------
    rows : list of dict
        `update`, `loss` and the measures of the validation split, one per validation.
    phases : list of (int, str)
        Update at which each phase begins, and its objective.
    chosen_at : int
        Update of the weights in the bundle.
    """

    rows: list[dict[str, float | None]]
    phases: list[tuple[int, str]]
    chosen_at: int


def read_history(bundle: Bundle) -> dict[str, LearningCurves]:
    """Read the learning curves by network; empty for a bundle without a history.

    Raises
    ------
    BundleError
        The file does not have the format that training writes.
    """
    if HISTORY_NAME not in bundle.manifest.files:
        return {}
    path = bundle.path(HISTORY_NAME)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: LearningCurves(
                [dict(row) for row in entry["rows"]],
                _phase_names(bundle, name, [int(at) for at in entry["phase_starts"]]),
                int(entry["chosen_at"]),
            )
            for name, entry in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"history '{path}' cannot be read ({error!r})") from error


def draw_history(name: str, curves: LearningCurves) -> str:
    """Draw one panel per measure over the updates; mark phases and the chosen one."""
    known = _MEASURES.get(name, {})
    names = [key for key in curves.rows[0] if key != "update"]
    names.sort(key=lambda key: list(known).index(key) if key in known else len(known))
    columns = len(names) if len(names) <= 3 else 2
    lines = -(-len(names) // columns)
    with page_figure(10, 2.1 * lines + 0.5) as figure:
        axes = figure.subplots(lines, columns, squeeze=False, sharex=True)
        for spare in axes.flat[len(names) :]:
            spare.remove()
        for panel, key in zip(axes.flat, names, strict=False):
            points = [(r["update"], r.get(key)) for r in curves.rows]
            x = [at for at, value in points if value is not None]
            y = [value for _, value in points if value is not None]
            panel.plot(x, y, "o-", ms=3, color=LINES[0])
            panel.axvline(curves.chosen_at, color=LINES[1], lw=1.2)
            for number, (start, _) in enumerate(curves.phases, start=1):
                if len(curves.phases) > 1:
                    panel.axvline(start, color=LINES[3], lw=0.8, ls=":")
                    panel.annotate(
                        str(number),
                        (start, 1),
                        xycoords=("data", "axes fraction"),
                        xytext=(3, -3),
                        textcoords="offset points",
                        va="top",
                        color=LINES[3],
                    )
            panel.set_title(known.get(key, key.replace("_", " ")))
            panel.tick_params(labelbottom=True)
        for panel in axes[-1]:
            panel.set_xlabel("update")
        return svg(figure, f"learning curves of the {name}")


def _phase_names(bundle: Bundle, name: str, starts: list[int]) -> list[tuple[int, str]]:
    """Return update and name of each phase; names come from the recipe."""
    recipe: Any = bundle.manifest.training.get("recipe", {}).get(name) or {}
    phases = recipe.get("phases") or []
    if len(phases) != len(starts):
        return [(at, f"phase {number}") for number, at in enumerate(starts, start=1)]
    return [
        (at, f"{phase['objective']}, learning rate {phase['learning_rate']:g}")
        for at, phase in zip(starts, phases, strict=True)
    ]


def history_section(bundle: Bundle) -> Section | None:
    """Return the section with one part per network; None without a history.

    Raises
    ------
    BundleError
        The history cannot be read.
    """
    parts = []
    for name, curves in read_history(bundle).items():
        if not curves.rows:
            continue
        looks = "One point per look at the validation split"
        if "cross_entropy" in curves.rows[0]:
            looks = "One point per look at recordings that were left out, their mean"
        caption = (
            f"{looks}; the vertical line marks update {curves.chosen_at}, whose "
            "weights the bundle has."
        )
        if len(curves.phases) > 1:
            phases = "; ".join(
                f"{number} from update {start}: {what}"
                for number, (start, what) in enumerate(curves.phases, start=1)
            )
            caption += (
                f" Phases: {phases}. Weights are chosen in the last phase; losses of "
                "different objectives are not comparable."
            )
        parts.append(
            Part(
                title={"rnn_rbm": "RNN-RBM"}.get(name, name.capitalize()),
                figures=[Drawing(draw_history(name, curves), caption)],
            )
        )
    if not parts:
        return None
    return Section("learning", "Learning", "", parts)
