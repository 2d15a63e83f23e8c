"""What a pair of times was measured for: the phases of a trial, and their form as text.

Rows, tasks and logs have the text; everything else has these. A phase that was measured by someone
else than a worker, e.g. by a server on its own layers, is one more class here and one more stage in
search/stages.py.
"""

from __future__ import annotations

import dataclasses
import re

from pod_integrate.terms.experiment import RECHECK


@dataclasses.dataclass(frozen=True)
class Screen:
    """A few steps against the default, which select among candidates and never decide."""

    def __str__(self) -> str:
        return "screen"


@dataclasses.dataclass(frozen=True)
class Duel:
    """A candidate's confirmation, the `ordinal`-th of its study.

    against  number of the promoted trial that it must beat first, None: the default
    """

    ordinal: int
    against: int | None = None

    def __str__(self) -> str:
        return f"confirm:{self.ordinal}:{'default' if self.against is None else self.against}"


@dataclasses.dataclass(frozen=True)
class Recheck:
    """The promoted config against the default once more, after `passed` times that held."""

    passed: int

    def __str__(self) -> str:
        return f"{RECHECK}{self.passed}"


Phase = Screen | Duel | Recheck
SCREEN = Screen()

_DUEL = re.compile(r"confirm:(\d+):(default|\d+)")
_RECHECK = re.compile(RECHECK + r"(\d+)")


def parse(text: str) -> Phase:
    """The phase that `str` made `text` of; ValueError for anything else."""
    if text == str(SCREEN):
        return SCREEN
    if found := _DUEL.fullmatch(text):
        return Duel(int(found[1]), None if found[2] == "default" else int(found[2]))
    if found := _RECHECK.fullmatch(text):
        return Recheck(int(found[1]))
    raise ValueError(f"no phase of a trial: {text[:64]!r}")
