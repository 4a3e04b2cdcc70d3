"""The arguments of a class that a configuration names by `_target_`, read from its source without importing it.

Settings are checked before any work, and importing torch or Lightning takes seconds. Hints and ranges are evaluated
where they are made of `typing`, `diffprobe.ranges` and constants; any other class becomes an `Unread` type. What has no
Python source (C extensions, classes made by decorators) is imported.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

LIGHT = ("typing", "typing_extensions", "collections.abc", "pathlib", "dataclasses", "diffprobe.ranges")
_BUILTINS = (
    *("int", "float", "str", "bool", "bytes", "complex", "object", "type"),
    *("list", "dict", "tuple", "set", "frozenset", "len", "sorted", "range"),
)
_DEEPEST = 20  # imports that a name is followed through


@dataclass(frozen=True)
class Argument:
    """An argument: its type hint with ranges (`Any` where there is none), and whether it must be given."""

    hint: Any
    required: bool


@dataclass(frozen=True)
class Signature:
    """The arguments of a class or function. `open_ended`: it takes any other keyword too."""

    name: str
    arguments: Mapping[str, Argument]
    open_ended: bool = False


class _Class(type):
    """The type of `Unread`, which has every attribute and can be called."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return unread(name)

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        return cls


class Unread(metaclass=_Class):
    """Stands in hints for a class or module that is not imported. No plain value is one."""

    def __class_getitem__(cls, item: Any) -> Any:
        return cls


def unread(name: str) -> type[Unread]:
    """An `Unread` type of this name."""
    return _Class(name, (Unread,), {})


def signature_of(target: str, *, imported: bool = True) -> Signature | None:
    """The signature of the class or function at a dotted path; None where there is none.

    Args:
        imported: import it where its source cannot be read. Importing runs code.
    """
    found = _find(target)
    read = _read(*found, 0) if found else None
    return read or (_imported(target) if imported else None)


class _Module:
    """The source of a module: each name at its top with the statement that binds it."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self.bound: dict[str, ast.stmt] = {}
        self.stars: list[ast.ImportFrom] = []
        for statement in _statements(ast.parse(path.read_bytes()).body):
            for bound in _names(statement):
                if bound == "*" and isinstance(statement, ast.ImportFrom):
                    self.stars.append(statement)
                self.bound.setdefault(bound, statement)

    def source_of(self, statement: ast.ImportFrom) -> str:
        """The module that a `from` names, relative or not."""
        if not statement.level:
            return statement.module or ""
        parts = self.package.split(".")
        parts = parts[: len(parts) - statement.level + 1]
        return ".".join([*parts, *([statement.module] if statement.module else [])])


@cache
def _module(name: str) -> _Module | None:
    path = _path(name)
    return _Module(name, path) if path else None


def _path(name: str) -> Path | None:
    """The source file of a module. Submodules are looked for in the folder of the package, so nothing is imported."""
    top, *inner = name.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *inner)
        for path in (place / "__init__.py", place.parent / f"{place.name}.py"):
            if path.is_file():
                return path
    return None


def _find(target: str) -> tuple[_Module, ast.stmt] | None:
    """The statement that a dotted path leads to, and its module."""
    place, _, name = target.rpartition(".")
    module = _module(place) if place else None
    return _followed(module, name) if module else None


def _followed(module: _Module, name: str, depth: int = 0) -> tuple[_Module, ast.stmt] | None:
    """Where a name of a module is defined, through imports."""
    statement = module.bound.get(name)
    if statement is None:
        sources = [_module(module.source_of(star)) for star in module.stars]
        places = (_followed(source, name, depth + 1) for source in sources if source and depth < _DEEPEST)
        return next((place for place in places if place), None)
    if not isinstance(statement, ast.ImportFrom):
        return module, statement
    original = next(each.name for each in statement.names if (each.asname or each.name) == name)
    source = _module(module.source_of(statement))
    return _followed(source, original, depth + 1) if source and depth < _DEEPEST else None


def _read(module: _Module, statement: ast.stmt, depth: int) -> Signature | None:
    """The signature of a class or function in a source; None where the source does not tell."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return _of_function(module, statement, statement.name, method=False)
    if not isinstance(statement, ast.ClassDef) or depth > _DEEPEST:
        return None
    for inner in statement.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return _of_function(module, inner, statement.name, method=True)
    named = (base.id for base in statement.bases if isinstance(base, ast.Name))
    bases = [_read(*found, depth + 1) for found in (_followed(module, name) for name in named) if found]
    if any(_last_name(each) == "dataclass" for each in statement.decorator_list):
        inherited = next((base.arguments for base in bases if base), {})
        return Signature(statement.name, {**inherited, **_fields(module, statement)})
    without_arguments = sum(_last_name(base) in ("Protocol", "ABC", "Generic", "object") for base in statement.bases)
    if statement.decorator_list or len(bases) < len(statement.bases) - without_arguments:
        return None
    inherited = next((base for base in bases if base is not None), Signature("", {}))
    return Signature(statement.name, inherited.arguments, inherited.open_ended)


