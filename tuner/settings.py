"""Every knob of the tuner, read from POD_TUNER_* variables or set in code."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
import pydantic
import sqlalchemy as sa
from pydantic_settings import BaseSettings, SettingsConfigDict

from pod_integrate.errors import SettingsError
from pod_integrate.settings import header_token
from pod_integrate.terms.table import MIN_STEPS

_Seconds = Annotated[float, pydantic.Field(gt=0, le=30 * 86400)]
_Count = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]


def _data_dir() -> Path:
    return platformdirs.user_data_path("pod-attention") / "tuner"


class TunerSettings(BaseSettings):
    """Settings of one tuner; each field reads POD_TUNER_<NAME>. Use `load` in start-up code.

    An empty variable is as good as an unset one.

    data_dir          where the default database and trace archive live
    database_url      SQLAlchemy URL; empty: sqlite file `tuner.db` in data_dir
    trace_dir         Parquet archive of traces; empty: `traces` in data_dir
    archive_bytes     the archive's oldest files go once it is larger than this
    host, port        where HTTP listens; beyond loopback a token is required
    token             bearer token that every write must carry; empty: none
    workers           measuring processes on this machine; 0: only ingest and serve tables
    worker_device     what they measure on: `cpu`, `cuda` (the current GPU), or `auto`: a GPU where
                      there is one
    nice              added to the niceness of measuring processes, so that servers go first
    seed              of samplers and random inputs
    trials            trials of one bucket's study before it rests
    revisit_trials    trials added each time a resting bucket is opened again
    revisit_seconds   how long a bucket rests
    recheck_seconds   how long at most until a promoted config is measured against the default
                      again; the first time after a sixteenth of it, then twice as long each time
    screen_steps      distinct steps that every candidate is screened on
    confirm_steps     distinct steps at most to decide on one promotion, others than those
    step_pairs        interleaved pairs of each step; their median is one observation
    slice_seconds     measuring time of one task
    lease_seconds     a task not reported by then is given to another worker
    experiment_seconds  an experiment that its server has not reported on for so long is over
    min_speedup       a promotion needs at least this median speed-up
    confidence        of promotions and of the lower bound they state, over all candidates of
                      one bucket together
    half_life_seconds traffic older than this counts half
    retain_seconds    what nobody runs or decides by for so long is forgotten: buckets without a
                      promoted config, pairs of trials that are over, servers, routine decisions
    max_buckets       beyond so many the lightest are forgotten too
    min_steps         traced steps that a bucket needs before it is tuned; of these at least
                      MIN_STEPS + screen_steps must differ
    """

    model_config = SettingsConfigDict(
        env_prefix="POD_TUNER_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Path = pydantic.Field(default_factory=_data_dir)
    # May hold a password.
    database_url: Annotated[str, pydantic.Field(repr=False)] = ""
    trace_dir: Path | None = None
    archive_bytes: Annotated[int, pydantic.Field(ge=1 << 20)] = 1 << 30
    host: str = "127.0.0.1"
    port: Annotated[int, pydantic.Field(ge=0, le=65535)] = 8421
    token: Annotated[pydantic.SecretStr, pydantic.AfterValidator(header_token)] = (
        pydantic.SecretStr("")
    )
    workers: Annotated[int, pydantic.Field(ge=0, le=64)] = 1
    worker_device: Literal["auto", "cpu", "cuda"] = "auto"
    nice: Annotated[int, pydantic.Field(ge=0, le=19)] = 10
    seed: Annotated[int, pydantic.Field(ge=0, lt=1 << 31)] = 0
    trials: _Count = 24
    revisit_trials: _Count = 8
    revisit_seconds: _Seconds = 1800.0
    recheck_seconds: _Seconds = 600.0
    screen_steps: Annotated[int, pydantic.Field(ge=2, le=32)] = 4
    confirm_steps: Annotated[int, pydantic.Field(ge=MIN_STEPS, le=1000)] = 40
    step_pairs: Annotated[int, pydantic.Field(ge=1, le=100)] = 4
    slice_seconds: Annotated[float, pydantic.Field(gt=0, le=30)] = 0.8
    lease_seconds: _Seconds = 120.0
    experiment_seconds: Annotated[float, pydantic.Field(ge=5, le=86400)] = 300.0
    min_speedup: Annotated[float, pydantic.Field(ge=1.0, le=10.0)] = 1.02
    confidence: Annotated[float, pydantic.Field(gt=0.5, lt=1.0)] = 0.98
    half_life_seconds: _Seconds = 900.0
    retain_seconds: Annotated[float, pydantic.Field(ge=3600, le=3650 * 86400)] = 7 * 86400.0
    max_buckets: Annotated[int, pydantic.Field(ge=100, le=1_000_000)] = 20_000
    min_steps: _Count = MIN_STEPS + 4

    @pydantic.field_validator("database_url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        try:
            if value:
                sa.make_url(value)
        except (sa.exc.ArgumentError, ValueError) as error:
            # Without its text, which may quote a password.
            raise ValueError(
                "is no SQLAlchemy URL; expected e.g. postgresql+psycopg://user@host/name, or leave "
                "it out for SQLite"
            ) from error
        return value

    @pydantic.model_validator(mode="after")
    def _token_beyond_loopback(self) -> Self:
        if not is_loopback(self.host) and not self.token.get_secret_value():
            raise ValueError(
                f"host {self.host!r} is reachable from other machines: set POD_TUNER_TOKEN "
                "(servers send it as POD_ATTN_TUNER_TOKEN) or bind 127.0.0.1"
            )
        return self

    @property
    def url(self) -> str:
        """The database in use as a SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.data_dir / 'tuner.db'}"

    @property
    def archive_dir(self) -> Path:
        """The trace archive in use."""
        return self.trace_dir or self.data_dir / "traces"

    @property
    def alpha(self) -> float:
        """1 - confidence."""
        return 1.0 - self.confidence


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(**overrides: Any) -> TunerSettings:
    """Settings from the environment, `overrides` first.

    Raises SettingsError that names the variable.
    """
    try:
        return TunerSettings(**overrides)
    except pydantic.ValidationError as error:
        lines = []
        for item in error.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in item["loc"]).upper()
            lines.append((f"POD_TUNER_{name}: " if name else "") + item["msg"])
        raise SettingsError("; ".join(lines)) from error
