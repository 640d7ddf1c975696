"""Read JSON to typed values: bounded in size and depth, refused in one sentence.

Everything that a file, a connection or another program brings as JSON is read here.
"""

import json
import re
from typing import Any, Generic, TypeVar

import msgspec

from neurovocal.engine.support.text import printable

ValueT = TypeVar("ValueT")

MOST_BYTES = 64 * 1024
MOST_LEVELS = 32

_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OTHERS = re.compile(rb"[^\[\]{}]+")
_MOST_SHOWN = 60
_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_LACKS = re.compile(r"Object missing required field `([^`]+)`")
_BOUND = re.compile(r"Expected `(?:int|float)` (<=|>=|<|>) ([-\d.e+]+)")
_LENGTH = re.compile(r"Expected `\w+` of length (<=|>=) (\d+)")
_CHOICE = re.compile(r"Invalid (?:enum )?value (.*?)(?: - at `.*)?$", re.DOTALL)
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


class JsonError(ValueError):
    """The text is not the JSON that was expected; the reason as the end of a sentence.

    Such as ``'rate' is text, not a whole number``.
    """


class JsonReader(Generic[ValueT]):
    """Reads one JSON value of a type; it may be shared by threads.

    Parameters
    ----------
    form : type
        As for `msgspec.json.Decoder`, such as a `msgspec.Struct`.
    most_bytes : int
        Longest text that is read.
    names_files : bool
        Whether texts may hold lone surrogates, as Python keeps names of files that are
        not UTF-8.
    """

    def __init__(
        self,
        form: type[ValueT],
        *,
        most_bytes: int = MOST_BYTES,
        names_files: bool = False,
    ) -> None:
        self._form = form
        self._decoder = msgspec.json.Decoder(form)
        self._most_bytes = most_bytes
        self._names_files = names_files

    def read(self, text: bytes | memoryview) -> ValueT:
        """Return the value.

        Raises
        ------
        JsonError
            The text is too long, nested too deeply, no JSON, or of another type.
        """
        if len(text) > self._most_bytes:
            raise JsonError(f"it has {len(text)} bytes, {self._most_bytes} at most")
        data = bytes(text)
        if data.count(b"[") + data.count(b"{") > MOST_LEVELS and _is_too_deep(data):
            raise JsonError(f"it is nested more than {MOST_LEVELS} levels deep")
        try:
            if self._names_files:
                return msgspec.convert(json.loads(data), self._form)
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise JsonError(_sentence(str(error))) from error
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            raise JsonError("it is not JSON") from error


#: Reads a request: any JSON object, whose values the receiver checks.
objects: JsonReader[dict[str, Any]] = JsonReader(dict)


def _is_too_deep(data: bytes) -> bool:
    """Return True if lists and objects are nested too deeply; texts do not count."""
    level = 0
    for char in _OTHERS.sub(b"", _TEXTS.sub(b"", data)):
        level += 1 if char in b"[{" else -1
        if level > MOST_LEVELS:
            return True
    return False


def _sentence(message: str) -> str:
    """Say what is wrong in own words: those of the library name its types."""
    place = _PLACE.search(message)
    # The library does not name the keys of objects without a type.
    path = place[1].replace("[...]", "").strip(".") if place else ""
    what = f"'{printable(path[:_MOST_SHOWN])}'" if path else "it"
    if found := _WRONG_TYPE.match(message):
        wanted, got = (part.split(" | ") for part in found.groups())
        is_not = f"{_noun(got[0])}, not {' or '.join(map(_noun, wanted))}"
        return f"{what} is {is_not}"
    if found := _LACKS.match(message):
        return f"{what} lacks '{found[1]}'"
    if found := _BOUND.match(message):
        return f"{what} has to be {found[1]} {found[2]}"
    if found := _LENGTH.match(message):
        return f"{what} has to be of length {found[1]} {found[2]}"
    if found := _CHOICE.match(message):
        return f"{what} cannot be {printable(found[1][:_MOST_SHOWN])}"
    if "out of range" in message:
        return f"{what} holds a number that is too large"
    return f"{what} is none of the allowed values"


def _noun(word: str) -> str:
    return _NOUNS.get(word, word)
