"""The check for page state carried across an await, on snippets that do and that do not."""

import textwrap

import pytest
from stale import carried_state, mutable_state

CLASSES = """
class Tag(enum.Flag):
    DIRTY = 1

@dataclass(frozen=True)
class Run:
    first: int

@dataclass
class Page:
    index: int
    flags: Tag
    run: Run
    note: "int | None" = None
    owner: Mapping | None = None
    tags: dict[int, Tag] = field(default_factory=dict)

    @property
    def dirty(self) -> bool:
        return bool(self.flags & Tag.DIRTY)

    def set_dirty(self):
        self.flags |= Tag.DIRTY
        self.owner = None

class Mapping:
    def __init__(self):
        self.nr_dirty: int = 0
        self.size: int = 0
        self.host: object = None

    def truncate(self, size, page):
        self.nr_dirty -= 1
        page.run, page.note = Run(1), None
"""
STATE = {"flags", "run", "note", "dirty", "nr_dirty"}


def test_state_is_what_is_a_value_and_assigned_to():
    assert mutable_state([CLASSES]) == STATE
    assert mutable_state([]) == set()


BAD = {
    "plain": "flags = page.flags\nawait wait()\nuse(flags)",
    "two reads": "n = page.index + m.nr_dirty\nawait wait()\nreturn n",
    "copy": "a = page.flags\nb = a\nawait wait()\nuse(b)",
    "through a call": "n = len(str(page.flags))\nawait wait()\nuse(n)",
    "property": "was = page.dirty\nawait wait()\nif was:\n    pass",
    "walrus": "if (f := page.flags):\n    await wait()\n    use(f)",
    "tuple": "a, b = page.flags, 1\nawait wait()\nuse(b)",
    "one branch": "f = page.flags\nif x:\n    await wait()\nuse(f)",
    "loop": "f = page.flags\nwhile x:\n    use(f)\n    await wait()",
    "loop target": "for n in [m.nr_dirty]:\n    await wait()\n    use(n)",
    "continue": "f = page.flags\nfor p in run:\n    use(f)\n    if p:\n        await wait()\n"
    "        continue",
    "async for": "f = page.flags\nasync for p in run:\n    use(f)",
    "async with": "f = page.flags\nasync with lock(page):\n    use(f)",
    "async with's end": "async with lock(page):\n    f = page.flags\nuse(f)",
    "except": "f = page.flags\ntry:\n    await wait()\nexcept OSError:\n    use(f)",
    "finally": "f = page.flags\ntry:\n    await wait()\nfinally:\n    use(f)",
    "same expression": "use(page.flags, await wait())",
    "sum": "m.nr_dirty = m.nr_dirty + await wait()",
    "augmented": "m.nr_dirty += await wait()",
    "compared with another": "f = page.flags\nawait wait()\nif f == m.nr_dirty:\n    pass",
    "comprehension": "fs = [p.flags for p in run]\nawait wait()\nuse(fs)",
    "any": "hit = any(p.dirty for p in run)\nawait wait()\nuse(hit)",
    "match": "f = page.flags\nmatch x:\n    case 1:\n        await wait()\nuse(f)",
    "in an argument": "f = page.flags\nawait wait()\nawait wait(f)",
}
GOOD = {
    "used before": "f = page.flags\nuse(f)\nawait wait()",
    "as an argument": "f = page.flags\nawait wait(f)",
    "read anew": "f = page.flags\nawait wait()\nf = page.flags\nuse(f)",
    "the result of an await": "f = await wait(page.flags)\nawait wait()\nuse(f)",
    "constant": "i = page.index\nawait wait()\nuse(i)",
    "reference": "p = m.host\nawait wait()\nuse(p.flags)",
    "the branch returns": "f = page.flags\nif x:\n    await wait()\n    return\nuse(f)",
    "looking again": "f = page.flags\nawait wait()\nif page.flags != f:\n    pass",
    "selected by it": "ps = [p for p in run if p.dirty]\nawait wait()\nuse(ps)",
    "chosen by it": "x = a if page.dirty else b\nawait wait()\nuse(x)",
    "loop rebinds": "for p in run:\n    f = p.flags\n    use(f)\n    await wait()",
    "no await between": "await wait()\nf = page.flags\nuse(f)",
    "inner function": "f = page.flags\nawait wait()\ndef g():\n    return f",
    "augmented after": "n = await wait()\nm.nr_dirty += n",
    "raise": "f = page.flags\ntry:\n    await wait()\nexcept OSError:\n    raise\nelse:\n"
    "    f = 0\nuse(f)",
}


def found(body):
    source = "async def f(page, m, run, x):\n" + textwrap.indent(body, "    ")
    return carried_state(source, STATE)


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_found(body):
    assert found(body)


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_let_be(body):
    assert found(body) == []


def test_tells_where():
    assert found(BAD["plain"]) == [(4, "f", "flags")]


def test_synchronous_functions_are_not_looked_at():
    assert carried_state("def f(page):\n    g = page.flags\n    return g", STATE) == []
