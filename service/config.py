"""The settings: the only reader of the environment."""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

# In milliseconds they must fit 32 bits, for gRPC and for PostgreSQL.
Seconds = Annotated[float, Field(gt=0, le=2_000_000, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=2_000_000, allow_inf_nan=False)]
# Also the largest number that gRPC takes.
Count = Annotated[int, Field(ge=1, lt=2**31)]


class SettingsError(ValueError):
    """A setting is missing or wrong; the message names it and holds no value."""


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="COMMERCE_", extra="ignore", frozen=True, populate_by_name=True)


class DatabaseSettings(_Settings):
    """How to reach PostgreSQL, and how long things may take."""

    database_url: SecretStr = Field(
        alias="DATABASE_URL",
        description="PostgreSQL to store everything in, `postgresql://user:password@host/database`",
    )
    db_pool_size: Count = Field(10, description="connections at most")
    db_pool_timeout: Seconds = Field(5, description="seconds to wait for a free connection")
    db_connect_timeout: Seconds = Field(2, description="seconds to wait for a new connection")
    db_statement_timeout: Seconds = Field(30, description="seconds that any statement may take")
    db_pooler: Literal["none", "transaction"] = Field(
        "none",
        description="what is in front of PostgreSQL: `transaction` for PgBouncer in transaction mode",
    )


class LogSettings(_Settings):
    """What to log, and how."""

    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, else JSON"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level to log")


class PasswordSettings(_Settings):
    """How passwords are hashed."""

    argon2_time_cost: Count = Field(2, description="argon2id passes")
    argon2_parallelism: Count = Field(1, description="argon2id lanes")
    argon2_memory_kib: Count = Field(19456, description="argon2id memory in KiB, at least 8 for each lane")
    password_threads: Count = Field(2, description="passwords hashed at once")
    password_queue: Count = Field(64, description="passwords that may wait before callers are told to come back")

    @field_validator("argon2_memory_kib")
    @classmethod
    def _enough_for_each_lane(cls, memory: int, info: ValidationInfo) -> int:
        lanes = info.data.get("argon2_parallelism", 1)
        if memory < 8 * lanes:
            raise PydanticCustomError("argon2_memory", "Input should be at least 8 for each lane")
        return memory


class WatchSettings(_Settings):
    """How watches get their events."""

    watch_poll_interval: Seconds = Field(
        0.02, description="seconds between two looks for new events, while anybody watches"
    )
    watch_queue: Count = Field(1000, description="events that may wait for one watcher to read them")
    watch_patience: Seconds = Field(
        10, description="seconds in which a watcher must read a full queue; one that takes longer is dropped"
    )
    watch_checkpoint_interval: Seconds = Field(5, description="seconds without an event until a watcher hears of it")
    watch_catch_ups: Count = Field(
        2, description="watchers at once that read past events; each takes a connection more than `db_pool_size`"
    )


class ReplicaSettings(_Settings):
    """What may be read from a replica, and how far behind that may be."""

    read_database_url: SecretStr | None = Field(
        None,
        alias="READ_DATABASE_URL",
        description="streaming replica of the PostgreSQL at `DATABASE_URL`, for reads that may be a little old",
    )
    read_preference: Literal["primary", "replica"] = Field(
        "primary", description="where reads go whose callers send no `x-read-preference`"
    )
    max_replica_lag: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = Field(
        1, description="seconds that a replica may be behind; when it is more, reads go to the primary"
    )

    @field_validator("read_preference")
    @classmethod
    def _replica_to_prefer(cls, preference: str, info: ValidationInfo) -> str:
        if preference == "replica" and info.data.get("read_database_url") is None:
            raise PydanticCustomError("read_preference", "there is no replica without READ_DATABASE_URL")
        return preference


class ServerSettings(DatabaseSettings, ReplicaSettings, PasswordSettings, WatchSettings, LogSettings):
    """Everything that `commerce serve` can be told."""

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; there is no TLS yet")
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    reuse_port: bool = Field(
        default=False,
        description="whether other servers of the same user may listen on the port too, and share its connections",
    )
    accept: Literal["auto", "calls", "listeners"] = Field(
        "auto",
        description="how to take several calls at once: `calls` by gRPC's private interface, `listeners` by several "
        "listeners on the port; `auto`: `calls` with a release of grpcio that is known to allow it, else `listeners`. "
        "With `calls`, the event loop uses that interface, too. The line `serving` of the log says which it is",
    )
    accepts: Count = Field(16, description="calls of each method, or listeners, that are waited for at once")
    scheduling: Literal["batch", "normal"] = Field(
        "batch",
        description="how Linux schedules the server: with `batch` (SCHED_BATCH, and a higher nice value for a thread "
        "of gRPC) its threads do not interrupt each other, which costs less; `normal` for other systems",
    )
    default_deadline: Seconds = Field(
        30, description="seconds for a call whose caller set no deadline, and at most for any"
    )
    max_request_bytes: Count = Field(4 * 1024 * 1024, description="largest request to accept")
    max_response_bytes: Count = Field(
        4 * 1024 * 1024, description="largest response to send; callers accept 4 MiB by default"
    )
    max_concurrent_streams: Count = Field(100, description="calls at once on one connection")
    max_connection_age: SecondsOrNone = Field(
        15, description="seconds until callers are asked to reconnect, so that they spread over servers; 0: never"
    )
    shutdown_grace: SecondsOrNone = Field(10, description="seconds that running calls get to end on shutdown")
    max_exports: Count = Field(4, description="exports at once, each on a database connection of its own")
    export_stall_timeout: Seconds = Field(60, description="seconds until an export that nobody reads is cut off")
    signing_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="secret for page tokens and digests of requests; by default one is kept in the database",
    )


class GcSettings(DatabaseSettings):
    """What `commerce gc` deletes."""

    event_retention_days: Count = Field(90, description="days that events are kept for watches, relays and timelines")


class RelaySettings(DatabaseSettings, LogSettings):
    """Where `commerce relay` publishes events."""

    nats_url: SecretStr = Field(description="NATS server with JetStream, `nats://user:password@host:4222`")
    relay_stream: str = Field(
        "commerce", pattern="^[A-Za-z0-9_-]{1,100}$", description="JetStream stream; made if there is none"
    )
    relay_name: str = Field(
        "nats", pattern="^[A-Za-z0-9_.-]{1,100}$", description="name of the relay's cursor; one relay of a name runs"
    )
    relay_poll_interval: Seconds = Field(0.1, description="seconds between two looks of the relay for new events")


class DevelopmentSettings(_Settings):
    """The embedded PostgreSQL of `commerce serve --dev`."""

    data_dir: Path = Field(Path(".data"), description="folder of the embedded PostgreSQL")
    postgres_bin: Path | None = Field(
        None, description="folder of the PostgreSQL programs, instead of the installed ones"
    )


SettingsT = TypeVar("SettingsT", bound=_Settings)


def load(kind: type[SettingsT], **values: object) -> SettingsT:
    """Return the settings from the environment; `values` that are not None come before it.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    try:
        return kind(**{name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = environment_name(kind, str(first["loc"][0]))
        what = "is not set" if first["type"] == "missing" else f"is wrong: {first['msg']}"
        message = f"{name} {what}"
        raise SettingsError(message) from error


def environment_name(kind: type[BaseSettings], field: str) -> str:
    """Return the environment variable of a field, also where the field is named by its alias."""
    info = kind.model_fields.get(field)
    if info is None or info.alias:
        return info.alias if info and info.alias else field
    return f"{kind.model_config['env_prefix']}{field}".upper()
