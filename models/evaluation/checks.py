"""Checks of recordings before a bundle is measured on them."""

from neurovocal.engine.contracts.bundle import Bundle
from neurovocal.models.data.datasets import AnnotatedRecording


def check_sound(bundle: Bundle, recordings: list[AnnotatedRecording]) -> None:
    """Read every recording once; tell what of them is not measured.

    Raises
    ------
    ConfigError
        Recordings are damaged, or none can be measured; all mistakes at once.
    """
    from neurovocal.models.data.frames import resampling_notes
    from neurovocal.models.data.soundness import read_recordings, silent_note
    from neurovocal.models.evaluation.evaluate import (
        left_out_notes,
        short_problems,
        trained_notes,
    )
    from neurovocal.models.toolkit.problems import Problems
    from neurovocal.models.toolkit.progress import Reporter

    reporter, problems = Reporter(), Problems()
    notes = problems.of(lambda: left_out_notes(bundle, recordings)) or []
    notes += trained_notes(bundle, recordings)
    notes += resampling_notes(recordings, bundle.manifest.front_end.sample_rate)
    problems.add(short_problems(bundle, recordings))
    with reporter.stage("reading") as on_progress:
        sounds = problems.of(
            lambda: read_recordings(recordings, lambda share: on_progress(share, ""))
        )
    if sounds is not None:
        heard = sounds
        notes += problems.of(lambda: silent_note(heard)) or []
    problems.refuse()
    for note in notes:
        reporter.print_message(f"note: {note}")
