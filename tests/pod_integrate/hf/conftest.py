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
    from pod_integrate import op

    calls: list[int] = []
    attend = op.attend

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return attend(*args, **kwargs)

    monkeypatch.setattr(op, "attend", counted)
    return calls
