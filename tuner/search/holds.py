"""What must not happen until further notice: paused servers, pinned buckets, barred configs.

    pause  a server (or a worker, or `*` for all) gets nothing to measure
    pin    a bucket keeps what is in force: nothing is measured there, nothing changes it
    bar    a config computed something wrong or broke a server: it is used nowhere in its scope
    kill   the default runs everywhere, and everybody is paused, until everybody is resumed

All of it outlives the process. People's words are filed as decisions too, with their name.
"""

from __future__ import annotations

import hashlib
import logging
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.config import PodConfig
from tuner.messages import EVERYONE, MAX_REASON, Scope, StudyKey
from tuner.store import schema
from tuner.store.rows import Decision, DecisionKind, add_decision
from tuner.store.storage import Store, upsert

logger = logging.getLogger(__name__)

_NOWHERE = Scope("", "", "")


class Who(NamedTuple):
    """A person who decides, and why; the name is what they say it is."""

    name: str
    why: str = ""


class Holds:
    """The holds of one tuner; `load` reads them, all others write before they count."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._paused: set[str] = set()
        self._pinned: set[StudyKey] = set()
        self._barred: dict[Scope, set[PodConfig]] = {}
        # No table has entries now.
        self.killed = False

    def load(self, tx: sa.Connection) -> None:
        """Read what an earlier process held."""
        for row in tx.execute(sa.select(schema.holds)):
            scope = Scope(row.geometry, row.device, row.build)
            if row.kind == "pause":
                self._paused.add(row.subject)
            elif row.kind == "pin":
                self._pinned.add(StudyKey(*scope, row.subject))
            elif row.kind == "kill":
                self.killed = True
            else:
                self._load_bar(scope, row.config)

    def _load_bar(self, scope: Scope, text: str) -> None:
        try:
            config = PodConfig.from_dict(msgspec.json.decode(text))
        except (msgspec.DecodeError, PodAttentionError) as error:
            logger.error("a barred config of %s is unreadable: %s", scope, error)
            return
        self._barred.setdefault(scope, set()).add(config)

    @property
    def paused(self) -> list[str]:
        """Who is paused, `*` for all."""
        return sorted(self._paused)

    def is_paused(self, name: str) -> bool:
        """Whether a server or worker gets nothing to measure."""
        return bool(self._paused & {EVERYONE, name})

    def is_pinned(self, key: StudyKey) -> bool:
        """Whether nothing may change a bucket's entry."""
        return key in self._pinned

    def barred(self, scope: Scope) -> frozenset[PodConfig]:
        """Configs that are used nowhere in a scope."""
        return frozenset(self._barred.get(scope, ()))

    def pause(self, server: str, who: Who, now: float) -> None:
        """Give `server` (EVERYONE: nobody) nothing to measure any more."""
        with self._store.begin() as tx:
            _hold(tx, "pause", _NOWHERE, server, who.why, now)
            _file(tx, "pause", StudyKey(*_NOWHERE, ""), f"{_name(server)} paused", who, now)
        self._paused.add(server)

    def kill(self, who: Who, now: float) -> None:
        """Pause everybody, and keep what is in force out of use."""
        with self._store.begin() as tx:
            for kind in ("pause", "kill"):
                _hold(tx, kind, _NOWHERE, EVERYONE, who.why, now)
            said = "the default runs everywhere"
            _file(tx, "kill", StudyKey(*_NOWHERE, ""), said, who, now, alert=True)
        self._paused.add(EVERYONE)
        self.killed = True

    def resume(self, server: str, who: Who, now: float) -> bool:
        """End a pause; that of EVERYONE ends all, and what `kill` did. False: there was none."""
        ended = set(self._paused) if server == EVERYONE else self._paused & {server}
        if not ended:
            return False
        with self._store.begin() as tx:
            for name in ended:
                _release(tx, "pause", _NOWHERE, name)
            if EVERYONE in ended:
                _release(tx, "kill", _NOWHERE, EVERYONE)
            _file(tx, "resume", StudyKey(*_NOWHERE, ""), f"{_name(server)} resumed", who, now)
        self._paused -= ended
        self.killed = self.killed and EVERYONE not in ended
        return True

    def pin(self, key: StudyKey, who: Who, now: float) -> None:
        """Keep what is in force for a bucket."""
        with self._store.begin() as tx:
            _hold(tx, "pin", key.scope, key.bucket, who.why, now)
            _file(tx, "pin", key, "what is in force stays", who, now)
        self._pinned.add(key)

    def unpin(self, key: StudyKey, who: Who, now: float) -> bool:
        """Tune a bucket again; False when it was not pinned."""
        if key not in self._pinned:
            return False
        with self._store.begin() as tx:
            _release(tx, "pin", key.scope, key.bucket)
            _file(tx, "unpin", key, "tuned again", who, now)
        self._pinned.discard(key)
        return True

    def bar(self, scope: Scope, config: PodConfig, reason: str, now: float) -> None:
        """Use a config nowhere in a scope any more."""
        text = msgspec.json.encode(config.to_dict()).decode()
        with self._store.begin() as tx:
            digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            _hold(tx, "bar", scope, digest, reason, now, config=text)
        self._barred.setdefault(scope, set()).add(config)
        logger.error("config barred in %s: %s: %s", scope, config.short(), reason)


def _name(server: str) -> str:
    return "every server and worker" if server == EVERYONE else server


def _hold(
    tx: sa.Connection, kind: str, scope: Scope, subject: str, reason: str, now: float,
    config: str = "",
) -> None:  # fmt: skip
    row = {"kind": kind, **scope._asdict(), "subject": subject}
    values = {"config": config, "since": now, "reason": reason[:MAX_REASON]}
    upsert(tx, schema.holds, row | values, values)


def _release(tx: sa.Connection, kind: str, scope: Scope, subject: str) -> None:
    c = schema.holds.c
    here = [getattr(c, name) == value for name, value in scope._asdict().items()]
    tx.execute(sa.delete(schema.holds).where(c.kind == kind, c.subject == subject, *here))


def _file(
    tx: sa.Connection, kind: DecisionKind, key: StudyKey, what: str, who: Who, now: float,
    alert: bool = False,
) -> None:  # fmt: skip
    reason = f"{what}: {who.why}" if who.why else what
    add_decision(tx, Decision(now, kind, key, reason, alert=alert, who=who.name))
