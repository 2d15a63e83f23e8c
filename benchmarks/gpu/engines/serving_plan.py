"""What the serving part measures, in which order."""

from __future__ import annotations

import argparse
import itertools
from typing import NamedTuple

from benchmarks.gpu.engines.places import PLACES
from benchmarks.gpu.engines.serving_loads import LOADS, SHAPES
from pod_integrate.terms.keys import SGLANG_KV_DTYPES, KvDtype


class Served(NamedTuple):
    """What an engine serves: a model's name, and SGLang's name of its cache's dtype.

    kv  "auto": the dtype of the model
    """

    model: str
    kv: str

    @property
    def name(self) -> str:
        """As printed and filed."""
        return self.model if self.kv == "auto" else f"{self.model} {self.kv}"

    def kv_dtype(self, device: str) -> KvDtype:
        """Of the cache, by this project's names."""
        return PLACES[device].dtype if self.kv == "auto" else SGLANG_KV_DTYPES[self.kv]


class Setting(NamedTuple):
    """How one stretch is served."""

    engine: str
    mixed: bool
    chunk: int

    @property
    def name(self) -> str:
        """As printed and filed."""
        return f"{self.engine}{', mixed' if self.mixed else ''}, {self.chunk}"


class Plan(NamedTuple):
    """What is served under which loads, and the settings of each."""

    pairs: list[tuple[Served, str]]
    settings: list[Setting]

    @property
    def served(self) -> list[Served]:
        """Each once."""
        return list(dict.fromkeys(served for served, _ in self.pairs))

    def loads(self, served: Served) -> list[str]:
        """Of one of them."""
        return [load for one, load in self.pairs if one == served]

    @property
    def engines(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(one.engine for one in self.settings))

    def chunks(self, engine: str) -> list[int]:
        """That an engine is measured at."""
        return sorted({one.chunk for one in self.settings if one.engine == engine})


def settings(options: argparse.Namespace) -> list[Setting]:
    """By worth: chunk by chunk, so that what is to be compared is measured close together.

    Stock engines run unmixed and mixed, `pod` mixed.
    """
    found = []
    for unmixed, mixed in itertools.zip_longest(options.unmixed, options.mixed):
        for engine in options.engines:
            if unmixed is not None and engine != "pod":
                found.append(Setting(engine, False, unmixed))
            if mixed is not None:
                found.append(Setting(engine, True, mixed))
    return found


def parse_pairs(text: str) -> list[tuple[Served, str]]:
    """Of MODEL:LOAD[:KV],...; ValueError for names that are unknown."""
    found = []
    for pair in text.split(","):
        model, load, kv = (*pair.split(":"), "auto", "")[:3]
        kvs = ("auto", *SGLANG_KV_DTYPES)
        if model not in SHAPES or load not in LOADS or kv not in kvs or pair.count(":") > 2:
            raise ValueError(
                f"{pair!r} is no MODEL:LOAD or MODEL:LOAD:KV; models are {', '.join(SHAPES)}, "
                f"loads {', '.join(LOADS)}, KV {', '.join(kvs)}"
            )
        found.append((Served(model, kv), load))
    return found
