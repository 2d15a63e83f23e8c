"""Attention `pod` registered for a module of tests, and gone after it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module", autouse=True)
def enabled() -> Iterator[None]:
    """hf.enable() around the tests of a module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pod_integrate import hf

        hf.enable()
    yield
    hf.disable()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """transformers warns about the odd configs of small models."""
    import transformers

    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"transformers\.|torch\.")
        yield
    transformers.logging.set_verbosity(before)


@pytest.fixture
def op_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each call of the op."""
    from pod_integrate.engines.transformers import engine

    calls: list[int] = []
    op = engine.hybrid_attention

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return op(*args, **kwargs)

    monkeypatch.setattr(engine, "hybrid_attention", counted)
    return calls
