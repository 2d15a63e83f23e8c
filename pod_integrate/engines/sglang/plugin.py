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
from importlib.metadata import entry_points, version
from typing import Any

from pod_integrate.engines.sglang.accelerators import find_accelerator
from pod_integrate.errors import UnsupportedFeatureError

logger = logging.getLogger(__name__)

BACKEND = "pod"
PLATFORM = "pod_cpu"
PLATFORM_CLASS = "pod_integrate.engines.sglang.platform.PodCpuPlatform"
# First SGLang whose platforms can say that they have no Triton; older ones launch Triton kernels
# beside any attention backend that they do not know.
CPU_SINCE = "0.5.22"


def register() -> None:
    """Make `--attention-backend pod` known; called by SGLang's plug-in loader."""
    from sglang.srt.layers.attention.attention_registry import register_attention_backend
    from sglang.srt.server_args import (
        ATTENTION_BACKEND_CHOICES,
        add_attention_backend_choices,
        add_deterministic_attention_backend_choices,
    )

    register_attention_backend(BACKEND)(_make_backend)
    if BACKEND not in ATTENTION_BACKEND_CHOICES:
        add_attention_backend_choices([BACKEND])
        # Not among those with a prefix cache: what is left of a cached prompt may be one token,
        # which is attended as a decode step is.
        add_deterministic_attention_backend_choices([BACKEND])
    _warn_when_platform_is_filtered()
    _check_arguments_on_a_cpu()


def _make_backend(runner: Any) -> Any:
    # Imported here: SGLang logs and swallows what a plug-in raises, and would then only say
    # "invalid choice: pod"; raised from the factory it stops the server with its own message.
    from pod_integrate.engines.sglang.backend import PodAttnBackend

    return PodAttnBackend(runner)


def activate_cpu_platform() -> str | None:
    """Class path of the CPU platform, or None wherever something better may be there.

    SGLANG_PLATFORM=pod_cpu always gets it, or UnsupportedFeatureError where this SGLang is too
    old. Otherwise None on a host with any sign of an accelerator, when SGLang's own CPU engine is
    asked for, and next to another platform plug-in: SGLang would take our answer even on a GPU
    host.
    """
    if os.environ.get("SGLANG_PLATFORM") == PLATFORM:
        if _too_old():
            raise UnsupportedFeatureError(_old_sglang())
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
    if _too_old():
        return _old_sglang()
    others = [
        point.name
        for point in entry_points(group="sglang.srt.platforms")
        if point.name != PLATFORM and _whitelisted(point.name)
    ]
    if others:
        return f"other platform plug-ins are installed ({', '.join(sorted(others))})"
    found = find_accelerator()
    return f"this host has an accelerator ({found})" if found else None


def _too_old() -> bool:
    # Loaded when SGLang asks; to import it here would import all of SGLang.
    interface = sys.modules.get("sglang.srt.platforms.interface")
    return interface is not None and not hasattr(interface, "PlatformCapabilities")


def _old_sglang() -> str:
    return (
        f"on a machine without an accelerator attention backend pod needs SGLang {CPU_SINCE} or "
        f"newer, this is {version('sglang')}; pip install 'sglang>={CPU_SINCE}'"
    )


def _check_arguments_on_a_cpu() -> None:
    """Stop a server that asks `pod` for what SGLang itself cannot do without an accelerator.

    Not raised from `register`: SGLang would log it and go on. Not left to the backend: SGLang
    fails before it makes one.
    """
    if find_accelerator() is not None:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    target = "sglang.srt.server_args.ServerArgs.__post_init__"
    HookRegistry.register(target, _check_arguments, HookType.BEFORE)


def _check_arguments(server_args: Any) -> None:
    names = ("attention_backend", "prefill_attention_backend", "decode_attention_backend")
    if all(getattr(server_args, name, None) != BACKEND for name in names):
        return
    if _too_old():
        raise UnsupportedFeatureError(_old_sglang())
    if getattr(server_args, "enable_deterministic_inference", False):
        raise UnsupportedFeatureError(
            "deterministic inference needs a GPU: SGLang's batch-invariant matrix products are "
            "Triton kernels, which a machine without an accelerator cannot run; drop "
            "--enable-deterministic-inference"
        )


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
