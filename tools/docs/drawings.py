"""Drawings of packages and their arrows: Mermaid flowcharts as SVG, without a browser.

Mermaid's own script would have to come from another server. A page's fence stays as it
is where repositories draw it; the site gets this SVG. Only what the pages use is known:
``flowchart TD`` with lines ``a["text"] --> b["text"]``.
"""

import re
from collections import defaultdict
from html import escape
from itertools import pairwise

_FENCE = re.compile(r"^```mermaid\n(flowchart TD\n.*?)^```[ \t]*$", re.S | re.M)
_NODE = r'(\w+)(?:\["([^"]+)"\])?'
_EDGE = re.compile(rf"\s*{_NODE}\s*-->\s*{_NODE}\s*")
_HEIGHT, _ROW, _CHAR, _GAP = 28, 78, 7.4, 22
_SWEEPS = 24


def drawn(markdown: str) -> str:
    """Return a page with an SVG in place of each flowchart."""
    return _FENCE.sub(lambda match: f"\n{flowchart(match[1])}\n", markdown)


def flowchart(text: str) -> str:
    """Return a flowchart as an SVG element in the colours of the page.

    Raises
    ------
    ValueError
        A line is no ``a["text"] --> b["text"]``.
    """
    names: dict[str, str] = {}
    edges: list[tuple[str, str]] = []
    for line in text.splitlines()[1:]:
        match = _EDGE.fullmatch(line)
        if match is None:
            raise ValueError(f"the drawing has a line that is not known: {line!r}")
        source, source_text, target, target_text = match.groups()
        for name, shown in ((source, source_text), (target, target_text)):
            names[name] = shown or names.get(name, name)
        edges.append((source, target))
    return _svg(names, *_placed(names, edges))


def _placed(
    names: dict[str, str], edges: list[tuple[str, str]]
) -> tuple[dict[str, tuple[float, int]], list[list[str]]]:
    """Return middle and row of each box, and the ways of the arrows, downwards.

    An arrow over several rows goes through a narrow place of its own in each of them.
    """
    rows = dict.fromkeys(names, 0)
    for _ in names:  # longest way from a box that no arrow leads to
        for source, target in edges:
            rows[target] = max(rows[target], rows[source] + 1)
    for name in names.keys() - {target for _, target in edges}:
        below = [rows[target] for source, target in edges if source == name]
        rows[name] = min(below, default=1) - 1
    ways = []
    for source, target in edges:
        between = range(rows[source] + 1, rows[target])
        passed = {f"{source}>{target}>{row}": row for row in between}
        rows |= passed
        ways.append([source, *passed, target])
    layers: defaultdict[int, list[str]] = defaultdict(list)
    for name, row in rows.items():
        layers[row].append(name)
    widths = {name: _width(names[name]) if name in names else 8 for name in rows}
    middle = dict.fromkeys(rows, 0.0)
    near: defaultdict[str, list[str]] = defaultdict(list)
    for way in ways:
        for source, target in pairwise(way):
            near[source].append(target)
            near[target].append(source)
    for _ in range(_SWEEPS):  # each box towards the mean of those it is joined to
        for row in sorted(layers):
            wanted = {
                name: sum(middle[other] for other in near[name]) / len(near[name])
                for name in layers[row]
            }
            layers[row].sort(key=lambda name: wanted[name])
            _spread(layers[row], wanted, middle, widths)
    return {name: (middle[name], rows[name]) for name in rows}, ways


def _spread(
    layer: list[str],
    wanted: dict[str, float],
    middle: dict[str, float],
    widths: dict[str, float],
) -> None:
    """Place the boxes of a row near where they are wanted, without overlap."""
    at = None
    for name in layer:
        half = widths[name] / 2
        middle[name] = wanted[name] if at is None else max(wanted[name], at + half)
        at = middle[name] + half + _GAP
    shift = sum(wanted[name] - middle[name] for name in layer) / len(layer)
    for name in layer:
        middle[name] += shift


def _width(text: str) -> float:
    return len(text) * _CHAR + 20


def _svg(
    names: dict[str, str],
    placed: dict[str, tuple[float, int]],
    ways: list[list[str]],
) -> str:
    boxes = {name: placed[name] for name in names}
    left = min(x - _width(names[name]) / 2 for name, (x, _) in boxes.items()) - 4
    right = max(x + _width(names[name]) / 2 for name, (x, _) in boxes.items()) + 4
    left = min(left, *(x - 4 for x, _ in placed.values()))
    right = max(right, *(x + 4 for x, _ in placed.values()))
    bottom = max(row for _, row in boxes.values()) * _ROW + _HEIGHT + 4
    parts = []
    for way in ways:
        x, row = placed[way[0]]
        y = row * _ROW + _HEIGHT
        line = f"M{x:.0f} {y}"
        for name in way[1:]:
            into, row = placed[name]
            down = row * _ROW - (6 if name in names else 0)
            bend = (down - y) / 2
            line += (
                f"C{x:.0f} {y + bend:.0f} {into:.0f} {down - bend:.0f} "
                f"{into:.0f} {down}"
            )
            x, y = into, down
            if name not in names:
                y += _HEIGHT
                line += f"V{y}"
        parts.append(
            f'<path d="{line}"/><path class="head" d="M{x - 4:.0f} {y - 1}h8l-4 7z"/>'
        )
    for name, (x, row) in boxes.items():
        width = _width(names[name])
        parts.append(
            f'<rect x="{x - width / 2:.0f}" y="{row * _ROW}" width="{width:.0f}" '
            f'height="{_HEIGHT}" rx="4"/>'
            f'<text x="{x:.0f}" y="{row * _ROW + 18}">{escape(names[name])}</text>'
        )
    shown = ", ".join(f"{names[way[0]]} to {names[way[-1]]}" for way in ways)
    return (
        f'<svg class="drawing" role="img" aria-label="Arrows: {escape(shown)}" '
        f'viewBox="{left:.0f} -4 {right - left:.0f} {bottom + 4}" '
        f'style="max-width: {right - left:.0f}px">{"".join(parts)}</svg>'
    )
