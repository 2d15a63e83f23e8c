"""Does every instruction do on the GPU what the emulated SM says it does?

Bit for bit, but: ex2 and lg2 within the relative error that the PTX ISA states, 2^-22 (lg2 between
0.5 and 2: absolute), rcp within one unit in the last place, sums of mma and wgmma within 2^-20 of
the sum of magnitudes (tensor cores align products to the largest and truncate; sums of small
integers must be exact), NaN equal to any NaN. What depends on the machine (%smid, %globaltimer,
order of atomics) must obey its contract instead. wgmma, stmatrix, setmaxnreg, mbarriers and boxes
are skipped where the GPU has no wgmma.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.correctness import conformance_build
from benchmarks.gpu.correctness.conformance_run import (
    EMULATED_SMS,
    OTHERS,
    Inputs,
    Library,
    floats,
    make_inputs,
    unpack_sums,
)
from benchmarks.gpu.correctness.conformance_tiles import magnitudes

MATH_RELATIVE = 2.0**-22
RCP_RELATIVE = 2.0**-23
MMA_RELATIVE = 2.0**-20
_MIN_NORMAL = 2.0**-126
# What cuda/attention.py gives the kernel at least; ids from there on share a ticket counter.
_SM_SLOTS = 256


class Comparison(NamedTuple):
    """equal, the rule that was applied, and the worst difference or what went wrong."""

    equal: bool
    rule: str
    detail: str


class Sections(NamedTuple):
    """One wrapper's words on both machines, and the inputs that they came from."""

    got: torch.Tensor
    want: torch.Tensor
    inputs: Inputs
    sms: int


def compare(
    got: dict[str, torch.Tensor], want: dict[str, torch.Tensor], inputs: Inputs, sms: int
) -> dict[str, Comparison]:
    """Comparison by section that `got` has; of the GPU with `sms` SMs, `want` of the emulator."""
    return {
        name: rule_of(name)(Sections(got[name], want[name], inputs, sms))
        for name in want
        if name not in lacking(got, want)
    }


