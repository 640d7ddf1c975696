"""Labels as they are compared, and the words among them that name no unit."""

import unicodedata

# What annotators and programs write over a silence. "SP" in capitals is a species.
_SILENCE = frozenset(
    {
        *("sil", "silence", "<sil>", "[sil]", "(sil)", "{sil}", "h#", "#h", "epi"),
        *("pau", "pause", "<pause>", "[pause]", "<p:>", "nocall", "no call"),
    }
)
_SILENCE_AS_WRITTEN = frozenset({"", "_", "sp", "<sp>", "[sp]"})
# Words that are a unit to some annotators, and what is between units to others.
_PERHAPS_SILENCE = frozenset(
    {
        *("noise", "[noise]", "<noise>", "nse", "spn", "background", "bg", "quiet"),
        *("empty", "nothing", "gap", "break", "rest", "stille", "ruhe", "#", "__"),
        *("...", "\u2026"),
    }
)
# A vocalization without a unit: "-" is a new segment's label in evsonganaly.
_WITHOUT_UNIT = frozenset({"-", "unknown"})
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))


def clean_label(text: str) -> str:
    """Return a label in the form in which equal-looking labels are equal.

    Letters with accents are composed (NFC); spaces around the label and characters
    that are never seen are removed, and all other spaces are single blanks.
    """
    if text.isascii() and text.isalnum():
        return text
    return " ".join(unicodedata.normalize("NFC", text).translate(_INVISIBLE).split())


def is_silence(label: str) -> bool:
    """Return True for labels that mean silence, such as ``sil`` or an empty one."""
    return label in _SILENCE_AS_WRITTEN or label.casefold() in _SILENCE


def may_be_silence(label: str) -> bool:
    """Return True for labels of units that mean background to many people."""
    return label.casefold() in _PERHAPS_SILENCE


def is_without_unit(label: str) -> bool:
    """Return True for labels of a vocalization whose unit is not known.

    Frames under them count neither as a unit nor as silence.
    """
    return label.casefold() in _WITHOUT_UNIT
