"""Makes an SGLang server say a given text and writes down what it thought of every token.

Logprobs that SGLang returns come with a price: it mixes no chunk into a step whose requests want
them. A logit processor sees the same logits in every kind of step, hybrid ones and replayed graphs
included. Handed over by reference (`Teacher.to_str()`): the server imports this module.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from sglang.srt.sampling.custom_logit_processor import CustomLogitProcessor


class Teacher(CustomLogitProcessor):  # type: ignore[misc]
    """One token of each row's `ids` a step; `file` gets the logprobs of all when they are said.

    A row's parameters: `ids`, what to say, and `file`. They are the request's own dictionary, so
    that what has been said is kept in them as well. A prompt that is split into chunks would count
    a step that says nothing: whoever asks compares the answer's tokens with `ids`.
    """

    def __call__(
        self, logits: torch.Tensor, custom_param_list: list[dict[str, Any]] | None = None
    ) -> torch.Tensor:
        """Logits [rows, vocabulary] under which each row's next token is the one to say."""
        for row, told in zip(logits, custom_param_list or [], strict=True):
            said = told.setdefault("said", [])
            # A step that was launched before the last one was known to be the last.
            if len(said) == len(told["ids"]):
                continue
            token = told["ids"][len(said)]
            said.append(row.float().log_softmax(-1)[token])
            row.fill_(torch.finfo(row.dtype).min)
            row[token] = 0.0
            if len(said) == len(told["ids"]):
                _write(Path(told["file"]), torch.stack(said).tolist())
        return logits


def _write(path: Path, logprobs: list[float]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(logprobs))
    os.replace(part, path)
