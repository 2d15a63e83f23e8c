"""What stands in the repository: its files, the modules among them and the names these define."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("benchmarks", "deployments", "docs", "kernels", "pod_integrate", "tests", "tuner")


@cache
def files() -> frozenset[str]:
    """Paths of all files, relative to the repository."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    found = (path for path in (*inside, *ROOT.iterdir()) if path.is_file())
    return frozenset(str(p.relative_to(ROOT)) for p in found if "__pycache__" not in p.parts)


@cache
def ends_of_paths() -> frozenset[str]:
    """Every path, every folder, and whatever follows a slash in one of them."""
    parts = [path.split("/") for path in files()]
    whole = {tuple(p[:n]) for p in parts for n in range(1, len(p) + 1)}
    return frozenset("/".join(p[n:]) for p in whole for n in range(len(p)))


def defined(path: str) -> frozenset[str]:
    """Names that a Python file defines: `name`, `Class.name`, and functions inside of functions."""
    return _names(path, (ROOT / path).stat().st_mtime_ns)


@cache
def _names(path: str, _version: int) -> frozenset[str]:
    found: set[str] = set()
    _collect(ast.parse((ROOT / path).read_text()).body, "", found)
    return frozenset(found)


def _collect(body: list[ast.stmt], prefix: str, found: set[str]) -> None:
    for node in body:
        for name in _defines(node):
            found.add(prefix + name)
        if isinstance(node, ast.ClassDef):
            _collect(node.body, f"{prefix}{node.name}.", found)
        elif isinstance(node, ast.If | ast.Try):
            _collect([*node.body, *node.orelse], prefix, found)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions = ast.FunctionDef | ast.AsyncFunctionDef
            _collect([inner for inner in node.body if isinstance(inner, functions)], "", found)


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return [
        name.id
        for target in targets
        if target is not None
        for name in ast.walk(target)
        if isinstance(name, ast.Name)
    ]


def resolves(dotted: str) -> bool:
    """Whether `package.module` or `package.module.name` exists, without importing it."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        stem, rest = "/".join(parts[:end]), ".".join(parts[end:])
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            if path in files() and (not rest or rest in defined(path)):
                return True
        if not rest and stem in ends_of_paths():
            return True
    return False
