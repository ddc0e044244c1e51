"""Version of the code behind an asset: a hash of whatever can change its numbers.

Followed by itself, so that no list has to be kept by hand: the functions and constants that
an asset's function refers to, and every module of the project that any of them imports.
Comments, docstrings and formatting do not count.
"""

import ast
import hashlib
import importlib.util
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from pathlib import Path

PACKAGE = "sot_pipeline"
# These say what happens and where things lie; they do not decide what is computed
IGNORED = (
    f"{PACKAGE}.defs.cached_asset",
    f"{PACKAGE}.defs.store",
    f"{PACKAGE}.defs.home",
    f"{PACKAGE}.defs.settings",
    f"{PACKAGE}.progress",
    f"{PACKAGE}.errors",
)


def code_version(function: Callable) -> str:
    """16 hex digits that change when the function, or project code behind it, changes."""
    parts: dict[str, str] = {}
    _add_function(function, parts)
    text = "\n".join(f"{name}={parts[name]}" for name in sorted(parts))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _add_function(function: Callable, parts: dict[str, str]) -> None:
    name = f"{function.__module__}.{function.__qualname__}"
    if name in parts or function.__module__.startswith(IGNORED):
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    parts[name] = _normal_form(tree)
    for module in _project_imports(tree):
        _add_module(module, parts)
    for used in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}:
        value = function.__globals__.get(used)  # type: ignore[attr-defined]
        if inspect.isfunction(value) and value.__module__.startswith(PACKAGE):
            _add_function(value, parts)
        elif isinstance(value, str | int | float | tuple):
            parts[f"{name}.{used}"] = repr(value)


def _add_module(name: str, parts: dict[str, str]) -> None:
    if name not in parts and not name.startswith(IGNORED):
        parts[name], imports = _module(name)
        for imported in imports:
            _add_module(imported, parts)


@cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return "", ()
    tree = ast.parse(Path(spec.origin).read_bytes())
    return _normal_form(tree), _project_imports(tree)


def _project_imports(tree: ast.AST) -> tuple[str, ...]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` may name a module too
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return tuple(sorted(n for n in names if n.startswith(f"{PACKAGE}.") and _is_module(n)))


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _normal_form(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef | ast.Module):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
