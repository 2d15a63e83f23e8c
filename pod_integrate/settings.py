"""Environment of a serving process: POD_ATTN_* variables, checked once and typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pod_integrate.errors import SettingsError
from pod_integrate.redact import redact

PREFIX = "POD_ATTN_"
Isa = Literal["avx512", "avx2", "portable"]


def header_token(token: SecretStr) -> SecretStr:
    """`token`; raises ValueError, without quoting it, where an HTTP header cannot carry it."""
    if not all("!" <= letter <= "~" for letter in token.get_secret_value()):
        raise ValueError(
            "a token is sent in an HTTP header: use visible ASCII letters without spaces, such as "
            "those of `openssl rand -hex 32`"
        )
    return token


class Settings(BaseSettings):
    """What POD_ATTN_<NAME> says; every field may be left out, and an empty value leaves it out.

    tuner_url     base URL of the tuner; none: nothing is sent, the saved table or defaults apply
    tuner_token   bearer token for the tuner's write endpoints
    trace_sample  share of steps traced, 0..1
    experiments   share of steps, and of time, that the tuner's experiments may take; 0: none
    table         file that keeps the last good config table over restarts
    shipped_tables  whether tables that come with the package act where no other has an entry
    threads       threads of the CPU kernel; default torch.get_num_threads()
    isa           force a lower instruction set of the CPU kernel than the machine offers
    cache_dir     where compiled kernels are kept; default the user's cache folder
    poll_seconds  pause between two questions for a newer table
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    tuner_url: str | None = Field(default=None, repr=False)
    tuner_token: Annotated[SecretStr, AfterValidator(header_token)] | None = None
    trace_sample: float = Field(default=0.25, ge=0.0, le=1.0, allow_inf_nan=False)
    experiments: float = Field(default=0.02, ge=0.0, le=1.0, allow_inf_nan=False)
    table: Path | None = None
    shipped_tables: bool = True
    threads: int | None = Field(default=None, ge=1, le=1024)
    isa: Isa | None = None
    cache_dir: Path | None = None
    poll_seconds: float = Field(default=5.0, ge=0.1, le=3600.0, allow_inf_nan=False)

    @field_validator("tuner_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/") if value is not None else None


def load() -> Settings:
    """Read the environment; raises SettingsError that names each malformed variable."""
    try:
        return Settings()
    except ValidationError as error:
        # The token is left out, and what a URL has of one: they must not reach a log.
        places = "; ".join(
            f"{PREFIX}{str(item['loc'][0]).upper()}"
            + ("" if item["loc"][0] == "tuner_token" else f"={redact(repr(item['input']))}")
            + f": {item['msg']}"
            for item in error.errors()
        )
        raise SettingsError(f"{places}; correct or unset it") from None
