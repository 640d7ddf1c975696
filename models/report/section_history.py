"""The section of the learning curves."""

from neurovocal.engine.manifest import Bundle
from neurovocal.models.report.history import draw_history, read_history
from neurovocal.models.report.parts import Drawing, Part, Section


def history_section(bundle: Bundle) -> Section | None:
    """One part per network; None for a bundle that carries no history.

    Raises
    ------
    BundleError
        The history cannot be read.
    """
    parts = []
    for name, curves in read_history(bundle).items():
        if not curves.rows:
            continue
        caption = (
            f"One point per look at the validation split; the vertical line marks "
            f"update {curves.chosen_at}, whose weights the bundle has."
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
