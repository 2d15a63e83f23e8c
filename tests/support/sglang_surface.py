"""What SGLang reads off an attention backend, read from SGLang's sources without importing them.

A backend that lacks one of these attributes works until a model, a scheduler or a graph runner asks
for it. `python -m support.sglang_surface VERSION=FOLDER...` records the surface of
unpacked wheels, so that versions that are not installed are checked too.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Calls that return a backend, and the ends of names that hold one.
GETTERS = frozenset({"get_attn_backend", "_get_attn_backend", "_select_backend"})
NAME_ENDS = ("attn_backend", "prefill_backend", "decode_backend")
# Parts of SGLang that never meet `pod`. Add only what a start-up check refuses, or what asks for
# the class of another backend first.
OTHER_WORLDS = {
    "multimodal_gen/": "diffusion models, backends of their own",
    "test/": "SGLang's tests",
    "srt/hardware_backend/": "other devices",
    "srt/speculative/": "speculative decoding",
    "srt/layers/attention/": "other backends' helpers; GENERIC says what is not",
    "srt/layers/cp/": "context parallelism",
    "srt/models/deepseek": "MLA and its sparse kind",
    "srt/models/dots3": "MLA",
    "srt/models/longcat": "MLA",
    "srt/models/kimi_linear": "linear attention, a pool of its own",
    "srt/models/falcon_h1": "linear attention, a pool of its own",
    "srt/models/granitemoehybrid": "linear attention, a pool of its own",
    "srt/models/jet_nemotron": "linear attention, a pool of its own",
    "srt/models/lfm2": "linear attention, a pool of its own",
    "srt/models/nemotron_h": "linear attention, a pool of its own",
    "srt/models/qwen3_5": "linear attention, a pool of its own",
    "srt/models/inkling": "linear attention, a pool of its own",
    "srt/models/hunyuan_v3": "asks for HPCOpsAttnBackend first",
    "srt/models/muse_spark": "asks for TRTLLMHAAttnBackend first",
    "srt/models/minimax_m3": "sparse attention, a pool of its own",
}
# What stands between a backend and the rest of SGLang, whatever the backend.
GENERIC = ("base_attn_backend.py", "hybrid_attn_backend.py", "graph_utils.py", "utils.py")
ATTENTION = "srt/layers/attention/"
BASE = f"{ATTENTION}base_attn_backend.py"
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Surface(NamedTuple):
    """Attributes that one SGLang version reads off attention backends.

    reads  name: places, `file:line`, relative to the package
    base   names that SGLang's own base class brings
    """

    reads: dict[str, list[str]]
    base: list[str]


def read_surface(package: Path) -> Surface:
    """The surface of the SGLang whose package folder is `package`; nothing is imported.

    Follows names that end in `attn_backend`, getters and plain assignments of them inside a
    function; `self.x` inside a backend's own class is its own business and not counted.
    """
    reads: dict[str, list[str]] = {}
    for file in sorted(package.rglob("*.py")):
        where = file.relative_to(package).as_posix()
        text = file.read_text(encoding="utf-8", errors="replace")
        if _of_another_world(where) or not any(end in text for end in NAME_ENDS):
            continue
        for name, line in _reads(ast.parse(text)):
            place = f"{where}:{line}"
            if place not in reads.setdefault(name, []):
                reads[name].append(place)
    base = ast.parse((package / BASE).read_text(encoding="utf-8"))
    return Surface(dict(sorted(reads.items())), sorted(_members(base, "AttentionBackend")))


def _of_another_world(where: str) -> bool:
    generic = where.removeprefix(ATTENTION) in GENERIC
    return where.startswith(tuple(OTHER_WORLDS)) and not generic


def _reads(tree: ast.AST) -> Iterator[tuple[str, int]]:
    yield from _reads_in(tree, frozenset())


def _reads_in(scope: ast.AST, outer: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Reads of one function or module, then of the functions inside it."""
    nodes, inner = _own(scope)
    aliases = outer | _aliases(nodes, outer)
    for node in nodes:
        name = _read_name(node, aliases)
        if name is not None and not name.startswith("__"):
            yield name, getattr(node, "lineno", 0)
    for function in inner:
        yield from _reads_in(function, aliases)


def _own(scope: ast.AST) -> tuple[list[ast.AST], list[ast.AST]]:
    """(nodes of a scope itself, the functions inside it)."""
    nodes: list[ast.AST] = []
    inner: list[ast.AST] = []
    queue = list(ast.iter_child_nodes(scope))
    while queue:
        node = queue.pop(0)
        if isinstance(node, Function):
            inner.append(node)
        else:
            nodes.append(node)
            queue.extend(ast.iter_child_nodes(node))
    return nodes, inner


def _aliases(nodes: list[ast.AST], known: frozenset[str]) -> frozenset[str]:
    """Names that a scope gives to a backend: `backend = get_attn_backend()`."""
    found = set(known)
    for node in nodes:
        if isinstance(node, ast.Assign | ast.NamedExpr | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _is_backend(node.value, frozenset(found)):
                found.update(t.id for t in targets if isinstance(t, ast.Name))
    return frozenset(found)


def _is_backend(node: ast.AST, aliases: frozenset[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in aliases or name.endswith(NAME_ENDS)
        case ast.Attribute(attr=name):
            return name.endswith(NAME_ENDS)
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
            return name.endswith(NAME_ENDS)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name in GETTERS
        case ast.IfExp(body=body, orelse=other):
            return _is_backend(body, aliases) or _is_backend(other, aliases)
        case ast.BoolOp(values=values):
            return any(_is_backend(value, aliases) for value in values)
    return False


def _read_name(node: ast.AST, aliases: frozenset[str]) -> str | None:
    """Name of the attribute that `node` reads off a backend."""
    match node:
        case ast.Attribute(value=value, attr=name, ctx=ast.Load()):
            return name if _is_backend(value, aliases) else None
        case ast.Call(
            func=ast.Name(id="getattr" | "hasattr"), args=[value, ast.Constant(value=str(name)), *_]
        ):
            return name if _is_backend(value, aliases) else None
    return None


def _members(tree: ast.Module, name: str) -> set[str]:
    """What a class body defines, and what its methods set on self."""
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    members: set[str] = set()
    for node in ast.walk(found):
        match node:
            case ast.Attribute(value=ast.Name(id="self"), attr=attr, ctx=ast.Store()):
                members.add(attr)
    for node in found.body:
        match node:
            case ast.FunctionDef(name=attr):
                members.add(attr)
            case ast.Assign(targets=[ast.Name(id=attr)]) | ast.AnnAssign(target=ast.Name(id=attr)):
                members.add(attr)
    return members


def main(arguments: list[str]) -> None:
    """Print the surfaces of VERSION=FOLDER arguments as JSON, one place of each read."""
    surfaces: dict[str, Any] = {}
    for argument in arguments:
        version, folder = argument.split("=", 1)
        surface = read_surface(Path(folder))
        first = {name: places[0] for name, places in surface.reads.items()}
        surfaces[version] = {"reads": first, "base": surface.base}
    print(json.dumps(surfaces, indent=1, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
