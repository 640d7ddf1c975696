"""Base class of wrappers around a plugin's object that inject a fault."""

from typing import Any, ClassVar, Self

from neurovocal.engine.contracts.clock import NS, Clock


class Wrapper:
    """Wraps an object and has each of its public attributes as a property.

    The properties belong to a subclass made for the object, so that `isinstance` with
    a protocol gives for the wrapper what it gives for the object.

    Parameters
    ----------
    wrapped : object
        Any stage, source or sink.
    """

    _not_forwarded: ClassVar[frozenset[str]] = frozenset()  # set on the wrapper itself

    def __new__(cls, wrapped: object, *_: Any, **__: Any) -> Self:
        """Make a subclass with the properties of `wrapped`."""
        names = {name for name in dir(wrapped) if not name.startswith("_")}
        own = {*dir(cls), *cls._not_forwarded}
        shown = {name: _forwarded(name) for name in names - own}
        made: Self = super().__new__(type(cls.__name__, (cls,), shown))
        return made

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that the object got after it was wrapped."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._wrapped, name)


def _forwarded(name: str) -> property:
    def read(self: Wrapper) -> Any:
        return getattr(self._wrapped, name)

    def write(self: Wrapper, value: Any) -> None:
        setattr(self._wrapped, name, value)

    return property(read, write)


def wait(clock: Clock, seconds: float) -> None:
    """Return after `seconds` of the engine's clock, and not before."""
    until_ns = clock.monotonic_ns() + round(seconds * NS)
    while not clock.wait_until(until_ns, 1.0):
        pass
