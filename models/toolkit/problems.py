"""Mistakes of several checks, told at once."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from neurovocal.engine.contracts.errors import ConfigError

T = TypeVar("T")


class Problems:
    """Collects the mistakes of several checks."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def of(self, check: Callable[[], T]) -> T | None:
        """Return what a check returns; None, and keep its mistakes, if it raises."""
        try:
            return check()
        except ConfigError as error:
            self._found += error.problems
            return None

    def add(self, problems: Iterable[str]) -> None:
        """Keep mistakes."""
        self._found += problems

    def __bool__(self) -> bool:
        """Return whether there is a mistake."""
        return bool(self._found)

    def refuse(self) -> None:
        """Raise ConfigError with all mistakes, each once, if there is one."""
        if self._found:
            raise ConfigError([*dict.fromkeys(self._found)])
