"""SmolLM2 answers questions on `pod` and on stock attention, in this process: the same tokens?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pod_integrate.terms.keys import Bucket

# Pages of the cache, tokens; and of a step, so that long prompts are cut and meet decodes.
_PAGE, _CHUNK = 32, 64
_STORY = (
    "Anna and her brother walked to the old mill before breakfast. The door was locked, but a "
    "window on the north side stood open, and they heard water under the floor. Inside they found "
    "a wooden box with a brass key, three letters tied with a red ribbon, and a map of the valley. "
    "They took the key, left the letters where they were, and ran home to ask their uncle, who had "
    "worked as a miller for forty years."
)
QUESTIONS = (
    "What is the capital of France?",
    "Why is the sky blue? Answer in one sentence.",
    f"{_STORY}\nWhat did Anna and her brother take with them?",
    "Write two sentences about a lighthouse.",
    "List three things that one may find in a kitchen.",
    f"{_STORY}\nWho had worked as a miller, and for how long?",
    "Explain to a child of eight how bread rises.",
    "What is seven times eight?",
)


@dataclasses.dataclass(frozen=True)
class Answer:
    """One question's tokens on both attentions, and the words of `pod`'s."""

    question: str
    pod: list[int]
    stock: list[int]
    text: str

    @property
    def equal(self) -> bool:
        """Token by token."""
        return self.pod == self.stock


@dataclasses.dataclass
class Steps:
    """What continuous batching ran on `pod`.

    fullest  the hybrid step with the most decodes beside a prompt; None when there was none
    """

    count: int = 0
    hybrid: int = 0
    fullest: Bucket | None = None

    def add(self, q_lens: list[int], kv_lens: list[int]) -> None:
        """One step, by the lengths of its requests."""
        bucket = Bucket.of(q_lens, kv_lens)
        self.count += 1
        if bucket.is_hybrid:
            self.hybrid += 1
            if self.fullest is None or bucket.decodes > self.fullest.decodes:
                self.fullest = bucket


def answer_all(
    model: Any, tokenizer: Any, tokens: int, say: Callable[[str], None]
) -> tuple[list[Answer], Steps]:
    """QUESTIONS, greedily, at most `tokens` of each: one by one on sdpa, then at once on `pod`.

    model  as transformers loads it; on `pod` afterwards
    say    is told what begins

    Raises RuntimeError with transformers' message when a request fails.
    """
    from pod_integrate import hf

    prompts = [_ids(tokenizer, question) for question in QUESTIONS]
    say("stock attention (sdpa), one question after the other")
    stock = [alone(model, ids, tokens) for ids in prompts]
    say("pod, all questions at once, prompts in chunks beside running answers")
    hf.enable(model)
    steps = Steps()
    with watched(model, steps):
        pod = together(model, prompts, tokens)
    words = [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in pod]
    rows = zip(QUESTIONS, pod, stock, words, strict=True)
    return [Answer(*row) for row in rows], steps


def _ids(tokenizer: Any, question: str) -> list[int]:
    message = [{"role": "user", "content": question}]
    ids: list[int] = tokenizer.apply_chat_template(
        message, add_generation_prompt=True, return_dict=False
    )
    return ids


def alone(model: Any, ids: list[int], tokens: int) -> list[int]:
    """Greedy tokens of generate() on the attention that the model is on, at most `tokens`."""
    import torch

    told = torch.tensor([ids])
    out = model.generate(
        told, attention_mask=torch.ones_like(told), max_new_tokens=tokens, do_sample=False
    )
    found: list[int] = out[0, len(ids) :].tolist()
    return found


def together(model: Any, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """The same of generate_batch(), all prompts at once, in steps of 64 tokens.

    Raises RuntimeError with transformers' message when a request fails.
    """
    import transformers

    if not prompts:
        return []
    outputs = model.generate_batch(
        inputs=prompts,
        generation_config=transformers.GenerationConfig(
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=model.config.eos_token_id,
            pad_token_id=model.config.pad_token_id,
        ),
        continuous_batching_config=batching(
            _PAGE, num_blocks=blocks_of(prompts, tokens, _PAGE), max_batch_tokens=_CHUNK
        ),
        progress_bar=False,
    )
    return finished(outputs, len(prompts))


def batching(page: int, **told: Any) -> Any:
    """ContinuousBatchingConfig with pages of so many tokens; their field changed its name in 5.18.

    told  num_blocks, max_batch_tokens and others; left alone it takes what memory is free
    """
    import inspect

    import transformers

    known = inspect.signature(transformers.ContinuousBatchingConfig).parameters
    size = "page_size" if "page_size" in known else "block_size"
    return transformers.ContinuousBatchingConfig(**{size: page}, **told)


def blocks_of(prompts: Sequence[Sequence[int]], tokens: int, page: int) -> int:
    """Pages that all prompts with answers of so many tokens take."""
    return sum(-(-(len(ids) + tokens) // page) for ids in prompts)


def finished(outputs: dict[str, Any], count: int) -> list[list[int]]:
    """New tokens of generate_batch() in the order of the `count` prompts.

    Raises RuntimeError with transformers' message when a request failed.
    """
    failed = [out.error for out in outputs.values() if out.error is not None]
    if failed or len(outputs) != count:
        raise RuntimeError(f"{len(outputs)} of {count} answers, first error: {failed[:1]}")
    # Named after their numbers, and filed as they ended.
    names = sorted(outputs, key=lambda name: int(name.rsplit("_", 1)[-1]))
    return [list(outputs[name].generated_tokens) for name in names]


@contextmanager
def watched(model: Any, steps: Steps) -> Iterator[None]:
    """Count into `steps` those of continuous batching on `pod` that reach the first layer."""
    from pod_integrate.engines.transformers import paged

    def note(*_: Any) -> None:
        step = paged.current()
        if step is not None and step.live:
            steps.add(step.q_lens, step.kv_lens)

    handle = model.get_decoder().layers[0].register_forward_pre_hook(note)
    try:
        yield
    finally:
        handle.remove()
