"""Where the conformance kernel runs in tests, and what it leaves."""

from __future__ import annotations

import torch

CPU = torch.device("cpu")
SMS = 4

Sections = dict[str, torch.Tensor]
