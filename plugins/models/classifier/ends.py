"""Ends of final labels: where annotators set those of the unit."""

from neurovocal.engine.contracts.bundle import ClassifierSpec


class LabelEnds:
    """Onset and offset of a label, from those of the detector and the label's unit.

    A detector ends every sound by one rule. Annotators end a faint trill later than a
    click: the bundle says for each unit by how much they differ (`ends`).

    Parameters
    ----------
    spec : ClassifierSpec
        Its ends are used.
    sample_rate : int
        In Hz.

    Attributes
    ----------
    longest : int
        Most samples by which an offset moves into what follows.
    """

    def __init__(self, spec: ClassifierSpec, sample_rate: int) -> None:
        def samples(ms: float) -> int:
            return round(ms * sample_rate / 1000)

        self._moves = {
            unit: (samples(ends.onset_ms), samples(ends.offset_ms))
            for unit, ends in spec.ends.items()
        }
        self.longest = max((0, *(offset for _, offset in self._moves.values())))

    def __call__(
        self, unit: str, onset: int, offset: int, earliest: int, latest: int
    ) -> tuple[int, int]:
        """Return onset and offset of a label, in samples.

        Parameters
        ----------
        unit : str
            Its unit; one without ends, such as `unknown`, keeps the detector's.
        onset, offset : int
            Those of the detector.
        earliest : int
            End of the label before, or start of the audio.
        latest : int
            End of the audio; the detector's offset counts where it is later.
        """
        first, last = self._moves.get(unit, (0, 0))
        stop = min(offset + last, max(offset, latest))
        start = max(onset + first, earliest)
        if start >= stop:  # a sound that is shorter than the moves
            return min(max(onset, earliest), offset - 1), offset
        return start, stop
