"""The check for page state carried across an await, on snippets that do and that do not."""

import textwrap

import pytest

from .mutable import mutable_state
from .stale import carried_state

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

    @property
    def dirty(self) -> bool:
        return bool(self.flags & Tag.DIRTY)

    def set_dirty(self):
        self.flags |= Tag.DIRTY
        self.owner = None

class Tags:
    def __init__(self, states: MutableSequence[int]) -> None:
        self._states = states

    def __getitem__(self, index: int) -> Tag:
        return Tag(self._states[index])

    def change(self, index: int) -> Tag:
        self._states[index] = 0
        return Tag(1)

    def tagged(self) -> tuple[int, ...]:
        return tuple(i for i in range(9) if self._states[i])

class Mapping:
    def __init__(self, nr_pages: int):
        self.nr_dirty: int = 0
        self.nr_pages = nr_pages
        self.freezing = False
        self.size: int = 0
        self.host: object = None
        self.tags = Tags([0])
        self.writable: set[int] = set()
        self.locks: dict[int, Lock] = {}

    def test(self, index: int, tag: Tag) -> bool:
        return bool(self.tags[index] & tag)

    def set_page_dirty(self, index: int) -> bool:
        return bool(self.tags.change(index) & Tag.DIRTY and not self.test(index))

    def is_writable(self, index: int) -> bool:
        return index in self.writable

    def truncate(self, size, page):
        self.nr_dirty -= 1
        self.nr_pages, self.freezing = size, True
        page.run, page.note = Run(1), None
"""
STATE = {
    *("flags", "run", "note", "dirty", "nr_dirty", "nr_pages", "freezing"),
    *("tags[]", "_states[]", "writable[]", "test", "is_writable", "__getitem__"),
}


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
    "element": "t = m.tags[3]\nawait wait()\nuse(t)",
    "membership": "w = 3 in m.writable\nawait wait()\nuse(w)",
    "reading method": "d = m.test(3, DIRTY)\nawait wait()\nif d:\n    pass",
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
    "looking again at an element": "t = m.tags[3]\nawait wait()\nwhile m.tags[3] == t:\n    pass",
    "the container": "ts = m.tags\nawait wait()\nuse(ts[3])",
    "what a change returns": "c = m.tags.change(3)\nawait wait()\nuse(c)",
    "the pages with a tag": "ps = m.tags.tagged()\nawait wait()\nuse(ps)",
    "a run bounded by it": "for i in range(m.nr_pages):\n    await wait()\n    use(i)",
    "what a change by others returns": "c = m.set_page_dirty(3)\nawait wait()\nuse(c)",
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
