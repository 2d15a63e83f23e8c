"""What the backend does not serve: pure checks over plain facts, each naming the alternative.

A server stops at start-up, with one of these messages, rather than answer differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pod_integrate.devices.registry import KINDS
from pod_integrate.engines.sglang.alternatives import Machine, way_out
from pod_integrate.engines.sglang.facts import EngineFacts, LayerFacts
from pod_integrate.engines.sglang.layer_rules import LAYER
from pod_integrate.engines.sglang.rules import ENGINE, Facts, Rule
from pod_integrate.engines.sglang.speculation_rules import SPECULATION
from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError


def check_engine(facts: EngineFacts, machine: Machine) -> None:
    """Raise UnsupportedFeatureError for the first feature of the server that POD lacks."""
    _check((*ENGINE, *SPECULATION), facts, "the server", machine)


def check_layers(layers: Iterable[LayerFacts], machine: Machine) -> None:
    """Raise UnsupportedFeatureError for the first layer that POD cannot attend."""
    for facts in layers:
        _check(LAYER, facts, f"attention layer {facts.layer_id}", machine)


def check_device(device: str) -> None:
    """Raise KernelUnavailableError on a device that this plug-in does not drive."""
    if device not in KINDS:
        raise KernelUnavailableError(
            f"attention backend pod serves SGLang on {' and '.join(KINDS)}, not on {device}. Drop "
            "--attention-backend pod to get SGLang's own backend"
        )


def check_decode_graphs(max_requests: int, max_tokens: int, *, speculates: bool) -> None:
    """Raise UnsupportedFeatureError for CUDA graphs whose requests are not all of one width.

    The width is one token, or that of a verify step where the server speculates.
    """
    if max_tokens % max_requests or (max_tokens != max_requests and not speculates):
        raise UnsupportedFeatureError(
            f"attention backend pod captures steps of as many tokens for each request, and of one "
            f"without speculative decoding; the server wants {max_tokens} tokens of {max_requests} "
            "requests; pass --disable-decode-cuda-graph, or leave --attention-backend unset to get "
            "SGLang's own"
        )


def check_arguments(layer_id: int, arguments: dict[str, Any]) -> None:
    """Raise UnsupportedFeatureError when a model passes attention arguments that POD lacks."""
    unknown = sorted(
        name for name, value in arguments.items() if value is not None and value is not False
    )
    if unknown:
        raise UnsupportedFeatureError(
            f"attention backend pod does not support the arguments {unknown} that this model "
            f"passes at layer {layer_id}; leave --attention-backend unset to get SGLang's own"
        )


def _check(rules: Iterable[Rule[Facts]], facts: Facts, where: str, machine: Machine) -> None:
    for rule in rules:
        if rule.applies(facts):
            own = rule.own if isinstance(rule.own, str) else rule.own(facts)
            raise UnsupportedFeatureError(
                f"attention backend pod does not support {rule.feature}: {where} has "
                f"{rule.got(facts)}; {way_out(machine, own, rule.serving, rule.flag)}"
            )
