"""Finds page state that is carried across an await: read before, used after, stale meanwhile.

The rule. *Mutable state* is an attribute that a class of the checked files declares with an
immutable value type (int, bool, an enum, a tuple, ...: a copy of it goes stale, unlike a
reference) and that some code of theirs assigns to outside of ``__init__``; a property that
reads one is state too. In each ``async def`` a local is *state* if its value holds an
attribute read of that kind or another such local. It must not be read after an await unless
it is assigned anew - except to compare it with a fresh read of the same attribute, for that
is looking again.

What selects does not count, what is selected does: ``[p for p in run if p.dirty]`` holds
pages, not state. The result of ``await f(page.flags)`` is as new as the await.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_VALUES = {"int", "bool", "float", "str", "bytes", "complex", "frozenset", "tuple", "None"}
_ENUMS = {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"}
_BUILDERS = {"__init__", "__post_init__", "__new__"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Stale(NamedTuple):
    """A local that was read although an await lies between it and the state it holds."""

    line: int
    function: str
    name: str


# --- which attributes are mutable state -------------------------------------------------------


def _last_name(node: ast.AST) -> str:
    """``Flag`` for Flag, enum.Flag and Flag[...]."""
    while isinstance(node, ast.Subscript | ast.Call):
        node = node.value if isinstance(node, ast.Subscript) else node.func
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_value(annotation: ast.expr | None, values: set[str]) -> bool:
    if isinstance(annotation, ast.Constant):
        if isinstance(annotation.value, str):
            return _is_value(ast.parse(annotation.value, mode="eval").body, values)
        return annotation.value is None
    if isinstance(annotation, ast.BinOp):  # int | None
        return _is_value(annotation.left, values) and _is_value(annotation.right, values)
    return annotation is not None and _last_name(annotation) in values


def _is_frozen(cls: ast.ClassDef) -> bool:
    bases = {_last_name(base) for base in cls.bases}
    frozen = any(
        keyword.arg == "frozen" and getattr(keyword.value, "value", False)
        for decorator in cls.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
    )
    return frozen or bool(bases & (_ENUMS | {"NamedTuple"}))


def _self_attribute(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self":
        return node.attr
    return None


def _declared(cls: ast.ClassDef, values: set[str]) -> Iterator[str]:
    """Attributes with an annotation of a value type, in the class or in a method."""
    for node in ast.walk(cls):
        if isinstance(node, ast.AnnAssign) and _is_value(node.annotation, values):
            name = getattr(node.target, "id", None) or _self_attribute(node.target)
            if name:
                yield name


def _assigned(tree: ast.AST) -> Iterator[str]:
    """Attributes assigned to by any function but one that builds its own object."""
    builders = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in _BUILDERS
    ]
    own = {id(node) for build in builders for node in ast.walk(build) if _self_attribute(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if id(node) not in own:
                yield node.attr


def mutable_state(sources: Iterable[str]) -> set[str]:
    """The names of all attributes of ``sources`` that are mutable state."""
    trees = [ast.parse(source) for source in sources]
    classes = [c for tree in trees for c in ast.walk(tree) if isinstance(c, ast.ClassDef)]
    values = _VALUES | {cls.name for cls in classes if _is_frozen(cls)}
    live = [cls for cls in classes if not _is_frozen(cls)]
    declared = {name for cls in live for name in _declared(cls, values)}
    state = declared & {name for tree in trees for name in _assigned(tree)}
    properties = {
        (function.name, function)
        for cls in live
        for function in cls.body
        if isinstance(function, ast.FunctionDef)
        and any(_last_name(decorator) == "property" for decorator in function.decorator_list)
        and _is_value(function.returns, values)
    }
    before = -1
    while before != len(state):  # properties of properties
        before = len(state)
        state |= {name for name, function in properties if _reads(function) & state}
    return state


def _reads(node: ast.AST) -> set[str]:
    return {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Load)
    }


# --- where state is carried across an await ---------------------------------------------------


class _Held(NamedTuple):
    """What a value holds: the state attributes it was read from, and if an await came since."""

    attributes: frozenset[str] = frozenset()
    stale: bool = False


_NOTHING = _Held()
_Locals = dict[str, _Held]


def _merge(branches: Iterable[_Locals]) -> _Locals:
    """What may hold after any one of ``branches``."""
    merged: _Locals = {}
    for branch in branches:
        for name, held in branch.items():
            known = merged.get(name, _NOTHING)
            merged[name] = _Held(known.attributes | held.attributes, known.stale or held.stale)
    return merged


class _Walk:
    """One async function, walked in the order in which it runs."""

    def __init__(self, function: ast.AsyncFunctionDef, state: set[str]) -> None:
        self.function = function.name
        self.state = state
        self.locals: _Locals = {}
        self.awaits = 0
        self.found: set[Stale] = set()
        self.leaving: list[list[_Locals]] = []  # locals at break and continue, by loop
        self.block(function.body)

    def report(self, node: ast.expr, name: str) -> None:
        self.found.add(Stale(node.lineno, self.function, name))

    def suspend(self) -> None:
        self.awaits += 1
        for name, held in self.locals.items():
            self.locals[name] = held._replace(stale=bool(held.attributes))

    def bind(self, target: ast.AST, held: _Held) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self.locals[node.id] = held
        if not isinstance(target, ast.Name):
            self.value(target)  # the subscripts and objects in it are read

    # Expressions: what does the value hold?

    def value(self, node: ast.AST | None) -> _Held:
        special = getattr(self, f"value_{type(node).__name__}", None)
        if node is None:
            return _NOTHING
        return special(node) if special else self.parts(node, *ast.iter_child_nodes(node))

    def parts(self, node: ast.AST, *parts: ast.AST) -> _Held:
        """All of ``parts`` in turn; what one holds is stale once a later one has awaited."""
        held, at = _NOTHING, self.awaits
        for part in parts:
            more = self.value(part)
            if held.attributes and self.awaits != at and isinstance(node, ast.expr):
                self.report(node, min(held.attributes))
            at = self.awaits
            held = _Held(held.attributes | more.attributes, held.stale or more.stale)
        return held

    def value_Name(self, node: ast.Name) -> _Held:
        if not isinstance(node.ctx, ast.Load):
            return _NOTHING
        held = self.locals.get(node.id, _NOTHING)
        if held.stale:
            self.report(node, node.id)
        return held._replace(stale=False)  # reported once, not for each copy of it

    def value_Attribute(self, node: ast.Attribute) -> _Held:
        held = self.value(node.value)
        if node.attr in self.state and isinstance(node.ctx, ast.Load):
            return _Held(held.attributes | {node.attr})
        return held

    def value_Await(self, node: ast.Await) -> _Held:
        self.value(node.value)
        self.suspend()
        return _NOTHING

    def value_Yield(self, node: ast.Yield) -> _Held:
        self.value(node.value)
        self.suspend()
        return _NOTHING

    def value_NamedExpr(self, node: ast.NamedExpr) -> _Held:
        held = self.value(node.value)
        self.bind(node.target, held)
        return held

    def value_Lambda(self, node: ast.Lambda) -> _Held:
        return _NOTHING  # runs at another time

    def value_IfExp(self, node: ast.IfExp) -> _Held:
        self.value(node.test)
        return self.parts(node, node.body, node.orelse)

    def value_Compare(self, node: ast.Compare) -> _Held:
        operands = [node.left, *node.comparators]
        fresh = {attribute for operand in operands for attribute in _reads(operand)}
        for operand in operands:
            held = self.locals.get(getattr(operand, "id", ""), _NOTHING)
            if held.stale and held.attributes & fresh:  # looking again
                others = [other for other in operands if other is not operand]
                return self.parts(node, *others)
        return self.parts(node, *operands)

    def comprehension(self, node: ast.expr, *elements: ast.expr) -> _Held:
        outer = dict(self.locals)
        for generator in node.generators:  # type: ignore[attr-defined]
            held = self.value(generator.iter)
            if generator.is_async:
                self.suspend()
            self.bind(generator.target, held)
            for condition in generator.ifs:
                self.value(condition)
        held = self.parts(node, *elements)
        inner, self.locals = self.locals, outer
        for name in outer.keys() & inner.keys():  # an await inside made ours stale, too
            self.locals[name] = _merge([{name: outer[name]}, {name: inner[name]}])[name]
        return held

    def value_ListComp(self, node: ast.ListComp) -> _Held:
        return self.comprehension(node, node.elt)

    value_SetComp = value_GeneratorExp = value_ListComp

    def value_DictComp(self, node: ast.DictComp) -> _Held:
        return self.comprehension(node, node.key, node.value)

    # Statements: does the next one run?

    def block(self, statements: list[ast.stmt]) -> bool:
        return all(self.statement(statement) for statement in statements)

    def statement(self, node: ast.stmt) -> bool:
        special = getattr(self, f"run_{type(node).__name__}", None)
        if special:
            return bool(special(node))
        if isinstance(node, _Function | ast.ClassDef):
            return True  # its own function: walked by itself, if async
        self.parts(node, *ast.iter_child_nodes(node))
        return not isinstance(node, ast.Return | ast.Raise)

    def branches(self, *blocks: list[ast.stmt]) -> bool:
        before, after = self.locals, []
        for block in blocks:
            self.locals = dict(before)
            if self.block(block):
                after.append(self.locals)
        self.locals = _merge(after)
        return bool(after)

    def run_Assign(self, node: ast.Assign | ast.AnnAssign) -> bool:
        held = self.value(node.value)
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            self.bind(target, held)
        return True

    run_AnnAssign = run_Assign

    def run_AugAssign(self, node: ast.AugAssign) -> bool:
        target = node.target  # read before the right-hand side, written after it
        held = _NOTHING
        if isinstance(target, ast.Name):
            held = self.value_Name(ast.Name(target.id, ast.Load(), lineno=node.lineno))
        elif isinstance(target, ast.Attribute) and target.attr in self.state:
            held = _Held(frozenset({target.attr}))
        at = self.awaits
        more = self.value(node.value)
        if held.attributes and self.awaits != at:
            self.report(target, min(held.attributes))
        self.bind(target, _Held(held.attributes | more.attributes))
        return True

    def run_If(self, node: ast.If) -> bool:
        self.value(node.test)
        return self.branches(node.body, node.orelse)

    def run_Match(self, node: ast.Match) -> bool:
        self.value(node.subject)
        return self.branches(*(case.body for case in node.cases), [])

    def run_While(self, node: ast.While) -> bool:
        return self.loop(node, lambda: self.value(node.test))

    def run_For(self, node: ast.For | ast.AsyncFor) -> bool:
        held, at = self.value(node.iter), self.awaits

        def head() -> None:
            if isinstance(node, ast.AsyncFor):
                self.suspend()
            stale = bool(held.attributes) and self.awaits != at
            self.bind(node.target, held._replace(stale=stale))

        return self.loop(node, head)

    run_AsyncFor = run_For

    def loop(self, node: ast.For | ast.AsyncFor | ast.While, head: Callable[[], object]) -> bool:
        self.leaving.append([])
        for _ in range(2):  # the second turn sees what the first one left
            head()
            before = dict(self.locals)
            ended = not self.block(node.body)
            self.locals = _merge([before, *([] if ended else [self.locals]), *self.leaving[-1]])
        head()
        self.leaving.pop()
        return self.block(node.orelse)

    def run_Break(self, node: ast.Break | ast.Continue) -> bool:
        self.leaving[-1].append(dict(self.locals))
        return False

    run_Continue = run_Break

    def run_With(self, node: ast.With | ast.AsyncWith) -> bool:
        for item in node.items:
            held = self.value(item.context_expr)
            if isinstance(node, ast.AsyncWith):
                self.suspend()
                held = _NOTHING
            if item.optional_vars:
                self.bind(item.optional_vars, held)
        goes_on = self.block(node.body)
        if isinstance(node, ast.AsyncWith):
            self.suspend()
        return goes_on

    run_AsyncWith = run_With

    def run_Try(self, node: ast.Try) -> bool:
        anywhere, goes_on = [dict(self.locals)], True
        for statement in node.body:  # any of them may raise
            goes_on = goes_on and self.statement(statement)
            anywhere.append(dict(self.locals))
        after = [self.locals] if goes_on and self.block(node.orelse) else []
        raised = _merge(anywhere)
        for handler in node.handlers:
            self.locals = dict(raised)
            if self.block(handler.body):
                after.append(self.locals)
            anywhere.append(dict(self.locals))
        self.locals = _merge(after or anywhere)
        if node.finalbody:
            self.locals = _merge([self.locals, *anywhere])
        return self.block(node.finalbody) and bool(after)

    run_TryStar = run_Try


def carried_state(source: str, state: set[str]) -> list[Stale]:
    """Where ``source`` uses a local that holds one of the attributes ``state`` after an await."""
    functions = (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.AsyncFunctionDef))
    return sorted(found for function in functions for found in _Walk(function, state).found)
