"""What fits the GPUs that the CUDA kernel is compiled for: tiles, shared memory, registers."""

from __future__ import annotations

from pod_integrate.devices.cuda.architectures import ARCHITECTURES as ARCHITECTURES
from pod_integrate.devices.cuda.architectures import Architecture as Architecture
from pod_integrate.devices.cuda.architectures import PrefillEngine as PrefillEngine
from pod_integrate.devices.cuda.architectures import architecture as architecture
from pod_integrate.devices.cuda.decode_rows import DECODE_ROWS as DECODE_ROWS
from pod_integrate.devices.cuda.decode_rows import FEW_ROWS as FEW_ROWS
from pod_integrate.devices.cuda.decode_rows import require_decode_rows, require_group
from pod_integrate.devices.cuda.default_tiles import default_tiles as default_tiles
from pod_integrate.devices.cuda.default_tiles import pair_tiles as pair_tiles
from pod_integrate.devices.cuda.engines import GROUP_THREADS as GROUP_THREADS
from pod_integrate.devices.cuda.engines import decode_engine as decode_engine
from pod_integrate.devices.cuda.engines import pair_decodes as pair_decodes
from pod_integrate.devices.cuda.engines import prefill_engine as prefill_engine
from pod_integrate.errors import ConfigInfeasibleError, ShapeError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, DeviceKey, Geometry

HEAD_DIMS = (64, 96, 128, 256)
REGISTERS = 65536
MAX_THREAD_REGISTERS = 255
# Of every CTA: what the driver keeps, and room for static variables (in units of 128 bytes).
RESERVED_BYTES = 1024
STATIC_BYTES = 128
_PAIR_STATIC_BYTES = 768  # of a CTA that stays: items ahead of those that run
# So that the first panel of wgmma operands can start at a multiple of 1024 bytes.
_SLACK: dict[PrefillEngine, int] = {"mma": 0, "wgmma": 1008, "pair": 1008}
# Where panels of weights begin, and what decode warps on wgmma tell each other.
_PANELS, _NOTES = 1024, 512
_MERGE_COLUMNS = 10  # m, l, and padding against bank conflicts
_MAX_VIRTUAL_DECODE = 8
_MAX_CTA_WARPS = 16
# Addresses, masks, softmax state and operand fragments beside the accumulators.
_OTHER_REGISTERS = 48


def smem_bytes(
    config: PodConfig, head_dim: int, kv_bytes: int = 2, *, places: int = 0
) -> tuple[int, int]:
    """Dynamic shared memory of a CTA that runs (a prefill item, virtual_decode decode items).

    As smem.h has it: Q of two bytes per element and the stages of K and V of `kv_bytes`; decode
    warps reuse the stages to merge their fp32 partial results. Decode has so many `places` more for
    a tile of K or V.
    """
    p, d = config.prefill, config.decode
    prefill = 2 * head_dim * (p.q_rows + kv_bytes * p.stages * p.kv_rows)
    stages = kv_bytes * head_dim * (2 * d.stages + places) * d.kv_rows
    merge = d.warps * d.q_rows * (head_dim + _MERGE_COLUMNS) * 4 if d.warps > 1 else 0
    return prefill, config.virtual_decode * (2 * head_dim * d.q_rows + max(stages, merge))


