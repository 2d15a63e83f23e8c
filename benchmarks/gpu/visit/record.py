"""Files what a visit to a GPU left: results/gpu_*.json, headlines and the tables of docs/gpu.md.

Run it in a checkout, on any machine, with the folder that the other parts wrote to.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _results
from benchmarks.gpu.shipped.tables import FOLDER as TABLES
from benchmarks.gpu.speed.summary import summarize
from benchmarks.gpu.visit import tables
from benchmarks.gpu.visit.features_record import features
from benchmarks.gpu.visit.features_record import merged as features_merged
from benchmarks.gpu.visit.grammar_record import grammar
from benchmarks.gpu.visit.headlines import headlines
from benchmarks.gpu.visit.kept import kept
from benchmarks.gpu.visit.problems import RecordError
from benchmarks.gpu.visit.serving_record import merged as serving_merged
from benchmarks.gpu.visit.serving_table import serving
from benchmarks.gpu.visit.spec_headlines import merged as spec_merged
from benchmarks.gpu.visit.tiles_record import tiles
from benchmarks.gpu.walls.records import merged as walls_merged
from pod_integrate.live import shipped
from pod_integrate.terms.table import ConfigTable

_ROOT = Path(__file__).resolve().parents[3]
_RESULTS = _ROOT / "benchmarks" / "results"
_DOCS = _ROOT / "docs"
_DOC = _DOCS / "gpu.md"
_PARTS = (
    "first_contact",
    "checks",
    "conformance",
    "numbers",
    "tune",
    "sweep",
    "hf",
    "sglang",
    "ncu",
    "grid",
    "grammar",
    "versus",
    "host",
    "fp8",
    "spec",
    "traces",
    "serving",
    "live_llama8b",
    "live_smollm2",
    "real",
    "walls",
    "tiles",
    "small",
    "power",
    "rules",
    "tp",
    "features",
    "tables",
)

# Parts whose visits add to one another: (new document, recorded one) -> what is filed.
_MERGES = {
    "serving": serving_merged,
    "spec": spec_merged,
    "walls": walls_merged,
    "features": features_merged,
}


def merged(rerun: dict[str, Any], recorded: dict[str, Any], gpu: str) -> dict[str, Any]:
    """Recorded numbers with the cases of `rerun` replaced; each of those names its own run.

    Raises RecordError when the two come from different GPUs.
    """
    if recorded["gpu"] != gpu:
        raise RecordError(
            f"single cases were measured again on {gpu}, the recorded ones on {recorded['gpu']}; "
            "measure all of them there: numbers without --cases"
        )
    told = ("utc", "kernel_build", "host_build", "clocks")
    machine = {name: rerun["machine"].get(name) for name in told}
    again = {
        name: {**rerun["cases"][name], "machine": machine}
        for name in rerun["rerun"]
        if name in rerun["cases"]
    }
    left = {name: value for name, value in recorded.items() if name not in ("gpu", "date")}
    return {**left, "cases": {**recorded["cases"], **again}}


def main(arguments: list[str] | None = None) -> None:
    """File the documents of a folder."""
    parser = argparse.ArgumentParser(prog="record", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="what --out of the other parts named")
    options = parser.parse_args(arguments)
    paths = {name: options.folder / f"{name}.json" for name in _PARTS}
    try:
        documents = {name: read(path) for name, path in paths.items() if path.exists()}
        _file(documents, options.folder)
    except RecordError as error:
        parser.error(str(error))


def read(path: Path) -> dict[str, Any]:
    """A part's document. Raises RecordError for what is none."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise RecordError(f"{path} is no document of a part")
    return found


