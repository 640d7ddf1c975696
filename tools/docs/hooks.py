"""Hooks of MkDocs: files of the repository, equations as MathML, drawings as SVG.

A page may link to any file of the repository (``../../configs/demo.yaml``): a copy of
the file is put into the site under ``files/``, so that the link holds without a
network. An equation stands as LaTeX between ``$$`` (a paragraph) or ``$`` (within a
line).
"""

import re
import sys
from pathlib import Path
from posixpath import dirname, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file by its path
from drawings import drawn  # noqa: E402

LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
# Code is left as it is: fences first, then inline code.
CODE = re.compile(r"^(?P<f>```+|~~~+).*?^(?P=f)[ \t]*$|`[^`\n]+`", re.S | re.M)
EQUATION = re.compile(
    r"\$\$(?P<block>.+?)\$\$|\$(?P<line>[^\s$](?:[^$\n]*[^\s$])?)\$", re.S
)


def outside(page: str, target: str) -> str | None:
    """Return a link's path in the repository, None where it leads to no such file."""
    if re.match(r"[a-z]+:|/", target):
        return None
    path = normpath(f"docs/{dirname(page)}/{target}")
    if path.startswith(("docs/", "../")) or not (ROOT / path).exists():
        return None
    return path


def place_of(path: str) -> str:
    """Return where the copy of a repository's file lies in the site."""
    if (ROOT / path).is_dir():
        return f"files/{path}/index.txt"
    if path.endswith(".ipynb"):
        return f"files/{path}"
    return f"files/{path}.txt"


def text_of(path: Path) -> str:
    """Return the text of a file, or the list of the files of a folder."""
    if path.is_dir():
        return "".join(f"{each.name}\n" for each in sorted(path.iterdir()))
    return path.read_text(encoding="utf-8")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to."""
    wanted: set[str] = set()
    for file in files.documentation_pages():
        text = CODE.sub("", Path(file.abs_src_path or "").read_text(encoding="utf-8"))
        for _, target, _, _ in LINK.findall(text):
            path = outside(file.src_uri, target)
            if path:
                wanted.add(path)
    for path in sorted(wanted):
        files.append(
            File.generated(config, place_of(path), content=text_of(ROOT / path))
        )
    return files


def spared(pattern: re.Pattern[str], change, text: str) -> str:
    """Return the text with every match outside code changed."""
    parts, at = [], 0
    for code in CODE.finditer(text):
        parts += [pattern.sub(change, text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, pattern.sub(change, text[at:])])


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead links out of docs/ to the copies, and take the equations out of the text."""
    uri = page.file.src_uri
    equations: list[tuple[str, str]] = []

    def led(match: re.Match[str]) -> str:
        path = outside(uri, match[2])
        if path is None:
            return match[0]
        return f"{match[1]}{relpath(place_of(path), dirname(uri) or '.')}{match[4]}"

    def taken(match: re.Match[str]) -> str:
        kind = "block" if match["block"] else "inline"
        equations.append((match["block"] or match["line"], kind))
        return f"nvequation{len(equations) - 1}x"

    text = spared(LINK, led, drawn(markdown))
    text = spared(EQUATION, taken, text)
    page.meta["equations"] = equations
    return text


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Put the equations back, as MathML."""
    equations = page.meta.get("equations") or []
    if not equations:
        return html
    from latex2mathml.converter import convert

    def math(match: re.Match[str]) -> str:
        latex, display = equations[int(match[1])]
        mathml = convert(" ".join(latex.split()), display=display)
        return (
            f'<span class="equation">{mathml}</span>' if display == "block" else mathml
        )

    return re.sub(r"nvequation(\d+)x", math, html)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """Put a script of this site where the theme loads one from another server.

    It lets the search work in pages that were opened as files.
    """
    return local(output, relpath("assets/worker.js", dirname(page.file.src_uri) or "."))


def on_post_template(output_content: str, **_: object) -> str:
    """Do the same for pages that the theme itself makes."""
    return local(output_content, "/assets/worker.js")


def local(html: str, script: str) -> str:
    """Replace the theme's script of another server."""
    tag = re.compile(r'<script src="https://unpkg\.com/[^"]*"></script>')
    return tag.sub(f'<script src="{script}"></script>', html)
