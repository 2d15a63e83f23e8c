"""What Python packs is what C++ unpacks: the same fields, in one order, of one size."""

from __future__ import annotations

import dataclasses
import re
import struct

import pytest
import torch

from pod_integrate.builds import native
from pod_integrate.terms.config import PodConfig, TileConfig, flatten_config, pack_config
from pod_integrate.terms.scalars import TYPES, Scalars

HEADER = native.common_dir() / "include" / "pod" / "common" / "packed.h"
CONFIG = PodConfig(
    prefill=TileConfig(q_rows=16, kv_rows=32, stages=3, warps=4),
    decode=TileConfig(q_rows=48, kv_rows=64, stages=7, warps=8),
    ctas_per_sm=5,
    prefill_ctas=10,
    decode_ctas=11,
    max_prefill_waves=12,
    decode_split_tokens=208,
    virtual_decode=14,
    strategy="streams",
)


def fields(struct_name: str) -> list[tuple[str, str]]:
    """(type, name) of each field of a struct of the header, in its order."""
    body = re.search(rf"struct {struct_name} {{(.*?)}};", HEADER.read_text(), re.DOTALL)
    assert body is not None
    return re.findall(r"(\w+) (\w+);", body[1])


def test_scalars_have_the_fields_of_the_native_struct() -> None:
    kinds = {"double": float, "int64_t": int}
    native_fields = fields("Scalars")
    assert [name for _, name in native_fields] == list(Scalars._fields)
    assert tuple(kinds[kind] for kind, _ in native_fields) == TYPES
    assert Scalars(1.5, 7, 2.5, 3.5, 4.5).pack() == struct.pack("<dqddd", 1.5, 7, 2.5, 3.5, 4.5)


@pytest.mark.parametrize("kind", [TileConfig, PodConfig])
def test_configs_have_the_fields_of_the_native_structs(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    native_fields = fields(kind.__name__)
    assert [name for _, name in native_fields] == names
    types = {name: type_ for type_, name in native_fields}
    tiles = {name for name, type_ in types.items() if type_ == "TileConfig"}
    assert tiles == ({"prefill", "decode"} if kind is PodConfig else set())
    assert {types[name] for name in types.keys() - tiles} == {"int32_t"}


def test_a_packed_config_is_its_numbers_in_their_order() -> None:
    tiles = [16, 32, 3, 4, 48, 64, 7, 8]
    assert flatten_config(CONFIG) == [*tiles, 5, 10, 11, 12, 208, 14, 2]
    assert pack_config(CONFIG) == struct.pack("<15i", *flatten_config(CONFIG))


@pytest.mark.parametrize("kind", ["cpu", "host"])
def test_a_library_refuses_what_was_packed_by_other_fields(kind: native.Kind) -> None:
    lengths = (torch.tensor([0, 1], dtype=torch.int32), torch.tensor([5], dtype=torch.int32))
    short = pack_config(CONFIG)[:52]
    more = {
        "cpu": (4, 2, 64, 128, -1, short, 1),
        "host": (4, 2, 64, 2, -1, short, 2, 0, torch.zeros(99, dtype=torch.int32)),
    }
    with pytest.raises(ValueError, match="must be 60 bytes, got 52"):
        native.load(kind).plan(*lengths, *more[kind])
