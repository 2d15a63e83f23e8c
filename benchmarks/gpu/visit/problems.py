"""Why a folder of results is not filed."""

from __future__ import annotations

from pod_integrate.errors import PodAttentionError


class RecordError(PodAttentionError):
    """The message says what is wrong with it."""
