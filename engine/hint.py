"""What to say of a name that is unknown: the one that was meant, or all there are."""

from collections.abc import Iterable
from difflib import get_close_matches


def hint(name: str, known: Iterable[str], otherwise: str = "known:") -> str:
    """Clause for the brackets behind an unknown name.

    Parameters
    ----------
    name : str
        What was written.
    known : iterable of str
        What could have been written, in the order in which it is listed.
    otherwise : str
        Begins the list, where nothing is like `name`.
    """
    names = list(known)
    if close := get_close_matches(name, names, n=1):
        return f"did you mean '{close[0]}'?"
    return f"{otherwise} {', '.join(names)}"
