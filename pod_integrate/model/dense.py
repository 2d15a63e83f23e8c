"""How long a step of a dense decoder takes apart from attention: a model, not a measurement.

products    of the weights: each token's FLOPs at the rate of large products, or the weights' bytes
            at the rate of DRAM, whichever takes longer
elementwise norms, activations, residuals, rotary: bytes of activations at the rate of DRAM
step        what every step takes on the host and in launches that overlap nothing

Weights are 16 bits. With tensor parallelism a rank has its part of the weights; what ranks exchange
is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pod_integrate.errors import SettingsError
from pod_integrate.model.devices import Device
from pod_integrate.terms.geometry import require_heads
from pod_integrate.terms.keys import Geometry

WEIGHT_BYTES = 2
_MOST_LAYERS = 1024
# Of the data sheet's tensor rate, in products of some hundred or thousand rows: fits steps of
# Llama-3-8B served on an H200 (python -m benchmarks.step_fit). 785 of 989 TFLOP/s were measured on
# an H100 with large square ones.
PRODUCT_SHARE = 0.7
# Reads and writes of a row of `hidden` elements in a layer: two norms, residuals, rotary, the gate.
# Assumed.
ELEMENTWISE_PASSES = 16
# Scheduling, sampling and launches of a step of SGLang with captured graphs: fits the same steps.
STEP_US = 1000.0


class DenseModel(NamedTuple):
    """One rank's part of a dense decoder.

    layers        attention layers, all alike
    hidden        width of the residual stream
    intermediate  of the gated MLP, whole model
    vocab         rows of the head, whole model
    q_heads, kv_heads, head_dim  of the whole model
    tp            ranks
    """

    layers: int
    hidden: int
    intermediate: int
    vocab: int
    q_heads: int
    kv_heads: int
    head_dim: int
    tp: int = 1

    @classmethod
    def of_config(cls, config: Mapping[str, Any], tp: int = 1) -> DenseModel:
        """Of a model's config.json.

        SettingsError for what is missing, is no size, or is not of a dense decoder of 16-bit
        weights whose layers all see the whole context.
        """
        inner = config.get("text_config", config)
        if not isinstance(inner, Mapping):
            raise SettingsError(f"text_config of config.json must be an object, got {inner!r:.60}")
        _require_plain(config)
        _require_plain(inner)
        hidden, q_heads = _size(inner, "hidden_size"), _size(inner, "num_attention_heads")
        found = cls(
            layers=_size(inner, "num_hidden_layers", most=_MOST_LAYERS),
            hidden=hidden,
            intermediate=_size(inner, "intermediate_size"),
            vocab=_size(inner, "vocab_size"),
            q_heads=q_heads,
            kv_heads=_size(inner, "num_key_value_heads", or_else=q_heads),
            head_dim=_size(inner, "head_dim", or_else=hidden // q_heads),
            tp=tp,
        )
        found.check()
        return found

    def check(self) -> None:
        """SettingsError or ShapeError for sizes that no rank can have."""
        for name, value in self._asdict().items():
            if value < 1:
                raise SettingsError(f"{name} must be at least 1, got {value}")
        require_heads(self.q_heads, self.kv_heads, self.head_dim)
        if self.q_heads % self.tp or max(self.kv_heads, self.tp) % min(self.kv_heads, self.tp):
            raise SettingsError(
                f"tensor parallel size {self.tp} does not divide {self.q_heads} query and "
                f"{self.kv_heads} KV heads"
            )

    def geometry(self, kv_dtype: str = "bf16", *, page_size: int = 1) -> Geometry:
        """What one rank's attention is."""
        return Geometry.parse(
            f"q{self.q_heads // self.tp}kv{max(1, self.kv_heads // self.tp)}d{self.head_dim}"
            f"-bf16-kv{kv_dtype}-s{page_size}-w-1-c0"
        )

    @property
    def layer_weights(self) -> float:
        """Elements of one layer on one rank."""
        kv_heads = max(self.kv_heads, self.tp)
        attention = self.hidden * self.head_dim * (2 * self.q_heads + 2 * kv_heads)
        return (attention + 3 * self.hidden * self.intermediate) / self.tp

    @property
    def head_weights(self) -> float:
        """Elements of the head on one rank."""
        return self.hidden * self.vocab / self.tp

    def step_us(self, tokens: int, answers: int, device: Device) -> float:
        """Microseconds of a step of `tokens` rows, of which `answers` reach the head."""
        layer = _product_us(self.layer_weights, tokens, device)
        touched = ELEMENTWISE_PASSES * WEIGHT_BYTES * self.hidden * tokens
        layer += touched / (device.dram_bytes * device.dram_share) * 1e6
        return STEP_US + self.layers * layer + _product_us(self.head_weights, answers, device)


def _size(
    config: Mapping[str, Any], name: str, *, or_else: int | None = None, most: int = 1 << 24
) -> int:
    value = config.get(name)
    if value is None:
        value = or_else
    if value is None:
        raise SettingsError(f"config.json of a dense decoder needs {name}")
    if type(value) is not int or not 1 <= value <= most:
        raise SettingsError(f"{name} of config.json must be 1 to {most}, got {value!r:.60}")
    return value


def _require_plain(config: Mapping[str, Any]) -> None:
    """SettingsError for a model that this one would be wrong of."""
    for name in ("num_experts", "num_local_experts", "n_routed_experts"):
        if config.get(name) not in (None, 0, 1):
            raise SettingsError(
                f"advice is for dense models, got {name} = {config[name]!r:.60}: which experts a "
                "step reads is not in a log of lengths"
            )
    if config.get("kv_lora_rank") is not None:
        raise SettingsError("advice is for grouped heads, got kv_lora_rank: latent attention (MLA)")
    if config.get("quantization_config") is not None:
        raise SettingsError(
            "advice is for weights of 16 bits, got quantization_config: take it out of config.json "
            "to ask about the unquantised model"
        )
    windowed = config.get("sliding_window") is not None and config.get("use_sliding_window", True)
    kinds = config.get("layer_types") or ["full_attention"]
    if windowed or any(kind != "full_attention" for kind in kinds):
        raise SettingsError(
            "advice is for layers that see the whole context, got sliding_window = "
            f"{config.get('sliding_window')!r:.60}, layer_types = {sorted(set(map(str, kinds)))}"
        )


def _product_us(weights: float, rows: int, device: Device) -> float:
    computed = 2.0 * weights * rows / (device.tensor_flops * PRODUCT_SHARE)
    read = WEIGHT_BYTES * weights / (device.dram_bytes * device.dram_share)
    return max(computed, read) * 1e6 if rows else 0.0


# What advice is for when it is told nothing else: Llama-3-8B's config.json.
LLAMA_3_8B = DenseModel(
    layers=32, hidden=4096, intermediate=14336, vocab=128256, q_heads=32, kv_heads=8, head_dim=128
)
