"""Labels as they are compared, and words that name no unit."""

import pytest

from neurovocal.engine.support.label_words import (
    clean_label,
    is_silence,
    is_without_unit,
)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("a", "a"),
        (" a ", "a"),
        ("a\xa0", "a"),
        ("a\u200b", "a"),
        ("a\u200bb\u00ad", "ab"),
        ("e\u0301", "\u00e9"),
        ("long\n call", "long call"),
        ("long\xa0\xa0call", "long call"),
        ("01", "01"),
        ("NA", "NA"),
        ("None", "None"),
        ('"a"', '"a"'),
        ("\u200b", ""),
    ],
)
def test_labels_that_look_the_same_are_the_same(text: str, label: str) -> None:
    assert clean_label(text) == label


@pytest.mark.parametrize(
    "label", ["", "sil", "SIL", "<SIL>", "Silence", "sp", "_", "Pause", "nocall"]
)
def test_words_for_silence(label: str) -> None:
    assert is_silence(label)
    assert not is_without_unit(label)


@pytest.mark.parametrize("label", ["a", "SP", "0", "NA", "None", "null", "silent"])
def test_other_words_are_units(label: str) -> None:
    assert not is_silence(label)
    assert not is_without_unit(label)


@pytest.mark.parametrize("label", ["-", "unknown", "Unknown"])
def test_labels_of_a_vocalization_whose_unit_is_not_known(label: str) -> None:
    assert is_without_unit(label)
    assert not is_silence(label)
