"""Entry points that SGLang calls in every process; nothing heavy is imported here.

`register` adds the attention backend `pod`; `activate_cpu_platform` lets a stock server run on
a machine without an accelerator. One distribution ships both, so SGLang's gates act on both:

SGLANG_PLUGINS   whitelist over both groups: name `pod,pod_cpu` on a machine without a GPU
SGLANG_PLATFORM  `pod_cpu` forces the CPU platform; another platform's name makes SGLang skip
                 every entry point of this distribution, `pod` included
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import entry_points
from typing import Any

from pod_integrate.engines.sglang.accelerators import find_accelerator

logger = logging.getLogger(__name__)

BACKEND = "pod"
PLATFORM = "pod_cpu"
PLATFORM_CLASS = "pod_integrate.engines.sglang.platform.PodCpuPlatform"


def register() -> None:
    """Make `--attention-backend pod` known; called by SGLang's plug-in loader."""
    from sglang.srt.layers.attention.attention_registry import register_attention_backend
    from sglang.srt.server_args import ATTENTION_BACKEND_CHOICES, add_attention_backend_choices

    register_attention_backend(BACKEND)(_make_backend)
    if BACKEND not in ATTENTION_BACKEND_CHOICES:
        add_attention_backend_choices([BACKEND])
    _warn_when_platform_is_filtered()


def _make_backend(runner: Any) -> Any:
    # Imported here: SGLang logs and swallows what a plug-in raises, and would then only say
    # "invalid choice: pod"; raised from the factory it stops the server with its own message.
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    return PodAttnBackend(runner)


def activate_cpu_platform() -> str | None:
    """Class path of the CPU platform, or None wherever something better may be there.

    SGLANG_PLATFORM=pod_cpu always gets it. Otherwise None on a host with any sign of an
    accelerator, when SGLang's own CPU engine is asked for, and next to another platform plug-in:
    SGLang would take our answer even on a GPU host.
    """
    if os.environ.get("SGLANG_PLATFORM") == PLATFORM:
        return PLATFORM_CLASS
    reason = _reason_to_stay_off()
    if reason is None:
        return PLATFORM_CLASS
    logger.info(
        "platform %s stays off: %s; SGLANG_PLATFORM=%s forces it", PLATFORM, reason, PLATFORM
    )
    return None


def _reason_to_stay_off() -> str | None:
    if os.environ.get("SGLANG_USE_CPU_ENGINE", "0").lower() in ("1", "true"):
        return "SGLANG_USE_CPU_ENGINE asks for SGLang's own CPU engine"
    # SGLang has loaded it by the time that it asks; to import it here would import all of SGLang.
    interface = sys.modules.get("sglang.srt.platforms.interface")
    if interface is not None and not hasattr(interface, "PlatformCapabilities"):
        return "this SGLang is too old for it (0.5.15 and 0.5.19 are, 0.5.23 is tested)"
    others = [
        point.name
        for point in entry_points(group="sglang.srt.platforms")
        if point.name != PLATFORM and _whitelisted(point.name)
    ]
    if others:
        return f"other platform plug-ins are installed ({', '.join(sorted(others))})"
    found = find_accelerator()
    return f"this host has an accelerator ({found})" if found else None


def _whitelisted(name: str) -> bool:
    allowed = os.environ.get("SGLANG_PLUGINS", "")
    return not allowed or name in {part.strip() for part in allowed.split(",")}


def _warn_when_platform_is_filtered() -> None:
    if _whitelisted(PLATFORM) or os.environ.get("SGLANG_PLATFORM"):
        return
    if find_accelerator() is None:
        logger.warning(
            "SGLANG_PLUGINS=%s leaves out %s and this host has no accelerator, so SGLang will not "
            "find a platform to run on; set SGLANG_PLUGINS=%s,%s",
            os.environ["SGLANG_PLUGINS"],
            PLATFORM,
            BACKEND,
            PLATFORM,
        )
