"""The house: each floor imports only floors below it, and the policy touches no machine."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .mutable import mutable_state
from .stale import carried_state

SOURCE = Path(__file__).parent.parent / "src" / "mkwrite"
FILES = sorted(SOURCE.rglob("*.py"))
POLICY = sorted((SOURCE / "mm").glob("**/*.py"))

# What each floor may import of the others. The public face (__init__) may import any.
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "extents": set(),
    "kernel": set(),
    "mm": {"extents"},
    "wire": {"errors", "extents"},
    "tracking": {"errors", "extents", "kernel"},
    "recording": {"extents"},
    "summary": {"extents", "recording"},
    "reporting": {"extents", "recording", "summary"},
    "stores": {"errors", "extents", "mm"},
    "model": {"extents", "mm", "stores"},
    "cures": {"errors", "kernel"},
    "doctor": {"cures", "errors", "kernel"},
    "pager": {"cures", "errors", "extents", "kernel", "mm", "recording", "stores", "wire"},
}
FLOORS["client"] = {*FLOORS, "pager"} - {"model", "mm"}
FLOORS["testing"] = {*FLOORS, "client"} - {"model"}
FLOORS["interpose"] = {*FLOORS, "client"} - {"model", "mm", "testing"}
FLOORS["cli"] = {*FLOORS, "__init__"}

POLICY_MAY_IMPORT = set(
    "__future__ bisect collections collections.abc contextlib dataclasses enum errno functools "
    "heapq itertools math typing".split()
)


def imports(source: str, path: Path, root: Path = SOURCE) -> Iterator[str]:
    """The dotted names of all modules that ``path`` imports, also inside functions."""
    package = ["mkwrite", *path.relative_to(root).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "mkwrite":  # from . import mm: the names are floors
                yield from (f"mkwrite.{alias.name}" for alias in node.names)
            else:
                yield module


def floor(module: str) -> str:
    """``mm`` for mkwrite.mm.fault, ``__init__`` for the public face and the names in it."""
    name = ".".join(module.split(".")[1:2])
    return name if name in FLOORS else "__init__"


def climbs(source: str, path: Path) -> set[str]:
    """What ``path`` imports of floors that are not below its own."""
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return set()
    assert own in FLOORS, f"{own}: say in FLOORS which floors lie below it"
    modules = {name for name in imports(source, path) if name.split(".")[0] == "mkwrite"}
    return {name for name in modules if floor(name) not in {own, *FLOORS[own]}}


def machine(source: str, path: Path) -> set[str]:
    """What ``path``, a file of the policy, imports but may not."""
    return {
        name
        for name in imports(source, path)
        if name not in POLICY_MAY_IMPORT
        and not (name.split(".")[0] == "mkwrite" and floor(name) in ("mm", "extents"))
    }


def named(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_each_floor_imports_only_floors_below(path):
    assert climbs(path.read_text(), path) == set()


@pytest.mark.parametrize("path", POLICY, ids=named)
def test_the_policy_is_free_of_the_machine(path):
    assert machine(path.read_text(), path) == set()


@pytest.mark.parametrize("path", POLICY, ids=named)
def test_no_page_state_is_carried_across_an_await(path):
    state = mutable_state(each.read_text() for each in POLICY)
    assert carried_state(path.read_text(), state) == []


def test_no_floor_lies_below_itself():
    def below(name: str, above: tuple[str, ...] = ()) -> None:
        assert name not in above, " > ".join([*above, name])
        for other in FLOORS.get(name, ()):
            below(other, (*above, name))

    for name in FLOORS:
        below(name)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import time", {"time"}),
        ("import os.path", {"os.path"}),
        ("from asyncio import sleep", {"asyncio"}),
        ("def f():\n    import threading", {"threading"}),
        ("from ..kernel import pagemap", {"mkwrite.kernel"}),
        ("from .. import kernel", {"mkwrite.kernel"}),
        ("from mkwrite import Extents", {"mkwrite.Extents"}),
        ("from ..extents import Extents", set()),
        ("from .. import extents", set()),
        ("from . import fault", set()),
        ("from .fault import do_wp_page", set()),
        ("from collections.abc import Sequence\nimport math", set()),
    ],
)
def test_the_check_sees_the_machine(line, found):
    assert machine(line, SOURCE / "mm" / "x.py") == found


@pytest.mark.parametrize(
    ("file", "line", "found"),
    [
        ("extents.py", "from .kernel.pagemap import Pagemap", {"mkwrite.kernel.pagemap"}),
        ("kernel/x.py", "from ..extents import Extents", {"mkwrite.extents"}),
        ("tracking/x.py", "from ..kernel import pagemap\nfrom . import y", set()),
        ("model/x.py", "from ..mm.fault import y", set()),
        ("mm/x.py", "from ..model import y", {"mkwrite.model"}),
        ("cli/x.py", "from .. import track\nfrom ..model import y", set()),
        ("stores/x.py", "from .. import track", {"mkwrite.track"}),
        ("__init__.py", "from .cli import main", set()),
    ],
)
def test_the_check_sees_who_climbs(file, line, found):
    assert climbs(line, SOURCE / file) == found
