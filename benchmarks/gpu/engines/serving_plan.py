"""What the serving part measures, in which order."""

from __future__ import annotations

import argparse
import itertools
from typing import NamedTuple

from benchmarks.gpu.engines.serving_loads import LOADS, SHAPES, Lengths, means

# Of a stretch, at about as many prompt tokens a second as one H200 serves of these models.
_SECONDS, _PROMPT_TOKENS_PER_SECOND = 12.0, 16_000.0


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
    """Pairs of model and load, and the settings of each."""

    pairs: list[tuple[str, str]]
    settings: list[Setting]

    @property
    def models(self) -> list[str]:
        """Each once."""
        return list(dict.fromkeys(model for model, _ in self.pairs))

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


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Of MODEL:LOAD,...; ValueError for names that are unknown."""
    found = []
    for pair in text.split(","):
        model, _, load = pair.partition(":")
        if model not in SHAPES or load not in LOADS:
            raise ValueError(
                f"{pair!r} is no MODEL:LOAD; models are {', '.join(SHAPES)}, loads "
                f"{', '.join(LOADS)}"
            )
        found.append((model, load))
    return found


def prompts(lengths: Lengths, cycles: int) -> int:
    """Prompts of a stretch: whole cycles, at least one."""
    if not cycles:
        whole = len(lengths) * means(lengths)[0]
        cycles = max(1, round(_SECONDS * _PROMPT_TOKENS_PER_SECOND / whole))
    return cycles * len(lengths)