def _of_function(
    module: _Module, function: ast.FunctionDef | ast.AsyncFunctionDef, name: str, *, method: bool
) -> Signature:
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    required = [True] * (len(positional) - len(given.defaults)) + [False] * len(given.defaults)
    every = [*zip(positional, required, strict=True)][1 if method else 0 :]
    every += [(one, default is None) for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    found = {one.arg: Argument(_hint(module, one.annotation), needed) for one, needed in every}
    return Signature(name, found, given.kwarg is not None)


def _fields(module: _Module, statement: ast.ClassDef) -> dict[str, Argument]:
    """The fields of a data class that its `__init__` takes."""
    found = {}
    for item in statement.body:
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if _last_name(item.annotation) == "ClassVar":
            continue
        settings = {each.arg: each.value for each in item.value.keywords} if isinstance(item.value, ast.Call) else {}
        of_field = isinstance(item.value, ast.Call) and _last_name(item.value) == "field"
        if of_field and isinstance(settings.get("init"), ast.Constant):
            continue  # init=False
        required = item.value is None or (of_field and not {"default", "default_factory"} & settings.keys())
        found[item.target.id] = Argument(_hint(module, item.annotation), required)
    return found


def _last_name(expression: ast.expr) -> str:
    """The last name of `a.b.name`, `name(...)` or `name[...]`."""
    while isinstance(expression, ast.Call | ast.Subscript):
        expression = expression.func if isinstance(expression, ast.Call) else expression.value
    if isinstance(expression, ast.Attribute):
        return expression.attr
    return expression.id if isinstance(expression, ast.Name) else ""


def _hint(module: _Module, annotation: ast.expr | None) -> Any:
    """The value of a hint; `Any` where there is none or it cannot be evaluated."""
    if annotation is None:
        return Any
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    try:
        return _value(module, annotation, 0)
    except Exception:  # any expression of any module is evaluated here
        return Any


def _value(module: _Module, expression: ast.expr, depth: int) -> Any:
    """The value of an expression of a module."""
    code = compile(ast.Expression(expression), module.name, "eval")
    return eval(code, {"__builtins__": {}}, _Values(module, depth))


class _Values(dict):
    """The values of the names in an expression of a module."""

    def __init__(self, module: _Module, depth: int) -> None:
        super().__init__()
        self._module, self._depth = module, depth

    def __missing__(self, name: str) -> Any:
        statement = self._module.bound.get(name)
        if isinstance(statement, ast.Import):
            return import_module(name) if name in LIGHT else unread(name)
        if isinstance(statement, ast.ImportFrom) and self._module.source_of(statement) in LIGHT:
            original = next(each.name for each in statement.names if (each.asname or each.name) == name)
            return getattr(import_module(self._module.source_of(statement)), original)
        found = _followed(self._module, name)
        if found is None:
            return getattr(builtins, name) if statement is None and name in _BUILTINS else unread(name)
        module, defined = found
        if not isinstance(defined, ast.Assign | ast.AnnAssign) or defined.value is None or self._depth > _DEEPEST:
            return unread(name)
        value = _value(module, defined.value, self._depth + 1)
        targets = defined.targets if isinstance(defined, ast.Assign) else [defined.target]
        if isinstance(targets[0], ast.Tuple):  # A, B = 1, 2
            return value[[getattr(each, "id", "") for each in targets[0].elts].index(name)]
        return value


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements at the top of a module, also those under `if` and `try`."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            handlers = [each for handler in getattr(statement, "handlers", []) for each in handler.body]
            yield from _statements([*statement.body, *statement.orelse, *handlers])


def _names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (each.asname or each.name.split(".")[0] for each in statement.names)
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        inner = [each for target in targets for each in getattr(target, "elts", [target])]
        yield from (target.id for target in inner if isinstance(target, ast.Name))


def _imported(target: str) -> Signature | None:
    place, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(place), name)
        takes = inspect.signature(found).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        return None
    try:
        hints = get_type_hints(found.__init__ if inspect.isclass(found) else found, include_extras=True)
    except Exception:  # of names that are only there for a type checker
        hints = {}
    named = {each: one for each, one in takes.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    arguments = {each: Argument(hints.get(each, Any), one.default is one.empty) for each, one in named.items()}
    return Signature(name, arguments, any(one.kind is one.VAR_KEYWORD for one in takes.values()))
