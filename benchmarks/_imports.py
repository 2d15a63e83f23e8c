"""Import circles of a source tree, read from its syntax."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator, Mapping
from pathlib import Path


def circles(modules: Mapping[Path, ast.Module]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others, by size.

    modules  path within the tree -> syntax. An import inside a function counts, because it says
             the same of what knows what; one for the type checker alone does not.
    """
    names = {_name(path): (path, syntax) for path, syntax in modules.items()}
    edges = {
        name: {found for found in _imported(syntax, name, path, names.keys()) if found != name}
        for name, (path, syntax) in names.items()
    }
    reach = {name: _reachable(name, edges) for name in edges}
    groups = {
        tuple(sorted({name, *(other for other in reach[name] if name in reach[other])}))
        for name in edges
        if name in reach[name]
    }
    return sorted(map(list, groups), key=lambda group: (-len(group), group))


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _reachable(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [*edges[start]]
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead += edges[name]
    return seen


def _imported(syntax: ast.Module, name: str, path: Path, known: Container[str]) -> Iterator[str]:
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in _run(syntax):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                if whole in known:
                    yield whole
                elif base in known:
                    yield base


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _run(child)
