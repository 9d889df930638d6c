"""Finds page state that is carried across an await: read before, used after, stale meanwhile.

The rule. In each ``async def`` a local is *state* if its value holds a read of mutable state
(mutable.py says what that is) or another such local. It must not be read after an await
unless it is assigned anew - except to compare it with a fresh read of the same state, for
that is looking again. Nor may state and an await after it meet in one expression.

What selects does not count, what is selected does: ``[p for p in run if p.dirty]`` holds
pages, not state. The result of ``await f(page.flags)`` is as new as the await.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeGuard

from .mutable import elements_of

_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Stale(NamedTuple):
    """A local that was read although an await lies between it and the state it holds."""

    line: int
    function: str
    name: str


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

    def value_Call(self, node: ast.Call) -> _Held:
        held = self.parts(node, *ast.iter_child_nodes(node))
        # A run of pages that state bounds is selected by it.
        return _NOTHING if isinstance(node.func, ast.Name) and node.func.id == "range" else held

    def value_Subscript(self, node: ast.Subscript) -> _Held:
        held = self.parts(node, node.value, node.slice)
        return self.element(held, node.value) if isinstance(node.ctx, ast.Load) else held

    def element(self, held: _Held, container: ast.expr) -> _Held:
        name = elements_of(container)
        return _Held(held.attributes | {name}) if name in self.state else held

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
        again = [each for each in operands if self.is_stale_local(each)]
        fresh = self.parts(node, *(each for each in operands if each not in again))
        for operator, container in zip(node.ops, node.comparators, strict=True):
            if isinstance(operator, ast.In | ast.NotIn):
                fresh = self.element(fresh, container)
        for each in again:
            if not self.locals[each.id].attributes & fresh.attributes:  # else: looks again
                self.report(each, each.id)
        return fresh

    def is_stale_local(self, node: ast.expr) -> TypeGuard[ast.Name]:
        return isinstance(node, ast.Name) and self.locals.get(node.id, _NOTHING).stale

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
