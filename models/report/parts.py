"""What a page is made of."""

from dataclasses import dataclass, field

from neurovocal.models.report.tables import Table


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture with the sentence below it."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Part:
    """A heading with text, pictures and a table; each may be missing."""

    title: str = ""
    text: str = ""
    figures: list[Drawing] = field(default_factory=list)
    table: Table | None = None
    measures: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter of the page."""

    anchor: str
    title: str
    text: str
    parts: list[Part]
