"""One SGLang engine over questions and a text: `python -m benchmarks.gpu.engines.real_run`.

A process of its own, as sglang_run is. Every answer and every logprob is kept as it comes, in a
file that a run which was cut off goes on from.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines.sglang_run import main as wait_and_work
from benchmarks.real.kept import Kept

# Tokens that long prompts beside forced decodes say.
_BESIDE = 4
Work = Callable[[], Awaitable[Any]]


class Asker:
    """Asks one engine; keeps what it says.

    engine  an sglang.Engine, or what answers async_generate as it does
    """

    def __init__(self, engine: Any, kept: Kept, scratch: Path, processor: str) -> None:
        self._engine, self._kept, self._scratch = engine, kept, scratch
        self._processor = processor

    async def stage(self, name: str, works: Iterable[Work]) -> None:
        """All at once, but for what is kept already."""
        missing = [(k, work) for k, work in enumerate(works) if not self._kept.has(name, k)]

        async def one(key: int, work: Work) -> None:
            self._kept.add(name, key, await work())

        await asyncio.gather(*(one(key, work) for key, work in missing))

    async def answer(self, ids: list[int], new: int) -> list[int]:
        """Greedy tokens up to the end of the text, at most `new`."""
        sampling = {"temperature": 0, "max_new_tokens": new}
        found = await self._engine.async_generate(input_ids=ids, sampling_params=sampling)
        return list(found["output_ids"])

    async def margins(self, ids: list[int], said: list[int]) -> list[float]:
        """Logprob of the best token minus that of the second best, before each of `said`."""
        meta = await self._scored(ids, said, top=2)
        rows = meta["input_top_logprobs"][-len(said) :]
        return [float(best[0]) - float(second[0]) for best, second, *_ in rows]

    async def logprobs(self, ids: list[int], said: list[int]) -> list[float]:
        """Of each token of `said` after `ids`, by prefill."""
        rows = (await self._scored(ids, said))["input_token_logprobs"][-len(said) :]
        if [row[1] for row in rows] != said:
            raise RuntimeError("logprobs are of other tokens than were asked for")
        return [float(row[0]) for row in rows]

    async def _scored(self, ids: list[int], said: list[int], *, top: int = 0) -> dict[str, Any]:
        found = await self._engine.async_generate(
            input_ids=[*ids, *said],
            sampling_params={"temperature": 0, "max_new_tokens": 1},
            return_logprob=True,
            logprob_start_len=len(ids) - 1,
            top_logprobs_num=top,
        )
        meta: dict[str, Any] = found["meta_info"]
        return meta

    async def forced(self, pieces: list[dict[str, Any]], beside: list[list[int]]) -> None:
        """Decode steps say given tokens while long prompts arrive: logprobs, stage `forced`.

        Prompts go in one after the other, so that none is split: see Teacher.
        """
        keys = [key for key in range(len(pieces)) if not self._kept.has("forced", key)]
        if not keys:
            return
        running = []
        for key in keys:
            begun = asyncio.Event()
            running.append(asyncio.create_task(self._say(key, pieces[key], begun)))
            waiting = asyncio.create_task(begun.wait())
            await asyncio.wait((waiting, running[-1]), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        await asyncio.gather(*running, *(self.answer(ids, _BESIDE) for ids in beside))

    async def _say(self, key: int, piece: dict[str, Any], begun: asyncio.Event) -> None:
        path = self._scratch / f"forced_{key}.json"
        told = {"ids": piece["said"], "file": str(path)}
        sampling = {
            "temperature": 0, "max_new_tokens": len(piece["said"]), "ignore_eos": True,
            "custom_params": told,
        }  # fmt: skip
        stream = await self._engine.async_generate(
            input_ids=piece["prompt"], sampling_params=sampling, stream=True,
            custom_logit_processor=self._processor,
        )  # fmt: skip
        said: list[int] = []
        async for chunk in stream:
            # Cumulative: a chunk holds all tokens so far.
            said = list(chunk["output_ids"])
            begun.set()
        if said != piece["said"]:
            raise RuntimeError(f"forced text {key} was not said: its prompt was split, or worse")
        self._kept.add("forced", key, json.loads(path.read_text()))


class Stages:
    """A job's stages by name; each asks for what is missing of it."""

    def __init__(self, asker: Asker, kept: Kept, job: dict[str, Any]) -> None:
        self._asker, self._kept, self._job = asker, kept, job

    async def run(self) -> dict[str, str]:
        """All that the job names, in its order; by name what went wrong in the others."""
        failed = {}
        for name in self._job["stages"]:
            try:
                await getattr(self, name)()
            except (RuntimeError, ValueError, OSError) as error:
                failed[name] = f"{type(error).__name__}: {error}"
            print(f"{time.strftime('%H:%M:%S')} {name}: {failed.get(name, 'done')}", flush=True)
        return failed

    def _answers(self, count: int) -> list[Work]:
        prompts, new = self._job["prompts"][:count], self._job["new"]
        return [functools.partial(self._asker.answer, ids, new) for ids in prompts]

    async def answers(self) -> None:
        """All questions at once."""
        await self._asker.stage("answers", self._answers(len(self._job["prompts"])))

    async def again(self) -> None:
        """The same questions in small groups: what other batches change by themselves."""
        count, group = len(self._job["prompts"]), self._job["group"]
        for end in range(group, count + group, group):
            await self._asker.stage("again", self._answers(end))

    async def windows(self) -> None:
        """Logprobs of the text by prefill, two windows at a time: theirs are large."""
        works = [
            functools.partial(self._asker.logprobs, ids[:1], ids[1:])
            for ids in self._job["windows"]
        ]
        for end in range(2, len(works) + 2, 2):
            await self._asker.stage("windows", works[:end])

    async def forced(self) -> None:
        """Logprobs of the text by decode steps, mixed with prefills."""
        await self._asker.forced(self._job["forced"], self._job["beside"])

    async def forced_by_prefill(self) -> None:
        """Logprobs of the same tokens by prefill: how far two kernels of one backend part."""
        await self._asker.stage(
            "forced_by_prefill",
            [
                functools.partial(self._asker.logprobs, piece["prompt"], piece["said"])
                for piece in self._job["forced"]
            ],
        )

    async def margins(self) -> None:
        """How near this engine's answers came to other ones."""
        answers, prompts = self._kept.stage("answers"), self._job["prompts"]
        await self._asker.stage(
            "margins",
            [
                functools.partial(self._asker.margins, ids, answers[key])
                for key, ids in enumerate(prompts)
            ],
        )


