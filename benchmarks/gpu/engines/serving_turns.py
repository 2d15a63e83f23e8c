"""The serving part's document, and the turns in which its engines are measured."""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines.sink import TraceSink
from benchmarks.gpu.engines.part import Part
from benchmarks.gpu.engines.places import PLACES
from benchmarks.gpu.engines.serving_balance import Load, balanced, measured
from benchmarks.gpu.engines.serving_figures import (
    KINDS,
    Timed,
    attention,
    shares,
    timed,
    waits,
)
from benchmarks.gpu.engines.serving_loads import LOADS, SHAPES, held, means
from benchmarks.gpu.engines.serving_plan import Served, Setting
from benchmarks.gpu.engines.serving_summary import best, device_called, sampled, summarize
from benchmarks.gpu.engines.turns import Standing, order

_TOLD = (
    "engines", "rates", "rounds", "stretch", "settle", "rate_seconds", "rate_settle",
    "itl", "device", "seconds",
)  # fmt: skip
# Of arrivals: engine, "" for the stock one, and whether it mixes.
SIDES = {"unmixed": ("", False), "pod": ("pod", True), "mixed": ("", True)}
# Seconds below which no engine is started; those of filling a cache, and of a stretch's settling
# and the rest of its last cycle, about.
_LEAST_START, _FILL, _AROUND = 60.0, 10.0, 4.0


