"""Timed cases as `numbers` leaves them, for tests of what is made of them."""

from __future__ import annotations

from typing import Any


def entry(fused: float, serial: float, prefill: float = 50.0, **more: Any) -> dict[str, Any]:
    """A case of `numbers` in which ours took so many us, its decodes alone 50.

    more  further keys of the case
    """

    def run(us: float, **of: Any) -> dict[str, Any]:
        return {"name": "", "median_us": us, "part": "all", **of}

    return {
        "prefill": "1@1",
        "decodes": "1@1",
        "floor": {"fused_us": 10.0},
        "runs": [
            run(fused, strategy="fused", label="default"),
            run(serial, strategy="serial", label="tried"),
            run(prefill, label="alone", part="prefill"),
            run(50.0, label="alone", part="decode"),
        ],
        **more,
    }
