"""Help texts of options: the docstrings under the fields of option models.

They are read from the source text when they are shown, not when a model is defined:
every start would wait for that, and few show them.
"""

import ast
import inspect
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from types import ModuleType


def texts_of(model: type) -> dict[str, str]:
    """Return the docstring under each field of a class and its bases, by field.

    Fields without one, and classes without a source text, are left out.
    """
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        module = sys.modules.get(base.__module__)
        if module is not None and "__annotations__" in base.__dict__:
            texts |= _texts_in(module).get(base.__qualname__, {})
    return texts


@cache
def _texts_in(module: ModuleType) -> dict[str, dict[str, str]]:
    """Return the texts of all classes of a module, by qualified name and field."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return {}
    return dict(_classes_in(tree.body, ""))


def _classes_in(
    body: Sequence[ast.stmt], prefix: str
) -> Iterator[tuple[str, dict[str, str]]]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield f"{prefix}{node.name}", dict(_texts_under(node.body))
            yield from _classes_in(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            yield from _classes_in(node.body, f"{prefix}{node.name}.<locals>.")


def _texts_under(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield each annotated name that a string follows, and the string."""
    for node, after in pairwise(body):
        match node, after:
            case (
                ast.AnnAssign(target=ast.Name(name)),
                ast.Expr(ast.Constant(str(text))),
            ):
                yield name, inspect.cleandoc(text)
