"""What is mutable state, told from the sources: the names that carried_state() looks for.

* An attribute of a class that is not frozen, of an immutable value type - by its annotation,
  or by the constant or parameter that ``__init__`` gives it - that some code assigns to
  outside of a constructor: a copy of it goes stale, as a reference does not.
* ``name[]``: the elements (and the membership) of an attribute that is a list, dict, set or
  the like of such values, or an object whose ``__getitem__`` reads state.
* A method or property that returns one such value and reads state but changes none. What a
  change returns is a fact about the change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

_SCALARS = {"int", "bool", "float", "str", "bytes", "complex", "None"}
_VALUES = _SCALARS | {"frozenset", "tuple"}
_ENUMS = {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"}
_CONTAINERS = set(
    "list dict set deque bytearray defaultdict Counter MutableSequence MutableMapping "
    "MutableSet".split()
)
_BUILDERS = {"__init__", "__post_init__", "__new__"}
_CHANGES = set(
    "add append appendleft clear discard extend insert pop popitem popleft remove setdefault "
    "update".split()
)


def elements_of(container: ast.expr) -> str:
    """``tags[]`` for ``mapping.tags``."""
    return f"{container.attr}[]" if isinstance(container, ast.Attribute) else ""


def mutable_state(sources: Iterable[str]) -> set[str]:
    """The names of all mutable state in ``sources``."""
    trees = [ast.parse(source) for source in sources]
    classes = [c for tree in trees for c in ast.walk(tree) if isinstance(c, ast.ClassDef)]
    enums = {cls.name for cls in classes if {_last_name(base) for base in cls.bases} & _ENUMS}
    frozen = {cls.name for cls in classes if _is_frozen(cls)} | enums
    live = [cls for cls in classes if not _is_frozen(cls) and cls.name not in enums]
    changers = _changers(trees)
    assigned = {name for tree in trees for name in _assigned(tree)}
    state: set[str] = set()
    for name, type_ in (pair for cls in live for pair in _attributes(cls)):
        if _is_value(type_, _VALUES | frozen) and name in assigned:
            state.add(name)
        elif _last_name(type_) in _CONTAINERS and _holds_values(type_, _VALUES | frozen):
            state.add(f"{name}[]")
    before = -1
    while before != len(state):  # readers of readers
        before = len(state)
        readers = [_readers(cls, state, _SCALARS | enums) - changers for cls in live]
        state = state.union(*readers)
        indexed = {
            cls.name for cls, found in zip(live, readers, strict=True) if "__getitem__" in found
        }
        pairs = (pair for cls in live for pair in _attributes(cls))
        state |= {f"{name}[]" for name, type_ in pairs if _last_name(type_) in indexed}
    return state


# --- types ------------------------------------------------------------------------------------


def _last_name(node: ast.AST | None) -> str:
    """``Flag`` for Flag, enum.Flag, Flag[...] and Flag(...)."""
    while isinstance(node, ast.Subscript | ast.Call):
        node = node.value if isinstance(node, ast.Subscript) else node.func
    return node.attr if isinstance(node, ast.Attribute) else str(getattr(node, "id", ""))


def _is_value(type_: ast.expr | None, values: set[str]) -> bool:
    if isinstance(type_, ast.Constant):
        if isinstance(type_.value, str):
            return _is_value(ast.parse(type_.value, mode="eval").body, values)
        return type_.value is None
    if isinstance(type_, ast.BinOp):  # int | None
        return _is_value(type_.left, values) and _is_value(type_.right, values)
    return _last_name(type_) in values


def _holds_values(type_: ast.expr, values: set[str]) -> bool:
    if not isinstance(type_, ast.Subscript):
        return _last_name(type_) == "bytearray"
    last = type_.slice.elts[-1] if isinstance(type_.slice, ast.Tuple) else type_.slice
    return _is_value(last, values)


def _is_frozen(cls: ast.ClassDef) -> bool:
    keywords = [
        keyword
        for decorator in cls.decorator_list
        if isinstance(decorator, ast.Call)
        for keyword in decorator.keywords
    ]
    frozen = any(each.arg == "frozen" and getattr(each.value, "value", 0) for each in keywords)
    return frozen or any(_last_name(base) == "NamedTuple" for base in cls.bases)


# --- attributes -------------------------------------------------------------------------------


def _own(node: ast.AST) -> str:
    """``x`` for self.x."""
    of_self = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self"
    return node.attr if isinstance(node, ast.Attribute) and of_self else ""


def _attributes(cls: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """The attributes of a class and their types, as far as the source tells them."""
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.annotation
        elif isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = {each.arg: each.annotation for each in arguments if each.annotation}
            for inner in ast.walk(node):
                yield from _given(inner, parameters)


def _given(node: ast.AST, parameters: dict[str, ast.expr]) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.AnnAssign) and _own(node.target):
        yield _own(node.target), node.annotation
    elif isinstance(node, ast.Assign) and _own(node.targets[0]):
        name, value = _own(node.targets[0]), node.value
        if isinstance(value, ast.Constant | ast.Tuple):
            kind = type(value.value).__name__ if isinstance(value, ast.Constant) else "tuple"
            yield name, ast.Name(kind)
        elif isinstance(value, ast.Name) and value.id in parameters:
            yield name, parameters[value.id]
        elif isinstance(value, ast.Call):
            yield name, value.func


def _assigned(tree: ast.AST) -> Iterator[str]:
    """Attributes assigned to by any function but one that builds its own object."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    builders = [node for node in functions if node.name in _BUILDERS]
    own = {id(node) for build in builders for node in ast.walk(build) if _own(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            if id(node) not in own:
                yield node.attr


# --- methods ----------------------------------------------------------------------------------


def _readers(cls: ast.ClassDef, state: set[str], scalars: set[str]) -> set[str]:
    """Methods and properties that return one value and read state."""
    return {
        node.name
        for node in cls.body
        if isinstance(node, ast.FunctionDef)
        and _is_value(node.returns, scalars)
        and not isinstance(node.returns, ast.Constant)  # None
        and _reads(node) & state
    }


def _changers(trees: list[ast.Module]) -> set[str]:
    """All functions that change something, themselves or by what they call."""
    functions = [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    changers = {function.name for function in functions if _stores(function)}
    before = -1
    while before != len(changers):
        before = len(changers)
        changers |= {each.name for each in functions if _calls(each) & (changers | _CHANGES)}
    return changers - _BUILDERS


def _reads(function: ast.FunctionDef) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            found.add(elements_of(node.value))
        elif isinstance(node, ast.Compare):
            found |= {elements_of(each) for each in node.comparators}
    return found


def _stores(function: ast.AST) -> bool:
    return any(
        isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load)
        for node in ast.walk(function)
    )


def _calls(function: ast.AST) -> set[str]:
    return {_last_name(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