def _file(documents: dict[str, dict[str, Any]], folder: Path) -> None:
    """Results, tables, headlines, rows; headlines are worked out before anything is written."""
    reports = [d["machine"] for d in documents.values() if "utc" in d.get("machine", {})]
    if not reports:
        raise RecordError(
            f"{folder} holds no result; it should be what --out of the other parts named, with "
            f"files such as {_PARTS[0]}.json"
        )
    if "device" not in reports[0]:
        raise RecordError(f"{folder} was measured without a GPU: there is nothing to file")
    where, when = reports[0]["device"]["name"], reports[0]["utc"][:10]
    if "numbers" in documents:
        if "rerun" in documents["numbers"]:
            recorded = json.loads(path_of("numbers", where).read_text())
            documents["numbers"] = merged(documents["numbers"], recorded, where)
        documents["numbers"]["summary"] = summarize(documents["numbers"]["cases"])
    beside_recorded(documents, where)
    told = headlines(documents, prefix_of(where))
    for name, document in documents.items():
        path = path_of(name, where, document.get("label", ""))
        filed = {"gpu": where, "date": when, **kept(name, document)}
        path.write_text(json.dumps(filed, indent=1) + "\n")
    if "tables" in documents:
        ship(folder / TABLES, shipped.FOLDER)
    for name, value, unit, command in told:
        _results.record_headline(name, value, unit, command, where=where, when=when)
        print(f"{name:48s} {value:.4g} {unit}")
    draw(documents, prefix_of(where))


def prefix_of(gpu: str) -> str:
    """Of the names of a GPU's numbers of cases: `gpu` on an H100, else its own.

    gpu  its name as the driver tells it: `NVIDIA H200` has `h200`
    """
    return "gpu" if "H100" in gpu else gpu.split()[-1].lower()


def path_of(name: str, gpu: str, label: str = "") -> Path:
    """Where a part's results go: of cases by GPU, of trees in turns by `label`."""
    of = prefix_of(gpu)
    own = "" if of == "gpu" else of
    by_gpu = dict.fromkeys(("numbers", "grid", "grammar", "tiles", "small", "power"), own)
    told = {**by_gpu, "versus": label}.get(name)
    return _RESULTS / (f"gpu_{name}_{told}.json" if told else f"gpu_{name}.json")


def beside_recorded(documents: dict[str, dict[str, Any]], gpu: str) -> None:
    """Add to the documents what is recorded of the same GPU and was not measured again."""
    for name, merge in _MERGES.items():
        path = _RESULTS / f"gpu_{name}.json"
        if name in documents and path.exists():
            recorded = json.loads(path.read_text())
            if recorded["gpu"] == gpu:
                documents[name] = merge(documents[name], recorded)
            else:
                print(f"{path.name} of {recorded['gpu']} is replaced by that of {gpu}")


def ship(made: Path, package: Path) -> None:
    """The tables of a folder become the package's of their device, in the place of all it had."""
    found = [ConfigTable.from_json(path.read_bytes()) for path in sorted(made.glob("*.json"))]
    for device in {table.device for table in found}:
        for old in shipped.files(device, package):
            old.unlink()
    for table in found:
        path = shipped.file_of(table.geometry, table.device, package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(table.to_json(checksum=True))


def draw(documents: dict[str, dict[str, Any]], prefix: str) -> None:
    """Replace the rows of docs/gpu.md of every document that is there; `prefix` as prefix_of."""
    text = _DOC.read_text()
    picture = "gpu_spread.svg" if prefix == "gpu" else f"gpu_spread_{prefix}.svg"
    drawn: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
        prefix: ("numbers", tables.cases),
        f"{prefix}-grid": ("grid", functools.partial(tables.grid, picture=picture)),
        f"{prefix}-grammar": ("grammar", grammar),
        "gpu-hf": ("hf", tables.transformers),
        "gpu-sglang": ("sglang", tables.sglang),
        "gpu-serving": ("serving", serving),
        "gpu-features": ("features", features),
    }
    if prefix == "h200":
        # What the default does is decided by this GPU's times alone.
        drawn["h200-tiles"] = "tiles", tiles
    for mark, (name, table) in drawn.items():
        if name in documents:
            text = tables.replaced(text, mark, table(documents[name]))
    if "grid" in documents:
        (_DOCS / picture).write_text(tables.spread_picture(documents["grid"]))
    _DOC.write_text(text)
