"""What a saturated server with chunked prefill would run of a request log, step by step. A model.

    admission  in the order of the log, as long as fewer than `max_running` requests are in the
               server and their prompts and whole answers fit `budget` tokens of KV cache
    prefill    a step takes up to `chunk` prompt tokens, of several prompts where they fit; the
               last one goes on in the next step
    decode     one token of every running request in each step. Mixed, as SGLang's
               --enable-mixed-chunk, they join prefill steps, and take their tokens from the chunk;
               else prefill steps run alone, before decodes
    prefix     a prompt whose first blocks were seen lately starts behind them, where the log says
               which blocks prompts share; as many blocks are remembered as the budget holds

Requests wait at the door at all times: a log's own arrivals say how busy its servers were, not how
busy yours is. Answers are as long as in the log. One request is in memory for each running one.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pod_integrate.errors import SettingsError
from pod_integrate.replay.requests import BLOCK_TOKENS, Request
from pod_integrate.terms.trace import MAX_ROWS


class Step(NamedTuple):
    """Lengths of one forward step, prefill first, and its attention time where it was measured.

    layers   attention calls that took so long; 0 where nothing was measured
    decodes  rows, the last ones, of running requests, by the model; a prompt's last chunk may have
             one token too
    """

    q_lens: list[int]
    kv_lens: list[int]
    attention_us: float = 0.0
    layers: int = 0
    decodes: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """The server of the model.

    chunk        tokens of a step at most (SGLang's --chunked-prefill-size)
    max_running  requests in the server at once (--max-running-requests)
    budget       tokens of KV cache (--max-total-tokens)
    mixed        running requests join prefill steps
    reuse        prompts start behind blocks that were seen lately
    scale        factor on prompt, answer and block lengths
    """

    chunk: int = 2048
    max_running: int = 256
    budget: int = 262_144
    mixed: bool = True
    reuse: bool = True
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_running <= MAX_ROWS - 1:
            raise SettingsError(
                f"max running requests must be 1 to {MAX_ROWS - 1}, got {self.max_running}"
            )
        for name, least in (("chunk", 16), ("budget", 2)):
            if getattr(self, name) < least:
                raise SettingsError(
                    f"{name} must be at least {least} tokens, got {getattr(self, name)}"
                )
        if not 0.0 < self.scale <= 1000.0:
            raise SettingsError(f"scale must be above 0 and at most 1000, got {self.scale:g}")


@dataclasses.dataclass(slots=True)
class _Running:
    """A request in the server.

    context   tokens in the KV cache
    left      tokens that it still answers
    reserved  of the budget, until it ends
    """

    context: int
    prompt: int
    left: int
    reserved: int


class Serving:
    """Steps of a log's requests by `rules`.

    requests  admitted so far
    too_long  left out because the cache could never hold them
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.requests = self.too_long = 0
        self._running: list[_Running] = []
        # The prompt that goes on in the next step, and who waits at the door.
        self._filling: _Running | None = None
        self._next: _Running | None = None
        self._used = 0
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def steps(self, requests: Iterable[Request]) -> Iterator[Step]:
        """All steps until the last answer has ended; reads the log as it admits requests."""
        waiting = iter(requests)
        while True:
            q_lens, kv_lens, filled = self._prefill(waiting)
            prefills = len(q_lens)
            if self._rules.mixed or not q_lens:
                self._decode(q_lens, kv_lens)
            if not q_lens:
                return
            self._running += filled
            self._leave()
            yield Step(q_lens, kv_lens, decodes=len(q_lens) - prefills)

    def _prefill(self, waiting: Iterator[Request]) -> tuple[list[int], list[int], list[_Running]]:
        """Rows of this step's chunk, and the requests whose prompts end with it."""
        # However many run, a prompt goes on.
        room = max(1, self._rules.chunk - (len(self._running) if self._rules.mixed else 0))
        q_lens: list[int] = []
        kv_lens: list[int] = []
        filled: list[_Running] = []
        while room > 0:
            one = self._filling or self._admit(waiting, len(filled))
            if one is None:
                break
            take = min(room, one.prompt - one.context)
            one.context += take
            room -= take
            q_lens.append(take)
            kv_lens.append(one.context)
            self._filling = one if one.context < one.prompt else None
            if self._filling is None:
                # The prompt's last token gives the first one of the answer.
                one.left -= 1
                filled.append(one)
        return q_lens, kv_lens, filled

    def _decode(self, q_lens: list[int], kv_lens: list[int]) -> None:
        for one in self._running:
            one.context += 1
            one.left -= 1
            q_lens.append(1)
            kv_lens.append(one.context)

    def _leave(self) -> None:
        self._used -= sum(one.reserved for one in self._running if one.left <= 0)
        self._running = [one for one in self._running if one.left > 0]

    def _admit(self, waiting: Iterator[Request], filled: int) -> _Running | None:
        """The next request, if the server has room for it beside those `filled` in this step."""
        if self._next is None:
            self._next = self._fitting(waiting)
        if self._next is None or len(self._running) + filled >= self._rules.max_running:
            return None
        if self._used + self._next.reserved > self._rules.budget:
            return None
        admitted, self._next = self._next, None
        self._used += admitted.reserved
        self.requests += 1
        return admitted

    def _fitting(self, waiting: Iterator[Request]) -> _Running | None:
        """The log's next request that the cache could ever hold."""
        for request in waiting:
            prompt, answer = (
                max(1, round(tokens * self._rules.scale))
                for tokens in (request.prompt_tokens, request.answer_tokens)
            )
            if prompt + answer <= self._rules.budget:
                return _Running(self._known(request, prompt), prompt, answer, prompt + answer)
            self.too_long += 1
        return None

    def _known(self, request: Request, prompt: int) -> int:
        """Tokens of a prompt that lie in the cache already; its own blocks do from now on."""
        if not self._rules.reuse:
            return 0
        block = max(1, round(BLOCK_TOKENS * self._rules.scale))
        found = 0
        for name in request.blocks:
            if name not in self._blocks:
                break
            found += 1
        for name in request.blocks:
            self._blocks[name] = None
            self._blocks.move_to_end(name)
        while len(self._blocks) * block > self._rules.budget:
            self._blocks.popitem(last=False)
        return min(found * block, prompt - 1)
