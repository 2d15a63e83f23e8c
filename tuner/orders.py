"""What people may tell the tuner to do, as they post it. Each order is filed with their name."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec

from pod_integrate.errors import ShapeError
from pod_integrate.terms import wire
from pod_integrate.terms.table import ConfigTable
from tuner.messages import EVERYONE, Posted, StudyKey

_Why = Annotated[str, msgspec.Meta(max_length=500, pattern="^[^\0]*$")]


class Order(Posted, frozen=True, kw_only=True):
    """An order.

    who  the person's name, as they say it
    why  what the decision will say
    """

    called = "order"
    who: wire.Key
    why: _Why = ""


class ServerOrder(Order, frozen=True, kw_only=True):
    """Pause or resume a server or a worker by its id; `*` stands for all."""

    server: wire.Key = EVERYONE


class BucketOrder(Order, frozen=True, kw_only=True):
    """About one bucket."""

    geometry: wire.Key
    device: wire.Key
    build: wire.Key
    bucket: wire.Key

    @property
    def key(self) -> StudyKey:
        """The bucket's study."""
        return StudyKey(self.geometry, self.device, self.build, self.bucket)

    def _check(self) -> None:
        self.key.parsed()


class PromoteOrder(BucketOrder, frozen=True, kw_only=True):
    """Put a trial in force."""

    trial: wire.Number


class PinOrder(BucketOrder, frozen=True, kw_only=True):
    """Keep what is in force, or, with `pinned` false, tune again."""

    pinned: bool = True


class TableOrder(Order, frozen=True, kw_only=True):
    """Put the configs of an exported table in force; `table` is the document of its file."""

    table: dict[str, Any]

    def parsed(self) -> ConfigTable:
        """The table; raises TableError where it is malformed or its checksum wrong."""
        return ConfigTable.from_json(msgspec.json.encode(self.table))

    def _check(self) -> None:
        if not self.table.get("checksum"):
            raise ShapeError("the table has no checksum: `pod-attn table export` adds one")
        self.parsed()


class Answer(NamedTuple):
    """Whether an order was carried out, and what was done or why it was not."""

    done: bool
    text: str
