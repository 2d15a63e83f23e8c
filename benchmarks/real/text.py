"""A text whose tokens are scored: this repository's README and documents, cut into windows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Forced(NamedTuple):
    """A prompt, and the tokens that decode steps are made to say after it."""

    prompt: list[int]
    said: list[int]


def read_text() -> tuple[str, str]:
    """The whole text, and its SHA-256; FileNotFoundError outside of a checkout."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(path.read_text() for path in paths)
    return text, hashlib.sha256(text.encode()).hexdigest()


def windows(ids: list[int], lengths: list[int]) -> list[list[int]]:
    """Pieces of these lengths, one after the other; ValueError when the text is too short."""
    if sum(lengths) > len(ids):
        raise ValueError(f"{sum(lengths)} tokens asked of a text of {len(ids)}: shorten windows")
    found, begin = [], 0
    for length in lengths:
        found.append(ids[begin : begin + length])
        begin += length
    return found


def forced(ids: list[int], count: int, prompt: int, said: int) -> list[Forced]:
    """`count` pieces at even distances; prompts differ in length, `prompt` at most.

    ValueError when a piece does not fit the text.
    """
    room = len(ids) - prompt - said
    if room < 0:
        raise ValueError(f"{prompt} + {said} tokens asked of a text of {len(ids)}")
    found = []
    for i in range(count):
        begin = room * i // max(1, count - 1)
        length = prompt - (i % 4) * (prompt // 8)
        found.append(
            Forced(ids[begin : begin + length], ids[begin + length : begin + length + said])
        )
    return found


def as_json(pieces: list[Forced]) -> list[dict[str, Any]]:
    """For a job file."""
    return [piece._asdict() for piece in pieces]