class Serving(Part):
    """The document under way, and what its stages share."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        load = {name: getattr(options, name) for name in _TOLD} | {"stock": options.engines[0]}
        super().__init__(options, folder, "serving", load)
        self.document |= {"runs": {}, "stages": {}, "left_out": [], "refused": {}, "summary": {}}
        accelerates = PLACES[options.device].accelerates
        self.least_start = _LEAST_START if accelerates else 1.0
        self.next_workers: dict[Served, dict[str, Standing]] = {}
        # The load that an engine is under, and how many requests it began with.
        self._full: dict[str, tuple[Served, str, int]] = {}
        self._fill, self._around = (_FILL, _AROUND) if accelerates else (0.5, 0.5)
        self._sink = TraceSink()
        name = str(self.document["machine"].get("device", {}).get("name", ""))
        self._device = device_called(name)
        self.say("begun")

    def __enter__(self) -> Serving:
        self._sink.__enter__()
        return self

    def __exit__(self, *told: object) -> None:
        for workers in self.next_workers.values():
            for worker in workers.values():
                worker.stop()
        self._sink.__exit__(*told)

    def environment(self, engine: str) -> dict[str, str]:
        """`pod` tells of its steps, at the share that is the default, and tries nothing out."""
        if engine != "pod":
            return {}
        return {
            "POD_ATTN_TUNER_URL": self._sink.url, "POD_ATTN_EXPERIMENTS": "0",
            "POD_ATTN_POLL_SECONDS": "0.5",
        }  # fmt: skip

    def enough(self, seconds: float) -> bool:
        """Whether so many are left."""
        return self.seconds_left() >= seconds

    def seconds_left(self) -> float:
        """Of --seconds."""
        return float(self.options.seconds) - self.passed

    def left_out(self, name: str) -> None:
        """No time was left for it."""
        self.document["left_out"].append(name)
        self.say(f"{name}: left out, no time")

    def failed(self, name: str, error: Exception) -> None:
        """Say so, and go on."""
        self.document["failed"][name] = str(error)
        self.say(f"{name} FAILED: {error}")
        self._save()

    def took(self, name: str, seconds: float) -> None:
        """How long something took."""
        self.document["stages"][name] = round(seconds, 1)

    def saturated(
        self, engines: dict[str, Standing], served: Served, load: str,
        wanted: list[Setting], number: int,
    ) -> None:  # fmt: skip
        """One round of all settings under a load that always waits at the door."""
        turns = {one.name: one for one in wanted if one.engine in engines}
        for name in order(list(turns), number):
            one = turns[name]
            full = self._full.get(one.engine) == (
                served,
                load,
                _running(one, self._load(served, load)),
            )
            least = self.options.stretch + self._around + (0.0 if full else self._fill)
            what = f"{served.name}, {load}, {name}"
            if one.engine in engines and self._may(what, least):
                work = functools.partial(self._window, engines, one, served, load, number)
                self._try(engines, one, what, work)

    def rated(self, engines: dict[str, Standing], served: Served, load: str) -> None:
        """Best settings of each side, at shares of what stock answered unmixed."""
        stock, windows = self.options.engines[0], self._run(served, load)["windows"]
        alone = best(windows, stock, False)
        if alone is None:
            return
        capacity = alone["steady"] / means(LOADS[load])[1]
        sides = [SIDES[side] for side in self.options.rate_sides]
        tops = [best(windows, engine or stock, mixed) for engine, mixed in sides]
        for share, top in itertools.product(self.options.rates, tops):
            if top is None or top["engine"] not in engines:
                continue
            one = Setting(top["engine"], top["mixed"], top["chunk"])
            what = f"{served.name}, {load}, {one.name}, at {share:g}"
            if self._may(what, self.options.rate_settle + self.options.rate_seconds + 3.0):
                work = functools.partial(self._rate, engines, one, served, load, share, capacity)
                self._try(engines, one, what, work)

    def _may(self, what: str, seconds: float) -> bool:
        if not self.enough(seconds):
            self.left_out(what)
            return False
        return True

    def _try(
        self, engines: dict[str, Standing], one: Setting, what: str, work: Callable[[], None]
    ) -> None:
        """An engine that fails is not asked again."""
        try:
            work()
        except (RuntimeError, ValueError, KeyError) as error:
            self.failed(what, error)
            engines.pop(one.engine).stop()

    def _window(
        self, engines: dict[str, Standing], one: Setting, served: Served, load: str, number: int
    ) -> None:
        worker, options = engines[one.engine], self.options
        begun = _running(one, self._load(served, load))
        if self._full.get(one.engine) != (served, load, begun):
            filled = worker.order(f"load {load} {begun}", 3 * options.each)
            self._full[one.engine] = (served, load, begun)
            took = f"{begun} requests after {filled['seconds']:.1f} s"
            self.say(f"{served.name}, {load}, {one.engine}: {took}")
        limit = min(options.each, max(1.0, self.seconds_left()))
        cycle = len(LOADS[load])
        line = f"window {one.mixed:d} {one.chunk} {options.settle} {cycle} {options.stretch:g}"
        found = worker.order(f"{line} {limit:.1f}", 2 * options.each)
        steps = timed(found["steps"], *found["unix"])
        told = {"round": number, "whole": found["whole"], "begun": begun}
        window = told | balanced(steps, self._load(served, load)) | self._figures(found, steps, one)
        self._run(served, load)["windows"].append(window)
        self._told(f"{served.name}, {load}, {one.name}", window)

    def _rate(
        self, engines: dict[str, Standing], one: Setting, served: Served, load: str,
        share: float, capacity: float,
    ) -> None:  # fmt: skip
        self._full.pop(one.engine, None)
        settle, seconds = self.options.rate_settle, self.options.rate_seconds
        line = f"rate {load} {one.mixed:d} {one.chunk} {share * capacity} {settle} {seconds}"
        found = engines[one.engine].order(line, settle + seconds + self.options.each)
        steps = timed(found["steps"], *found["unix"])
        told = {"rate": share, "per_second": share * capacity}
        window = told | measured(steps, self._load(served, load)) | self._figures(found, steps, one)
        self._run(served, load)["rates"].append(window)
        self._told(f"{served.name}, {load}, {one.name}, at {share:g}", window)

    def _figures(
        self, found: dict[str, Any], steps: Sequence[Timed], one: Setting
    ) -> dict[str, Any]:
        begin, end = found["unix"]
        traced = attention(self._sink.records(), begin, end) if one.engine == "pod" else {}
        return {
            **one._asdict(), "unix": [begin, end],
            **waits(found, end - begin, self.options.itl),
            "time": shares(steps), "attention": traced, "steps": sampled(steps),
        }  # fmt: skip

    def _run(self, served: Served, load: str) -> dict[str, Any]:
        shape = SHAPES[served.model].beside(len(self.options.engines))
        found: dict[str, Any] = self.document["runs"].setdefault(f"{served.name}, {load}", {
            "model": served.model, "load": load, "kv": served.kv_dtype(self.options.device),
            "means": means(LOADS[load]), "pool_tokens": shape.pool,
            "held": held(shape, LOADS[load]), "windows": [], "rates": [],
        })  # fmt: skip
        return found

    def _load(self, served: Served, load: str) -> Load:
        return Load(*means(LOADS[load]), self._run(served, load)["held"])

    def _told(self, name: str, window: dict[str, Any]) -> None:
        parts = [f"{kind} {window['time'][kind]['share']:.0%}" for kind in KINDS
                 if kind in window["time"]]  # fmt: skip
        rate = f"{window['measured']:.0f} tokens/s measured in {window['seconds']:.0f} s"
        if "steady" in window:
            rate += f", {window['steady']:.0f} steady +- {window.get('spread', 0.0):.1%}"
        spent = window["time"]
        host = [f"{kind} in {spent[kind]['queued_ms']:.1f} ms" for kind in KINDS
                if "queued_ms" in spent.get(kind, {})]  # fmt: skip
        queued = f"queued {', '.join(host)}, " if host else ""
        self.say(
            f"{name}: {rate}, "
            f"ITL p50 {window.get('itl_ms_p50', 0):.1f} p99 {window.get('itl_ms_p99', 0):.1f} ms, "
            f"{', '.join(parts)}, {queued}between forwards "
            f"{spent['gap_share']:.1%} ({spent['late_share']:.1%} late)"
        )
        cut = "" if window.get("whole", True) else "its time was over before half of --stretch"
        if why := cut or window.get("refused"):
            self.document["refused"][name] = why
            self.say(f"{name} REFUSED: {why}")
        self._save()

    def _save(self) -> None:
        self.save(summary=summarize(self.document, self._device))


def _running(one: Setting, told: Load) -> int:
    """Requests that run at once for ever: what fits the cache, or beside prompts in their steps."""
    beside = told.running(one.chunk) if one.mixed else told.room
    # What does not fit would wait, and the others run on.
    return max(1, min(int(told.room), round(beside)))
