"""Parts of a report's page."""

from dataclasses import dataclass, field

from neurovocal.models.report.tables import ReportTable


@dataclass(frozen=True, slots=True)
class Drawing:
    """An SVG figure with its caption."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Part:
    """A heading with text, measures, figures and a table; each may be missing."""

    title: str = ""
    text: str = ""
    figures: list[Drawing] = field(default_factory=list)
    table: ReportTable | None = None
    measures: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page."""

    anchor: str
    title: str
    text: str
    parts: list[Part]