def cta_smem_bytes(
    config: PodConfig, arch: Architecture, head_dim: int, kv_bytes: int = 2
) -> tuple[int, int]:
    """smem_bytes as a launch of one op asks for it: with room to align what wgmma reads."""
    engine = prefill_engine(config, arch, head_dim, kv_bytes)
    columns = decode_engine(config, arch, head_dim, kv_bytes) == "wgmma"
    places = int(engine == "pair" and columns)
    prefill, decode = smem_bytes(config, head_dim, kv_bytes, places=places)
    if engine != "mma" and kv_bytes == 1:
        p = config.prefill
        # Two bytes per element, and where the one byte of each lands before it is widened.
        landing = 2 * p.kv_rows * head_dim - 16 * GROUP_THREADS
        prefill = smem_bytes(config, head_dim)[0] + landing
    if columns:
        # Weights have two places where decode's keys come a tile ahead of its values.
        turns = 2 if engine == "pair" and config.decode.stages == 2 else 1
        weights = turns * 2 * config.decode.q_rows * config.decode.kv_rows
        decode = -(-decode // _PANELS) * _PANELS + weights + _NOTES + _SLACK[engine]
    return prefill + _SLACK[engine], decode


def fused_smem_bytes(
    config: PodConfig, arch: Architecture, head_dim: int, kv_bytes: int = 2
) -> int:
    """Dynamic shared memory of a CTA that may run either op, or runs both."""
    prefill, decode = cta_smem_bytes(config, arch, head_dim, kv_bytes)
    if prefill_engine(config, arch, head_dim, kv_bytes) != "pair":
        return max(prefill, decode)
    slack = _SLACK["pair"]
    if pair_decodes(head_dim, kv_bytes):
        return prefill + decode - slack
    # A decode item of either warpgroup, panels first, in the place of the prefill item.
    item = decode - slack * (decode_engine(config, arch, head_dim, kv_bytes) == "wgmma")
    return max(prefill, 2 * -(-item // _PANELS) * _PANELS + slack)


def cta_warps(config: PodConfig) -> int:
    """Warps of a CTA that run items, of either op; not those that copy for wgmma."""
    return max(config.prefill.warps, config.virtual_decode * config.decode.warps)


def require_feasible(config: PodConfig, device: DeviceKey, geometry: Geometry) -> None:
    """Raise ConfigInfeasibleError with the arithmetic when `config` does not fit a GPU.

    KernelUnavailableError when the GPU has no compiled target, ShapeError for a head dim without
    a kernel; the dtype is Variant.of's to check.
    """
    arch = architecture(device.capability)
    require_head_dim(geometry.head_dim)
    require_group(config, geometry)
    require_fits(config, arch, geometry.head_dim, ELEMENT_BYTES[geometry.kv_dtype])


def require_head_dim(head_dim: int) -> None:
    """Raise ShapeError for a head dim that the CUDA kernel is not compiled for."""
    if head_dim not in HEAD_DIMS:
        raise ShapeError(
            f"head dim must be one of {HEAD_DIMS} on a GPU, got {head_dim}. Pad the heads to the "
            "next of these, or move the tensors to the CPU"
        )


def require_fits(config: PodConfig, arch: Architecture, head_dim: int, kv_bytes: int = 2) -> None:
    """Raise ConfigInfeasibleError unless tiles divide, shared memory and registers suffice."""
    pair = prefill_engine(config, arch, head_dim, kv_bytes) == "pair"
    require_decode_rows(config, arch, head_dim, kv_bytes)
    _require_shapes(config, GROUP_THREADS // 32 if pair else config.prefill.warps)
    _require_warps(config, arch)
    if pair:
        need = fused_smem_bytes(config, arch, head_dim, kv_bytes)
        _require_pair_smem(config, arch, need, pair_decodes(head_dim, kv_bytes))
    else:
        _require_smem(config, arch, cta_smem_bytes(config, arch, head_dim, kv_bytes))
    _require_registers(config, head_dim, accumulators(config, arch, head_dim, kv_bytes))


def accumulators(
    config: PodConfig, arch: Architecture, head_dim: int, kv_bytes: int = 2
) -> tuple[int, int]:
    """Registers of a thread for scores and O of a (prefill, decode) item: fp32, without operands.

    On wgmma a decode item's rows are the columns of products whose rows are 64 keys, or columns
    of V.
    """
    p, d = config.prefill, config.decode
    blocks = p.q_rows // (16 * p.warps)
    decode = {
        "mma": (head_dim + d.kv_rows // d.warps) // 2,
        "wgmma": (-(-head_dim // 64) * 64 + d.kv_rows) * d.q_rows // GROUP_THREADS,
    }[decode_engine(config, arch, head_dim, kv_bytes)]
    return blocks * (head_dim + p.kv_rows) // 2, decode


def default_config(device: DeviceKey, geometry: Geometry) -> PodConfig:
    """A good config before anything was tuned; always feasible on `device`."""
    require_head_dim(geometry.head_dim)
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    return default_tiles(architecture(device.capability), geometry.head_dim, kv_bytes)


def _require_shapes(config: PodConfig, copying: int) -> None:
    # `copying` warps bring the keys of a prefill tile.
    p, d, v = config.prefill, config.decode, config.virtual_decode
    if p.q_rows not in (16 * p.warps, 32 * p.warps):
        _refuse(
            f"prefill.q_rows is {p.q_rows} with {p.warps} prefill.warps; a warp owns 16 or 32 rows",
            f"Set prefill.q_rows to {16 * p.warps} or {32 * p.warps}, or change prefill.warps",
        )
    for name, tile, unit in (("prefill", p, 8 * copying), ("decode", d, 16 * d.warps)):
        if tile.kv_rows % unit:
            _refuse(
                f"{name}.kv_rows is {tile.kv_rows}; with {tile.warps} {name}.warps it must be a "
                f"multiple of {unit}",
                f"Set {name}.kv_rows to {-(-tile.kv_rows // unit) * unit} or lower {name}.warps",
            )
    if v > _MAX_VIRTUAL_DECODE:
        _refuse(
            f"virtual_decode is {v}; a CTA takes at most {_MAX_VIRTUAL_DECODE} decode items",
            "Lower virtual_decode",
        )


def _require_warps(config: PodConfig, arch: Architecture) -> None:
    warps = cta_warps(config)
    text = (
        f"a CTA needs {warps} warps: the larger of prefill.warps ({config.prefill.warps}) and "
        f"virtual_decode x decode.warps ({config.virtual_decode} x {config.decode.warps})"
    )
    if warps > _MAX_CTA_WARPS:
        _refuse(f"{text}; the limit is {_MAX_CTA_WARPS}", "Lower virtual_decode or decode.warps")
    if warps * config.ctas_per_sm > arch.warps_per_sm:
        _refuse(
            f"{text}; {arch.name} holds {arch.warps_per_sm} per SM, {config.ctas_per_sm} CTAs "
            f"need {warps * config.ctas_per_sm}",
            f"Lower ctas_per_sm ({config.ctas_per_sm}) or the warps",
        )


def _require_smem(config: PodConfig, arch: Architecture, need: tuple[int, int]) -> None:
    prefill, decode = need
    limit = min(
        (arch.smem_per_sm << 10) // config.ctas_per_sm - RESERVED_BYTES, arch.smem_per_cta << 10
    )
    name, tile, most = ("prefill", config.prefill, prefill)
    if decode > prefill:
        name, tile, most = ("decode", config.decode, decode)
    if most + STATIC_BYTES <= limit:
        return
    several = name == "decode" and config.virtual_decode > 1
    remedies = [f"{name}.stages ({tile.stages})"] if tile.stages > 1 else []
    remedies.append(f"{name}.kv_rows ({tile.kv_rows})")
    if several:
        remedies.append(f"virtual_decode ({config.virtual_decode})")
    what = f"{config.virtual_decode} decode tiles need" if several else f"{name} tile needs"
    _refuse(
        f"{what} {_kib(most)} of shared memory and {STATIC_BYTES} B of static variables; "
        f"{arch.name} leaves {_kib(limit)} per CTA at ctas_per_sm={config.ctas_per_sm}",
        f"Lower {' or '.join(remedies)}",
    )


def _require_pair_smem(config: PodConfig, arch: Architecture, need: int, beside: bool) -> None:
    limit = arch.smem_per_cta << 10
    if need + _PAIR_STATIC_BYTES > limit:
        what = "prefill and decode tile need" if beside else "prefill tile or two decode tiles need"
        _refuse(
            f"{what} {_kib(need)} of shared memory{' side by side' if beside else ''} and "
            f"{_PAIR_STATIC_BYTES} B of static variables; {arch.name} leaves {_kib(limit)} per CTA",
            f"Lower decode.kv_rows ({config.decode.kv_rows}), decode.stages "
            f"({config.decode.stages}) or prefill.kv_rows ({config.prefill.kv_rows})",
        )


def _require_registers(config: PodConfig, head_dim: int, needs: tuple[int, int]) -> None:
    threads = 32 * cta_warps(config)
    # The compiler allots registers in units of 8 per thread.
    limit = min(MAX_THREAD_REGISTERS, REGISTERS // (threads * config.ctas_per_sm) // 8 * 8)
    prefill, decode = needs
    name, tile = ("prefill", config.prefill) if prefill >= decode else ("decode", config.decode)
    if max(needs) + _OTHER_REGISTERS > limit:
        _refuse(
            f"{name} tile needs {max(needs)} accumulator registers per thread and about "
            f"{_OTHER_REGISTERS} others at head dim {head_dim}; {threads} threads x "
            f"{config.ctas_per_sm} CTAs leave {limit}",
            f"Lower ctas_per_sm ({config.ctas_per_sm}), {name}.kv_rows ({tile.kv_rows}) or the "
            f"rows per warp of the {name} tile",
        )


def _kib(count: int) -> str:
    return f"{count / 1024:.1f}".removesuffix(".0") + " KiB"


def _refuse(what: str, remedy: str) -> None:
    raise ConfigInfeasibleError(f"{what}. {remedy}")
