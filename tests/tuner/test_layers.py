"""The tuner's modules import in one direction, late imports included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import tuner

ROOT = Path(tuner.__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in Path(tuner.__file__).parent.rglob("*.py")
}


def imported(name: str) -> set[str]:
    """Modules of the tuner that this one imports anywhere, types only included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inner & set(MODULES) or {node.module}
    return (found & set(MODULES)) - {name, "tuner"}


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: imported(name) for name in MODULES}
    assert sum(map(len, graph.values())) > 100
    # Raises CycleError, which names the circle.
    assert set(TopologicalSorter(graph).static_order()) == set(MODULES)


def test_the_core_knows_neither_who_asks_nor_who_looks() -> None:
    below = {"tuner.core"}
    while more := set().union(*map(imported, below)) - below:
        below |= more
    rooms = {name.split(".")[1] for name in below if name.count(".") > 1}
    assert rooms == {"search", "store", "tables", "traffic"}
