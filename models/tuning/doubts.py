"""What contradicts what among examples, in sentences."""

from collections.abc import Iterator, Sequence
from itertools import chain

from neurovocal.models.tuning.examples import Example
from neurovocal.models.tuning.fitting import Fit
from neurovocal.models.tuning.heard import Span
from neurovocal.models.tuning.stretches import HeardExamples

_FAR_APART = 10.0  # ratio of durations
_MOST_NAMED = 3


def duration_doubts(examples: Sequence[Example]) -> Iterator[str]:
    """Yield a sentence if the longest example is ten times as long as the shortest."""
    if not examples:
        return
    shortest = min(examples, key=lambda each: round(each.duration_s, 6))
    longest = max(examples, key=lambda each: round(each.duration_s, 6))
    if longest.duration_s >= _FAR_APART * shortest.duration_s:
        yield (
            f"{longest.where}: lasts {longest.duration_s:.3g} s, and the example of "
            f"{shortest.where} {shortest.duration_s:.3g} s: one detector suits "
            "sounds of similar length; choose a kind with --label, or tune one each"
        )


def is_unheard(peak_db: float, noise_db: float) -> bool:
    """Return True if an example's highest score is that of the noise around it."""
    return peak_db < max(noise_db + 2.0, 1.0)


def unheard(heard: Sequence[HeardExamples], fit: Fit) -> list[Example]:
    """Return the examples in which nothing rises above the noise."""
    return [
        example
        for each, peaks in zip(heard, fit.peaks_db, strict=True)
        for example, peak in zip(each.examples, peaks, strict=True)
        if is_unheard(peak, fit.noise_db)
    ]


def unheard_sentence(example: Example) -> str:
    """Return a sentence on an example in which nothing is heard."""
    return (
        f"{example.where}: nothing is heard above the noise from "
        f"{example.onset_s:.3f} to {example.offset_s:.3f} s: the example is left out"
    )


def fit_doubts(heard: Sequence[HeardExamples], fit: Fit) -> Iterator[str]:
    """Yield sentences on examples that are not found, and on other sounds that are."""
    missed, others = [], []
    n_examples = 0
    for each, found in zip(heard, fit.found, strict=True):
        spans = each.stretch.spans
        n_examples += len(spans)
        missed += [
            example
            for example, span in zip(each.examples, spans, strict=True)
            if not any(_overlap(span, other) for other in found)
        ]
        others += [
            (each, span)
            for span in found
            if not any(_overlap(span, other) for other in spans)
        ]
    for example in missed[:_MOST_NAMED]:
        yield (
            f"{example.where}: the example at {example.onset_s:.3f} s is not found: "
            "it is no louder than other sounds between the examples"
        )
    if more := missed[_MOST_NAMED:]:
        yield f"{len(more)} more examples are not found"
    if len(others) >= max(2, n_examples):
        first, span = others[0]
        yield (
            f"{first.examples[0].where}: between the {n_examples} examples "
            f"{len(others)} other sounds are as loud as they are, the first at "
            f"{first.start_s + span[0]:.2f} s: if they are calls, list them too, or "
            "say --sparse"
        )


def n_found(heard: Sequence[HeardExamples], fit: Fit) -> tuple[int, int, int]:
    """Return how many examples there are, are found, and how many other sounds are."""
    spans = [
        (number, span)
        for number, each in enumerate(heard)
        for span in each.stretch.spans
    ]
    found = list(chain.from_iterable(fit.found))
    hits = sum(any(_overlap(span, o) for o in fit.found[n]) for n, span in spans)
    matched = sum(
        any(_overlap(span, other) for other in heard[n].stretch.spans)
        for n, parts in enumerate(fit.found)
        for span in parts
    )
    return len(spans), hits, len(found) - matched


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
