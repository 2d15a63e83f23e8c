"""Replays of captured decode steps: which config each runs, what is compared and traced.

Only what a plan holds can change between replays, so a config needs the captured tiles and room in
the captured grid. Its kernel is the one that runs anyway: a config that was verified beside the
server is used without a shadow.
"""

from __future__ import annotations

import functools

from pod_integrate.live.captured import Captured, Holds, Replay, ReplayStep
from pod_integrate.live.experiments import ExperimentStep
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.table import Source


def replay(group: LayerGroup, step: ReplayStep, captured: Captured, holds: Holds) -> Replay:
    """Choose what a live step of `group` that replays a graph runs, and close the one before.

    holds  whether the captured grid has room for the step in parts of so many keys
    """
    if group.batch_invariant:
        return Replay(captured.config)
    group.close_step()
    warm, captured.warm = captured.warm, True
    compared = _experiment(group, step, captured, holds, warm=warm)
    if compared is not None:
        group.skip_step()
        return compared
    found = group.active.lookup(step.bucket)
    config, source = found.config, found.source
    if config is None or not _usable(group, step, captured, holds, config):
        config, source = captured.config, "default"
    if not warm:
        group.skip_step()
        return Replay(config)
    return Replay(config, stamp=_trace(group, step, captured, config, source))


def _experiment(
    group: LayerGroup, step: ReplayStep, captured: Captured, holds: Holds, *, warm: bool
) -> Replay | None:
    """The experiment that this step is one of, if it is."""
    experiments, timer = group.experiments, captured.timer
    if experiments is None or timer is None:
        return None
    live = experiments.see(step.bucket, step.lengths, captured.tiles)
    if live is None or not warm or len(group.layers) < 2:
        return None
    if not all(_usable(group, step, captured, holds, arm.config) for arm in live.arms):
        baseline, candidate = (_has_room(captured, holds, arm.config) for arm in live.arms)
        if baseline and not candidate:
            live.lack_room()
        return None
    if not experiments.draw(live):
        return None
    begun = live.begin(step.lengths, group.clock, experiments.budget)
    stamp = group.stamped.add(timer, functools.partial(begun.timed, layers=len(group.layers)))
    return Replay(*_turns(begun), stamp=stamp)


def _turns(begun: ExperimentStep) -> tuple[PodConfig, PodConfig]:
    """Configs of layers of even and of odd position."""
    return begun.arm(0).config, begun.arm(1).config


def _usable(
    group: LayerGroup, step: ReplayStep, captured: Captured, holds: Holds, config: PodConfig
) -> bool:
    if not captured.has_tiles_of(config) or not _has_room(captured, holds, config):
        return False
    if config == captured.config or group.readiness.verified(config) is not None:
        return True
    group.readiness.want(config, step.lengths)
    return False


def _has_room(captured: Captured, holds: Holds, config: PodConfig) -> bool:
    """Whether a replay runs `config`; what was captured runs in longer parts where it must."""
    return config == captured.config or holds(config.decode_split_tokens)


def _trace(
    group: LayerGroup, step: ReplayStep, captured: Captured, config: PodConfig, source: Source
) -> int:
    """The stamp for its plan, 0 where the step is not traced."""
    if group.recorder is None or captured.timer is None:
        return 0
    layers = len(group.layers)
    opened = group.open = group.recorder.begin_replay(step.lengths, config, source, layers=layers)
    if opened is None:
        return 0
    slot = captured.timer.arm()
    opened.read_graph = functools.partial(captured.timer.seconds, slot)
    return slot
