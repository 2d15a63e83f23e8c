"""By what kept answers and logprobs count again: texts, weights, versions, of `pod` its build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

# What each stage is asked. `asked` is all prompts: how many of them are wanted changes no answer.
_ASKED = {
    "answers": ("asked", "new"),
    "again": ("asked", "new", "group"),
    "margins": ("asked", "new"),
    "windows": ("windows",),
    "forced": ("forced", "beside"),
    "forced_by_prefill": ("forced",),
    # Counted over runs that went on from one another.
    "steps": ("asked", "new", "windows", "forced", "beside"),
}


def digest(told: Any) -> str:
    """SHA-256 of what JSON says of it."""
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def weights(path: Path) -> str:
    """SHA-256 of a file of weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions(packages: Iterable[str]) -> list[str]:
    """Of installed packages, with their names."""
    return [f"{name} {metadata.version(name)}" for name in packages]


def by_stage(shared: Mapping[str, Any], told: Any) -> dict[str, str]:
    """One job for each stage of the real part, changed by what that stage is asked alone.

    told  of weights, versions and builds, what its answers depend on
    """
    return {
        stage: digest([told, [shared[name] for name in names]]) for stage, names in _ASKED.items()
    }