def is_kept(job: dict[str, Any], kept: Kept) -> bool:
    """Whether all that a job's stages ask has been answered before."""
    asked = {"windows": job["windows"], "forced": job["forced"]}
    asked["forced_by_prefill"] = job["forced"]
    return all(
        kept.has(stage, key)
        for stage in job["stages"]
        for key in range(len(asked.get(stage, job["prompts"])))
    )


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Start an engine and ask it what is not kept yet; start none where all is."""
    import sglang

    from benchmarks.real.teacher import Teacher

    began = time.perf_counter()
    kept = Kept(Path(job["kept"]), job["jobs"])
    if is_kept(job, kept):
        return {"sglang": sglang.__version__, "failed": {}}
    engine = sglang.Engine(**job["engine"], enable_custom_logit_processor=True)
    started = time.perf_counter() - began
    print(f"engine up after {started:.0f} s", flush=True)
    try:
        loop = engine.loop if hasattr(engine, "loop") else asyncio.new_event_loop()
        asker = Asker(engine, kept, Path(job["scratch"]), Teacher.to_str())
        failed = loop.run_until_complete(Stages(asker, kept, job).run())
    finally:
        engine.shutdown()
    seconds = time.perf_counter() - began
    return {
        "sglang": sglang.__version__, "start_seconds": started, "seconds": seconds,
        "failed": failed,
    }  # fmt: skip


if __name__ == "__main__":
    wait_and_work(run)
