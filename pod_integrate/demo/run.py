"""`pod-attn demo`: the whole loop on this machine, from two child processes to a summary."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from typing import Any

import httpx
from rich.console import Console

from pod_integrate.builds import native
from pod_integrate.demo import commands
from pod_integrate.demo.compare import (
    SHOWN_STEPS,
    STEPS_PER_BUCKET,
    Replays,
    compare_with_default,
    feed_back,
)
from pod_integrate.demo.llama import make_demo_model
from pod_integrate.demo.load import LoadStats, run_load
from pod_integrate.demo.options import DemoOptions
from pod_integrate.demo.ports import free_port
from pod_integrate.demo.processes import Child
from pod_integrate.demo.summary import DemoResult, summary_rows
from pod_integrate.demo.view import LiveView, Phases, print_summary
from pod_integrate.demo.workload import BUILT_IN, Fit, built_in, from_file
from pod_integrate.errors import StartError
from pod_integrate.replay.requests import Request
from tuner.host.signals import terminations

_START_TIMEOUT = 1200.0  # A busy machine's; a child that ends is told at once.
_COMPARE_SECONDS = 20.0


class Demo:
    """Owns the two children. Use as a context manager: leaving it stops them."""

    def __init__(self, options: DemoOptions, console: Console) -> None:
        self.options, self.console = options, console
        self.phases = Phases(console)
        self._children: list[Child] = []
        self.tuner_url = self.server_url = ""
        self.model = options.model or ""

    def __enter__(self) -> Demo:
        # A demo that is terminated must stop its children as well as one that is interrupted.
        for number in terminations():
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        return self

    def __exit__(self, *_: object) -> None:
        waiting = list(self._children)
        try:
            while waiting:
                self.phases.note(f"stopping {waiting[-1].name}")
                waiting[-1].stop()
                waiting.pop()
        finally:
            # A second Ctrl-C, or a terminal that is gone, leaves no time and no child either.
            for child in waiting:
                child.kill()

    def run(self) -> DemoResult:
        """All phases up to the summary; raises StartError when a child does not come up."""
        # A trace that cannot be read is told before minutes of starting.
        requests, words = self._requests()
        self._prepare()
        self._start()
        self.phases.note(words)
        stats, overview = asyncio.run(self._load(requests))
        replays = self._replays(overview)
        seconds = time.monotonic() - self.phases.started
        result = DemoResult(stats, overview, replays, seconds, dict(self.phases.seconds))
        print_summary(self.console, summary_rows(result, f"{self.tuner_url}/"))
        return result

    def hold(self) -> None:
        """Keep serving until Ctrl-C; raises StartError when a child dies."""
        self.console.print(
            f"\nServing on {self.server_url}, dashboard {self.tuner_url}/ - Ctrl-C stops both."
        )
        while True:
            for child in self._children:
                if not child.running:
                    raise StartError(f"{child.name} ended; log {child.log}:\n{child.tail()}")
            time.sleep(1.0)

    def _prepare(self) -> None:
        with self.phases.phase("native build"):
            native.build("cpu", progress=lambda done, total, what: self._built(done, total, what))
        if not self.model:
            with self.phases.phase("demo model (random Llama, 8 layers, GQA 8/4, head dim 64)"):
                self.model = str(make_demo_model(self.options.state / "demo-model"))

    def _built(self, done: int, total: int, what: str) -> None:
        self.phases.note(f"build [{done}/{total}] {what}")

    def _start(self) -> None:
        """Both children at once: each spends a minute or more importing on a small machine."""
        options = self.options
        tuner_port = free_port(options.tuner_port)
        server_port = free_port(options.server_port)
        self.tuner_url = f"http://127.0.0.1:{tuner_port}"
        self.server_url = f"http://127.0.0.1:{server_port}"
        logs = options.state / "logs"
        tuner = commands.tuner_command(options, tuner_port)
        server = commands.server_command(options, self.model, server_port)
        env = commands.server_env(options, self.tuner_url)
        self._children.append(
            Child("tuner", tuner, log=logs / "tuner.log", env=commands.tuner_env())
        )
        self._children.append(Child("sglang", server, log=logs / "sglang.log", env=env))
        self.phases.note(
            ("start", "dim"), f"  Ray + tuner and SGLang, side by side; logs in {logs}"
        )
        for place, url in enumerate((f"{self.tuner_url}/healthz", f"{self.server_url}/health")):
            self._wait(place, url)

    def _wait(self, place: int, url: str) -> None:
        """Until a child answers. Where Ray does not come up in its time the tuner goes on alone."""
        child = self._children[place]
        try:
            seconds = child.wait_ready(url, timeout=_START_TIMEOUT, alive=self._check_alive)
        except StartError:
            # Ray gives its processes 30 seconds, which cannot be set: too few on a busy machine.
            if child.running or "Ray did not start in" not in child.tail():
                raise
            self.phases.note("  too busy a machine for Ray to start: the tuner runs without it")
            child.stop()
            command, log = [*child.command, "--no-ray"], child.log.with_stem("tuner-no-ray")
            child = Child(child.name, command, log=log, env=commands.tuner_env())
            self._children[place] = child
            seconds = child.wait_ready(url, timeout=_START_TIMEOUT, alive=self._check_alive)
        self.phases.done(child.name, seconds, url)

    def _check_alive(self) -> None:
        for child in self._children:
            if not child.running:
                raise StartError(f"{child.name} ended; log {child.log}:\n{child.tail()}")

    def _requests(self) -> tuple[list[Request], str]:
        """The load, and what it is in words."""
        options = self.options
        fit = Fit(rate=options.rate, scale=options.scale, max_prompt=4096, max_answer=256)
        count = max(1, round(options.rate * options.seconds))
        if options.trace is None:
            requests, source = built_in(count, fit, seed=options.seed), BUILT_IN
        else:
            requests = from_file(options.trace, count, fit, seed=options.seed)
            source = str(options.trace)
        prompts = sum(r.prompt_tokens for r in requests) / len(requests)
        answers = sum(r.answer_tokens for r in requests) / len(requests)
        words = (
            f"load: {len(requests)} requests at {options.rate:g}/s, lengths x {options.scale:g} "
            f"(mean prompt {prompts:.0f}, answer {answers:.0f} tokens) from {source}"
        )
        return requests, words

    async def _load(self, requests: list[Request]) -> tuple[LoadStats, dict[str, Any]]:
        stats = LoadStats()
        begin = time.monotonic()
        task = asyncio.create_task(
            run_load(
                self.server_url,
                requests,
                stats,
                vocab=_vocab(self.model),
                scale=self.options.scale,
                concurrency=self.options.concurrency,
                seed=self.options.seed,
            )
        )
        try:
            with LiveView(self.console, len(requests)) as view:
                await self._watch(view, stats, task)
                await task
                self.phases.done("load", time.monotonic() - begin)
                settle = asyncio.create_task(asyncio.sleep(self.options.settle))
                self.phases.note(f"the tuner goes on for {self.options.settle:.0f} s")
                overview = await self._watch(view, stats, settle)
        finally:
            task.cancel()
        return stats, overview

    async def _watch(
        self, view: LiveView, stats: LoadStats, until: asyncio.Task[Any]
    ) -> dict[str, Any]:
        """Show load and tuner until a task ends; returns the tuner's last overview."""
        overview = None
        url = self.tuner_url
        async with httpx.AsyncClient(base_url=url, timeout=5.0, trust_env=False) as client:
            while not until.done():
                overview = await _overview(client) or overview
                view.update(stats, overview)
                self._check_alive()
                await asyncio.wait({until}, timeout=1.0)
            return await _overview(client) or overview or {}

    def _replays(self, overview: dict[str, Any]) -> Replays | None:
        """Tuned against default twice: what the first refutes is rolled back, then afresh.

        On other steps, so that what is rolled back by its bad luck does not make the rest shine.
        """
        if not overview.get("tables"):
            self.phases.note("no config was promoted: nothing to compare with the default")
            return None
        url, scope = self.tuner_url, overview["tables"][0]
        with self.phases.phase("re-check of promoted configs on fresh steps"):
            first = compare_with_default(url, scope, seconds=_COMPARE_SECONDS)
            refuted = feed_back(url, scope, first)
        for bucket in refuted:
            self.phases.note(f"  rolled back: {bucket}")
        with self.phases.phase("fresh replay of traced steps, tuned against default"):
            last = compare_with_default(
                url, scope, seconds=_COMPARE_SECONDS, skip=STEPS_PER_BUCKET, steps=SHOWN_STEPS
            )
            refuted += feed_back(url, scope, last)
        return Replays(first, last, refuted)


async def _overview(client: httpx.AsyncClient) -> dict[str, Any] | None:
    try:
        response = await client.get("/v1/overview")
        response.raise_for_status()
        return dict(response.json())
    except (httpx.HTTPError, ValueError):
        # The view goes on with what it has: a busy tuner must not stop the load.
        return None


def _vocab(model: str) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model).get_text_config()
    # Ids above the bytes would be specials in the demo model, which end texts early elsewhere.
    return min(256, int(config.vocab_size))