def lacking(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> list[str]:
    """Sections that are empty in `got` only: the machine lacks these instructions."""
    return [name for name in want if len(want[name]) and not len(got[name])]


def by_wrapper(verdicts: dict[str, Comparison]) -> dict[str, bool]:
    """Whether all sections of a wrapper are equal, by its name in ptx/."""
    wrappers: dict[str, bool] = {}
    for name, verdict in verdicts.items():
        wrapper = name.split(":")[0]
        wrappers[wrapper] = wrappers.get(wrapper, True) and verdict.equal
    return wrappers


def run(backend: str, seed: int = 1) -> dict[str, Any]:
    """Compare a backend (`cuda`, or `emulator` under another schedule) with the emulator."""
    reference = Library(conformance_build.build_emulator())
    inputs = make_inputs(reference.layout, seed)
    reference.configure_emulator(num_sms=EMULATED_SMS, order=0, copies=0, seed=1)
    want = reference.run(inputs, torch.device("cpu"))
    got, sms = OTHERS[backend](reference, inputs, seed)
    verdicts = compare(got, want, inputs, sms)
    return {**_summary(verdicts, got), "skipped": skipped(got, want)}


def skipped(got: dict[str, torch.Tensor], want: dict[str, torch.Tensor]) -> dict[str, str]:
    """Why a wrapper was not compared, by its name."""
    why = f"not an instruction of this GPU; {conformance_build.WGMMA_ARCH} has it"
    return dict.fromkeys((name.split(":")[0] for name in lacking(got, want)), why)


def _summary(verdicts: dict[str, Comparison], got: dict[str, torch.Tensor]) -> dict[str, Any]:
    wrappers = by_wrapper(verdicts)
    return {
        "wrappers_equal": sum(wrappers.values()),
        "wrappers_total": len(wrappers),
        "unequal": sorted(name for name, equal in wrappers.items() if not equal),
        "sections": {name: verdict._asdict() for name, verdict in verdicts.items()},
        "smid_max": int(got["smid"].max()),
        "smid_distinct": len(set(got["smid"].tolist())),
        "nsmid": int(got["nsmid"][0]),
    }


def _same_bits(s: Sections) -> Comparison:
    return Comparison(torch.equal(s.got, s.want), "bits", f"{int((s.got != s.want).sum())} differ")


def _same_numbers(dtype: torch.dtype) -> _Rule:
    def rule(s: Sections) -> Comparison:
        got, want = s.got.view(dtype), s.want.view(dtype)
        same = (got == want) & (got.signbit() == want.signbit()) | got.isnan() & want.isnan()
        return Comparison(bool(same.all()), "bits, any NaN", f"{int((~same).sum())} differ")

    return rule


def _close(relative: float, absolute_within: tuple[float, float] | None = None) -> _Rule:
    def rule(s: Sections) -> Comparison:
        got, want = floats(s.got).double(), floats(s.want).double()
        x = floats(s.inputs.values)
        scale = want.abs()
        if absolute_within is not None:
            low, high = absolute_within
            scale = torch.where((x > low) & (x < high), 1.0, scale)
        # Around the smallest normal number the result may be flushed on one machine only.
        slack = torch.where(want.abs() < 2 * _MIN_NORMAL, _MIN_NORMAL, 0.0)
        error = (got - want).abs()
        same = (got == want) | (got.isnan() & want.isnan())
        bad = ~(same | (want.isfinite() & (error <= relative * scale + slack)))
        worst = torch.where(same, 0.0, error / scale.clamp_min(_MIN_NORMAL)).nan_to_num(1e9).max()
        detail = f"{int(bad.sum())} of {bad.numel()} outside, worst {float(worst):.3g}"
        if bool(bad.any()):
            at = int(bad.nonzero()[0])
            detail += f"; f({float(x[at])!r}) is {float(got[at])!r}, not {float(want[at])!r}"
        return Comparison(not bool(bad.any()), f"relative {relative:.3g}", detail)

    return rule


def _sums(got: torch.Tensor, want: torch.Tensor, magnitudes: torch.Tensor) -> Comparison:
    """Of products, of which the first half is exact in any order; all in double."""
    same = (got == want) | (got.isnan() & want.isnan())
    half = len(same) // 2
    relative = torch.where(same, 0.0, (got - want).abs() / magnitudes)[half:]
    exact = int((~same[:half]).sum())
    outside = int((~(relative <= MMA_RELATIVE)).sum())
    return Comparison(
        exact + outside == 0,
        f"exact sums equal, others within {MMA_RELATIVE:.3g} of the magnitudes",
        f"{exact} of {same[:half].numel()} exact sums differ; of the others {outside} outside, "
        f"worst {float(relative.max()):.3g}, {int((~same[half:]).sum())} not bit-equal",
    )


def _mma(dtype: str) -> _Rule:
    def rule(s: Sections) -> Comparison:
        a, b, c = (side[dtype].double() for side in (s.inputs.a, s.inputs.b, s.inputs.c))
        got, want = (unpack_sums(words).double() for words in (s.got, s.want))
        return _sums(got, want, c.abs() + a.abs() @ b.abs())

    return rule


def _wgmma(section: str) -> _Rule:
    def rule(s: Sections) -> Comparison:
        scale = magnitudes(s.inputs.tiles, section)
        got, want = (floats(words).double().view_as(scale) for words in (s.got, s.want))
        return _sums(got, want, scale)

    return rule


def _each_once(s: Sections) -> Comparison:
    order = torch.sort(s.got).values
    once = bool((order == torch.arange(len(order), dtype=order.dtype)).all())
    return Comparison(once, "old values are 0 .. n - 1, each once", f"{len(order)} values")


def _sm_ids(s: Sections) -> Comparison:
    low, high, seen = int(s.got.min()), int(s.got.max()), len(set(s.got.tolist()))
    fine = 0 <= low and high < max(_SM_SLOTS, 2 * s.sms) and seen <= s.sms
    return Comparison(fine, "within the slots", f"{seen} ids in {low}..{high}, {s.sms} SMs")


def _sm_count(s: Sections) -> Comparison:
    count = int(s.got[0])
    return Comparison(0 < count <= 2 * s.sms, "plausible", f"%nsmid {count}, {s.sms} SMs")


def _times(s: Sections) -> Comparison:
    words = s.got.view(-1, 2, 2).long() & 0xFFFFFFFF
    ns = words[..., 0] | words[..., 1] << 32
    span = int(ns.max() - ns.min())
    steps = ns.flatten().sort().values.diff()
    steps = steps[steps > 0]
    forward = bool((ns[:, 1] >= ns[:, 0]).all()) and 0 <= span < 10**10
    step = int(steps.min()) if len(steps) else 0
    return Comparison(forward, "never backwards", f"span {span} ns, smallest step {step} ns")


_Rule = Callable[[Sections], Comparison]
PRODUCTS = ("wgmma_ss:", "wgmma_ss_transposed:", "wgmma_rs:")
RULES: dict[str, _Rule] = {
    "max": _same_numbers(torch.float32),
    "mul2:products": _same_numbers(torch.float16),
    "widen2": _same_numbers(torch.float16),
    "ex2": _close(MATH_RELATIVE),
    "lg2": _close(MATH_RELATIVE, absolute_within=(0.5, 2.0)),
    "rcp": _close(RCP_RELATIVE),
    "mma_m16n8k16:bf16": _mma("bf16"),
    "mma_m16n8k16:fp16": _mma("fp16"),
    "atomic_add:old": _each_once,
    "smid": _sm_ids,
    "nsmid": _sm_count,
    "globaltimer": _times,
}


def rule_of(section: str) -> _Rule:
    """How a section is compared: sums of products of any width as sums, the most bit for bit."""
    if section.startswith(PRODUCTS):
        return _wgmma(section)
    return RULES.get(section, _same_bits)


def main(arguments: list[str] | None = None) -> None:
    """Print one line per section and save conformance.json."""
    parser = argparse.ArgumentParser(prog="conformance", description=(__doc__ or "").split("\n")[0])
    add_output(parser)
    options = parser.parse_args(arguments)
    result = run(options.backend)
    for name, verdict in result["sections"].items():
        mark = "equal" if verdict["equal"] else "DIFFERENT"
        print(f"{name:20s} {mark:9s} {verdict['detail']}  ({verdict['rule']})")
    for name, reason in result["skipped"].items():
        print(f"{name:20s} skipped   {reason}")
    print(f"wrappers equal: {result['wrappers_equal']} of {result['wrappers_total']}")
    Output(options.out, "conformance").save(result)
