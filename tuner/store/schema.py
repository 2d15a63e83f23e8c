"""Tables of the tuner's database. Times are Unix seconds; configs and lengths are JSON text."""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 3

metadata = sa.MetaData()


def _key(*, bucket: bool = True, primary: bool = False) -> list[sa.Column[str]]:
    names = ["geometry", "device", "build"] + (["bucket"] if bucket else [])
    return [sa.Column(name, sa.String(128), nullable=False, primary_key=primary) for name in names]


meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(128), nullable=False),
)

servers = sa.Table(
    "servers",
    metadata,
    sa.Column("server", sa.String(128), primary_key=True),
    *_key(bucket=False, primary=True),
    sa.Column("table_version", sa.Integer, nullable=False),
    sa.Column("last_seen", sa.Float, nullable=False),
    sa.Column("messages", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Column("dropped", sa.BigInteger, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("hybrid", sa.BigInteger, nullable=False),
)

# `body` holds the message until the archive has it: what was acknowledged is always in one place.
messages = sa.Table(
    "messages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("server", sa.String(128), nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.String(32), nullable=False),
    sa.Column("received", sa.Float, nullable=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=True),
    sa.UniqueConstraint("server", "sequence", "digest"),
    # Ids name archive files, so that an id must never be given out twice.
    sqlite_autoincrement=True,
)

# `weight` is attention time in us, decayed: what it was worth at `updated`.
bucket_stats = sa.Table(
    "bucket_stats",
    metadata,
    *_key(primary=True),
    sa.Column("hybrid", sa.Boolean, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("steps", sa.Float, nullable=False),
    sa.Column("weight", sa.Float, nullable=False),
    sa.Column("step_weight", sa.Float, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
)

bucket_samples = sa.Table(
    "bucket_samples",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    *_key(),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("q_lens", sa.Text, nullable=False),
    sa.Column("kv_lens", sa.Text, nullable=False),
    sa.Column("attention_us", sa.Float, nullable=False),
    sa.Column("layers", sa.Integer, nullable=False),
    sa.Column("source", sa.String(8), nullable=False),
    # Decides which samples of a bucket stay; see samples.py.
    sa.Column("draw", sa.Float, nullable=False, server_default="0"),
    sa.Index("samples_by_key", "geometry", "device", "build", "bucket", "id"),
)

trials = sa.Table(
    "trials",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    *_key(),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("origin", sa.String(32), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("confirmation", sa.Integer, nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("rechecks", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
    sa.UniqueConstraint("geometry", "device", "build", "bucket", "number"),
)

pairs = sa.Table(
    "pairs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("trial_id", sa.Integer, sa.ForeignKey("trials.id"), nullable=False, index=True),
    sa.Column("phase", sa.String(32), nullable=False),
    sa.Column("baseline_us", sa.Float, nullable=False),
    sa.Column("candidate_us", sa.Float, nullable=False),
    sa.Column("batch", sa.String(8), nullable=False),
    sa.Column("time", sa.Float, nullable=False),
    # Taken by a server on its own layers, not by a worker on a replayed step.
    sa.Column("live", sa.Boolean, nullable=False, server_default=sa.false()),
)

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("alert", sa.Boolean, nullable=False),
    *_key(),
    sa.Column("trial", sa.Integer, nullable=True),
    sa.Column("config_short", sa.String(160), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("pairs", sa.Integer, nullable=False),
    sa.Column("steps", sa.Integer, nullable=False, server_default="0"),
    sa.Column("speedup", sa.Float, nullable=True),
    sa.Column("lower_bound", sa.Float, nullable=True),
    # The person behind it; empty: the tuner itself.
    sa.Column("who", sa.String(128), nullable=False, server_default=""),
)

# What must not happen until somebody says otherwise; see search/holds.py. `subject` is a server, a
# bucket or the digest of a config.
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("kind", sa.String(8), primary_key=True),
    *_key(bucket=False, primary=True),
    sa.Column("subject", sa.String(128), primary_key=True),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

# Experiments in the hands of servers: a restart of the tuner takes what they report all the same.
experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    *_key(),
    sa.Column("trial", sa.Integer, nullable=False),
    sa.Column("phase", sa.String(32), nullable=False),
    sa.Column("server", sa.String(128), nullable=False),
    sa.Column("wanted", sa.Integer, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)

tables = sa.Table(
    "tables",
    metadata,
    *_key(bucket=False, primary=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("updated", sa.Float, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)

history = sa.Table(
    "history",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("records", sa.BigInteger, nullable=False),
    sa.Column("trials", sa.BigInteger, nullable=False),
    sa.Column("promotions", sa.BigInteger, nullable=False),
    sa.Column("attention_us_default", sa.Float, nullable=True),
    sa.Column("attention_us_tuned", sa.Float, nullable=True),
)
