"""Write docs/behaviours.md: which test or scenario holds which of the numbered behaviours.

A test names what it holds in a comment - ``# B12, B13`` or ``# J`` - on its ``def``, its
decorators or in its body; a scenario also by an attribute, ``holds = ("B3", "A")``.
A comment outside of any function or class speaks for the whole file.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
TITLES = ROOT / "docs" / "behaviours.toml"
TABLE = ROOT / "docs" / "behaviours.md"
PLACES = ("tests", "src/mkwrite/model")

_NUMBER = r"(?:B[1-9]\d?|[A-L])"
_COMMENT = re.compile(rf"#\s*({_NUMBER}(?:\s*,\s*{_NUMBER})*)\s*(?:[.:]|$)")
_NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def titles() -> dict[str, dict[str, str]]:
    """The statements by section and number."""
    return tomllib.loads(TITLES.read_text())


def holders(source: str) -> Iterator[tuple[str, str]]:
    """Pairs (number, name of the test or scenario that holds it; "": the file)."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.keyword):
            targets = node.targets if isinstance(node, ast.Assign) else [node]
            if any(_name(target) == "holds" for target in targets):
                for number in _strings(node.value):
                    yield number, _around(tree, node.value.lineno if node.value else 0)
    for line, indented, numbers in _comments(source):
        for number in numbers:
            yield number, _around(tree, line, indented=indented)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.AnnAssign):
        node = node.target
    return str(getattr(node, "arg", None) or getattr(node, "id", ""))


def _strings(node: ast.AST | None) -> Iterator[str]:
    for inner in ast.walk(node) if node is not None else ():
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def _comments(source: str) -> Iterator[tuple[int, bool, list[str]]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        found = _COMMENT.match(token.string) if token.type == tokenize.COMMENT else None
        if found:
            alone = not token.line[: token.start[1]].strip()
            indented = alone and token.start[1] > 0
            yield token.start[0], indented, re.findall(_NUMBER, found[1])


def _around(tree: ast.Module, line: int, *, indented: bool = False) -> str:
    """The innermost test or scenario around ``line``, decorators included.

    An indented comment after the last statement of a function is still that function's.
    """
    path: list[str] = []
    nodes: list[ast.stmt] = tree.body
    while True:
        named = [node for node in nodes if isinstance(node, _NAMED) and _first(node) <= line]
        if not named or (line > (named[-1].end_lineno or 0) and not indented):
            return "::".join(path)
        path.append(named[-1].name)
        nodes = named[-1].body if isinstance(named[-1], ast.ClassDef) else []


def _first(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(each.lineno for each in node.decorator_list)])


def held(known: set[str], root: Path) -> dict[str, set[str]]:
    """Who holds what, by number. ValueError: a test names a number that does not exist."""
    found: dict[str, set[str]] = defaultdict(set)
    for place in PLACES:
        for path in sorted((root / place).rglob("*.py")):
            for number, name in holders(path.read_text()):
                where = path.relative_to(root).as_posix()
                if number not in known:
                    raise ValueError(f"{where}: there is no statement {number}")
                found[number].add(f"`{where}::{name}`" if name else f"`{where}`")
    return found


def table(root: Path = ROOT) -> str:
    """The whole of behaviours.md."""
    sections = titles()
    known = {number for section in sections.values() for number in section}
    tests = held(known, root)
    lines = [
        "# Behaviours",
        "",
        "What mkwrite must show, and the tests that hold it. Written by `tools/behaviours.py`.",
        "",
        f"{len(tests)} of {len(known)} are held by a test.",
    ]
    for section, statements in sections.items():
        lines += ["", f"## {section}", "", "| | statement | held by |", "|---|---|---|"]
        for number, title in statements.items():
            cell = "<br>".join(sorted(tests.get(number, ()))) or "not yet"
            lines.append(f"| {number} | {title} | {cell} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table())
