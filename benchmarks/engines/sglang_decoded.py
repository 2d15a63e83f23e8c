"""What a run of a small model in SGLang gives, in the child that runs it and in its parent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Decoded(NamedTuple):
    """Greedy tokens of every prompt, and the logits [rows, vocabulary] of every forward step."""

    tokens: list[list[int]]
    logits: list[NDArray[np.float32]]
