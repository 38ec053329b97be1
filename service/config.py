"""The settings. No other module reads variables of the service from the environment."""

import base64
import binascii
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.database_url import parse_database_url
from service.environment import FILE_SUFFIX, read_secret, variables

# The value in milliseconds must fit in 32 bits, for gRPC and for PostgreSQL.
Seconds = Annotated[float, Field(gt=0, le=2_000_000, allow_inf_nan=False)]
SecondsOrNone = Annotated[float, Field(ge=0, le=2_000_000, allow_inf_nan=False)]
# gRPC accepts no larger number.
Count = Annotated[int, Field(ge=1, lt=2**31)]

_PREFIX = "COMMERCE_"

# What a signing key begins with that is not a text.
_BASE64 = "base64:"
_MIN_KEY_BYTES = 32

# Marks a setting that is not for everyday operation; docs/settings.md lists such settings in a separate table.
EXPERT: JsonDict = {"expert": True}

# The environment variables that were renamed since the previous release, and the fields that they set. The old names
# still work in this release, with a warning; delete this table in the next release.
OLD_NAMES = {
    "COMMERCE_ACCEPT": "accept_mode",
    "COMMERCE_ACCEPTS": "pending_accepts",
    "COMMERCE_DB_POOLER": "pgbouncer_mode",
    "COMMERCE_PASSWORD_QUEUE": "password_queue_size",
    "COMMERCE_WATCH_CATCH_UPS": "watch_catch_up_connections",
    "COMMERCE_WATCH_PATIENCE": "slow_consumer_timeout",
    "COMMERCE_WATCH_QUEUE": "watch_queue_size",
}

# A logger of the standard library, because some commands load settings before they configure logging, or never
# configure it. Python then writes the warning to standard error.
log = logging.getLogger(__name__)


class SettingsError(ValueError):
    """A setting is missing or wrong. The message names the setting and does not repeat its value."""


class Settings(BaseSettings):
    """Base of all settings: immutable, read from environment variables that begin with `COMMERCE_`."""

    # A command uses few of the kinds of settings; the validators of the others are never built.
    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, extra="ignore", frozen=True, populate_by_name=True, defer_build=True
    )


def _checked_url(url: SecretStr) -> SecretStr:
    try:
        parse_database_url(url.get_secret_value())
    except ValueError as error:
        raise PydanticCustomError("database_url", "{reason}", {"reason": str(error)}) from error
    return url


def _checked_url_if_set(url: SecretStr | None) -> SecretStr | None:
    return _checked_url(url) if url else None


class DatabaseSettings(Settings):
    """How to connect to PostgreSQL, and the limits for connections and statements."""

    database_url: SecretStr = Field(
        alias="DATABASE_URL",
        description="URL of the PostgreSQL database, `postgresql://user:password@host/database`",
    )
    _is_a_url = field_validator("database_url")(_checked_url)
    db_pool_size: Count = Field(10, description="maximum number of connections in the pool")
    db_pool_min_size: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        4,
        description="number of the pool's connections that a server opens before it is ready; if PostgreSQL allows "
        "fewer, it starts with a warning",
        json_schema_extra=EXPERT,
    )
    db_pool_timeout: Seconds = Field(
        5, description="seconds to wait for a free connection of the pool", json_schema_extra=EXPERT
    )
    db_connect_timeout: Seconds = Field(2, description="seconds to wait for a new connection", json_schema_extra=EXPERT)
    db_statement_timeout: Seconds = Field(30, description="maximum seconds for any SQL statement")
    expensive_read_connections: Count = Field(
        2,
        description="maximum number of the pool's connections for each kind of read that can take long: searches, "
        "statistics, and lists with `include_total_size`; all kinds together use at most half of the pool",
        json_schema_extra=EXPERT,
    )
    expensive_read_timeout: Seconds = Field(
        10, description="maximum seconds for a search, statistics, or a list with `include_total_size`"
    )
    pgbouncer_mode: Literal["none", "transaction"] = Field(
        "none", description="`transaction` if `DATABASE_URL` points to PgBouncer in transaction mode"
    )


class LogSettings(Settings):
    """What is logged, and in which format."""

    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="format of the log; `auto` is `console` on a terminal, else `json`"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    batched_log_lines: bool = Field(
        default=True,
        description="write the log lines of one event loop iteration together",
        json_schema_extra=EXPERT,
    )


class PasswordSettings(Settings):
    """How passwords are hashed."""

    argon2_time_cost: Count = Field(2, description="argon2id passes", json_schema_extra=EXPERT)
    argon2_parallelism: Count = Field(1, description="argon2id lanes", json_schema_extra=EXPERT)
    argon2_memory_kib: Count = Field(
        19456, description="argon2id memory in KiB, at least 8 for each lane", json_schema_extra=EXPERT
    )
    password_threads: Count = Field(2, description="number of threads that hash passwords")
    password_queue_size: Count = Field(
        64,
        description="maximum number of passwords that wait for a thread; further calls fail with RESOURCE_EXHAUSTED",
        json_schema_extra=EXPERT,
    )

    @field_validator("argon2_memory_kib")
    @classmethod
    def _enough_for_each_lane(cls, memory: int, info: ValidationInfo) -> int:
        lanes = info.data.get("argon2_parallelism", 1)
        if memory < 8 * lanes:
            raise PydanticCustomError("argon2_memory", "Input should be at least 8 for each lane")
        return memory


class SignInSettings(Settings):
    """How often users may try to sign in."""

    sign_in_free_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        5, description="attempts to sign in with one login without success, after which the first pause begins"
    )
    sign_in_max_delay: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = Field(
        900,
        description="longest pause in seconds between attempts to sign in without success; it begins with one second "
        "and doubles; 0 means no limit",
    )


class WatchSettings(DatabaseSettings):
    """How the event feed reads events and delivers them to watchers."""

    watch_poll_interval: Seconds = Field(
        0.02,
        description="seconds between two polls for new events while a watcher is connected",
        json_schema_extra=EXPERT,
    )
    max_watches: Count = Field(1000, description="maximum number of watches; further ones fail with RESOURCE_EXHAUSTED")
    watch_queue_size: Count = Field(
        1000, description="maximum number of undelivered events queued for one watcher", json_schema_extra=EXPERT
    )
    slow_consumer_timeout: Seconds = Field(
        10,
        description="seconds that a watcher has to read a full queue before its stream ends with SLOW_CONSUMER",
        json_schema_extra=EXPERT,
    )
    watch_checkpoint_interval: Seconds = Field(
        5, description="seconds without an event after which a watcher gets a checkpoint", json_schema_extra=EXPERT
    )
    watch_catch_up_connections: Count = Field(
        2,
        description="maximum number of watchers that read past events at the same time, each on a connection outside "
        "the pool",
        json_schema_extra=EXPERT,
    )


class ReplicaSettings(DatabaseSettings):
    """Which reads a replica answers, and how far the replica may lag."""

    read_database_url: SecretStr | None = Field(
        None,
        alias="READ_DATABASE_URL",
        description="URL of a streaming replica of `DATABASE_URL`, for reads that may be slightly stale",
    )
    _is_a_replica_url = field_validator("read_database_url")(_checked_url_if_set)
    read_preference: Literal["primary", "replica"] = Field(
        "primary", description="where a call reads if it has no `x-read-preference` metadata"
    )
    max_replica_lag: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = Field(
        1, description="maximum seconds that the replica may lag; beyond that, reads go to the primary"
    )

    @field_validator("read_preference")
    @classmethod
    def _replica_to_prefer(cls, preference: str, info: ValidationInfo) -> str:
        if preference == "replica" and info.data.get("read_database_url") is None:
            raise PydanticCustomError("read_preference", "reading from a replica needs READ_DATABASE_URL")
        return preference


class ExportSettings(DatabaseSettings):
    """How many exports may run, and when a stalled export is ended."""

    max_exports: Count = Field(4, description="maximum concurrent exports, each on a connection outside the pool")
    export_stall_timeout: Seconds = Field(
        60,
        description="seconds that an export may wait for its client: until it reads the next response, and altogether "
        "beyond the time that reading 256 KiB a second takes; then the export is ended, because its snapshot holds a "
        "connection and blocks vacuum",
        json_schema_extra=EXPERT,
    )


class ListenSettings(Settings):
    """The addresses to listen on, and how connections to them are protected."""

    host: str = Field(
        "127.0.0.1",
        description="address to listen on; beyond this machine, that needs TLS and identities "
        "([Security](security.md)). Empty: no TCP port, only `COMMERCE_UNIX_SOCKET`",
    )
    port: int = Field(50051, ge=0, le=65535, description="port to listen on; 0 selects a free one")
    reuse_port: bool = Field(
        default=False,
        description="let other servers of the same operating system user listen on the port too; Linux distributes "
        "the connections among them",
    )
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="number of processes that serve on the port, each with its own connections to the database and "
        "its own limits; more than 1 needs Linux, and a parent process that starts them",
    )
    unix_socket: Path | None = Field(
        None,
        validate_default=True,
        description="path of a Unix socket to listen on too, without TLS, for programs of this machine",
    )
    unix_socket_mode: str = Field(
        "600", description="permissions of the Unix socket, octal; programs that may write to it may connect"
    )
    tls_certificate_file: Path | None = Field(
        None, description="certificate of the server with its chain, PEM; reloaded when it changes"
    )
    tls_key_file: Path | None = Field(
        None,
        validate_default=True,
        description="private key of the certificate, PEM, not encrypted; reloaded when it changes",
    )
    tls_client_ca_file: Path | None = Field(
        None,
        description="certificates of the CAs that sign clients' certificates, PEM; each client then needs one. "
        "Reloaded when it changes",
    )
    tls_port_without_client_certificates: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="second port with TLS, for clients that have a token or a key and no certificate; 0 selects a free "
        "one",
    )
    tls_reload_interval: Seconds = Field(
        5, description="seconds between two looks for changes of the TLS files", json_schema_extra=EXPERT
    )
    allow_plaintext: bool = Field(
        default=False, description="serve other machines without TLS, for example behind a proxy that does it"
    )
    allow_anonymous: bool = Field(
        default=False,
        description="serve other machines without identities: any program that reaches the port may do everything",
    )

    @field_validator("unix_socket_mode")
    @classmethod
    def _octal(cls, mode: str) -> str:
        if not re.fullmatch("0?[0-7]{3}", mode):
            raise PydanticCustomError("unix_socket_mode", "use three octal digits, such as 660")
        return mode

    @field_validator("unix_socket")
    @classmethod
    def _somewhere_to_listen(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None and info.data.get("host") == "":
            raise PydanticCustomError("unix_socket", "an empty COMMERCE_HOST needs it")
        return path

    @field_validator("workers")
    @classmethod
    def _workers_on_a_port(cls, workers: int, info: ValidationInfo) -> int:
        if workers > 1 and info.data.get("host") == "":
            raise PydanticCustomError(
                "workers", "several processes need a TCP port to share, not an empty COMMERCE_HOST"
            )
        return workers

    @field_validator("tls_key_file")
    @classmethod
    def _certificate_and_key(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        if (key is None) != (info.data.get("tls_certificate_file") is None):
            raise PydanticCustomError("tls_key_file", "it and COMMERCE_TLS_CERTIFICATE_FILE need each other")
        return key

    @field_validator("tls_client_ca_file")
    @classmethod
    def _client_ca_with_certificate(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path and info.data.get("tls_certificate_file") is None:
            raise PydanticCustomError("tls_client_ca_file", "it needs COMMERCE_TLS_CERTIFICATE_FILE")
        return path

    @field_validator("tls_port_without_client_certificates")
    @classmethod
    def _second_port(cls, port: int | None, info: ValidationInfo) -> int | None:
        if port is not None and info.data.get("tls_client_ca_file") is None:
            raise PydanticCustomError("tls_port", "only with COMMERCE_TLS_CLIENT_CA_FILE are there client certificates")
        return port


class IdentitySettings(Settings):
    """How callers say who they are. Without any of these settings, every caller is anonymous."""

    client_certificates: Literal["off", "spiffe", "common_name", "subject"] = Field(
        "off",
        description="what names a caller with a client certificate: its SPIFFE ID; or, for a certificate without one, "
        "the common name of its subject (`CN=billing`), or the whole subject",
    )
    jwt_issuers_file: Path | None = Field(
        None, description="TOML file of the issuers whose tokens are accepted (`authorization: Bearer ...`)"
    )
    api_keys_file: Path | None = Field(
        None, description="file of the API keys that are accepted (`x-api-key`), written by `commerce keys`"
    )

    @property
    def has_identities(self) -> bool:
        """Whether callers must say who they are."""
        return self.client_certificates != "off" or self.has_identities_in_metadata

    @property
    def has_identities_in_metadata(self) -> bool:
        """Whether callers can say who they are with each call, and not only by the certificate of a connection."""
        return bool(self.jwt_issuers_file or self.api_keys_file)


class CallerSettings(Settings):
    """What commands send that call a running service."""

    api_key: SecretStr | None = Field(
        None, min_length=1, description="API key that `commerce import-users` and `commerce export-orders` send"
    )


class PolicySettings(Settings):
    """What callers may do."""

    policy_file: Path | None = Field(
        None,
        description="TOML file that says what each identity may do (`docs/security.md`); read again when it changes",
    )
    reflection: Literal["auto", "on", "authenticated", "off"] = Field(
        "auto",
        description="who may use server reflection: all callers, callers with an identity, or none; `auto` is "
        "`authenticated` if callers have identities, else `on`",
    )


class LimitSettings(Settings):
    """Limits of calls and connections."""

    default_deadline: Seconds = Field(
        30, description="deadline in seconds of a call without one, and the maximum for any call"
    )
    max_request_bytes: Count = Field(4 * 1024 * 1024, description="maximum size of a request")
    max_response_bytes: Count = Field(
        4 * 1024 * 1024, description="maximum size of a response; gRPC clients accept 4 MiB by default"
    )
    max_request_bytes_in_flight: Count = Field(
        32 * 1024 * 1024,
        description="maximum size of all requests above 4 KiB in flight together, which are stored twice; further ones "
        "fail with RESOURCE_EXHAUSTED",
        json_schema_extra=EXPERT,
    )
    max_unread_response_bytes: Count = Field(
        12 * 1024 * 1024,
        description="maximum size of all responses above 4 KiB together that clients have not received yet, which are "
        "stored twice; one caller may have half of it. Further reads fail with RESOURCE_EXHAUSTED",
        json_schema_extra=EXPERT,
    )
    max_metadata_bytes: Count = Field(
        16 * 1024,
        description="maximum size of the metadata of a call, each entry with 32 bytes more; gRPC refuses others with "
        "RESOURCE_EXHAUSTED",
        json_schema_extra=EXPERT,
    )
    max_connections: Count = Field(
        4000,
        description="maximum number of connections; further ones are closed. Each listener has an equal share of it in "
        "accept mode `listeners`",
    )
    handshake_timeout: Seconds = Field(
        10,
        description="seconds that a new connection has until its TLS handshake and the first frame of HTTP/2 are "
        "complete; then it is closed",
        json_schema_extra=EXPERT,
    )
    transfer_timeout: Seconds = Field(
        20,
        description="seconds that a client has to send the request of a unary call, and to read the response; then the "
        "call is cancelled",
        json_schema_extra=EXPERT,
    )
    min_ping_interval: Seconds = Field(
        10,
        description="seconds between two pings of an idle connection, at least; a client that pings faster is "
        "disconnected with ENHANCE_YOUR_CALM",
        json_schema_extra=EXPERT,
    )
    max_concurrent_streams: Count = Field(
        1000,
        description="maximum concurrent calls on one connection, with its watches; clients queue further calls, but "
        "those sent on a new connection before the client knows the limit can be reset without details",
        json_schema_extra=EXPERT,
    )
    max_concurrent_calls: Count = Field(
        4000,
        description="maximum concurrent calls of the process, with its watches and without health checks; further "
        "calls fail with RESOURCE_EXHAUSTED before their requests are received",
        json_schema_extra=EXPERT,
    )
    max_connection_age: SecondsOrNone = Field(
        15,
        description="seconds after which GOAWAY asks a client to reconnect, so that clients spread over servers; "
        "0 means never",
    )
    shutdown_grace: SecondsOrNone = Field(10, description="seconds that running calls have to finish on shutdown")


class AdmissionSettings(Settings):
    """Which calls run under load, which wait, and which are refused."""

    admission: bool = Field(
        default=True,
        description="limit how many calls of a method run by how long they take, and let callers that wait take turns; "
        "without, only `COMMERCE_MAX_CONCURRENT_CALLS` limits them",
    )
    admission_min_calls: Count = Field(
        64,
        description="lowest limit of running calls of a method whose calls share statements; of other methods, six "
        "writes or twelve reads run for ten connections",
        json_schema_extra=EXPERT,
    )
    admission_queue_size: Count = Field(
        1000,
        description="maximum number of calls of a method that wait; half of that of one caller",
        json_schema_extra=EXPERT,
    )
    admission_queue_timeout: Seconds = Field(
        5,
        description="seconds that a call waits before it fails with RESOURCE_EXHAUSTED; it fails when it comes if it "
        "would wait for so long, as quickly as calls start then",
        json_schema_extra=EXPERT,
    )


class HttpSettings(Settings):
    """Where HTTP is served, and to whom."""

    http_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address to serve HTTP on; beyond this machine, that needs TLS and identities "
        "([HTTP](http.md#security))",
    )
    http_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port for Connect, gRPC-Web and JSON ([HTTP](http.md)), with the extra `http`; 0 selects a free "
        "one. `commerce serve --dev` uses 50080",
    )
    console: bool = Field(
        default=False,
        description="serve the [console](console.md), a web page for people, at `/console/` of the HTTP port; "
        "`commerce serve --dev` does",
    )
    http_cors_origins: str | None = Field(
        None,
        description="origins of the web pages that may call the HTTP port, such as `https://shop.example.com`, "
        "separated by commas; `*` is all, and needs identities",
    )
    http_max_request_bytes: Count = Field(
        1024 * 1024, description="maximum size of the body of an HTTP request", json_schema_extra=EXPERT
    )
    http_max_connections: Count = Field(
        1000,
        description="maximum number of HTTP connections, each with one call at a time; further ones are closed. Of "
        "their calls, at most `COMMERCE_MAX_CONCURRENT_STREAMS` run",
    )
    http_keep_alive_timeout: Seconds = Field(
        75,
        description="seconds that an HTTP connection may be without a request; a proxy before the service should "
        "close its own sooner",
        json_schema_extra=EXPERT,
    )

    @field_validator("http_cors_origins")
    @classmethod
    def _origins(cls, origins: str | None) -> str | None:
        for origin in _listed(origins):
            if not re.fullmatch(r"\*|https?://[^/\s,]+", origin):
                raise PydanticCustomError(
                    "origins", "each must be a scheme and a host, such as https://shop.example.com, without a path"
                )
        return origins

    @property
    def cors_origins(self) -> list[str]:
        """The origins one by one."""
        return _listed(self.http_cors_origins)


class MetricsSettings(Settings):
    """Where the metrics are served."""

    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port for `/metrics`, in OpenMetrics ([Metrics](metrics.md)), with the extra `metrics`; 0 selects "
        "a free one. `commerce serve --dev` uses 50090. `commerce relay` has metrics of its own",
    )
    metrics_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="address to serve the metrics on; beyond this machine, that needs `COMMERCE_METRICS_OPEN`",
    )
    metrics_open: bool = Field(
        default=False,
        description="serve the metrics to other machines, without TLS and identities: any program that reaches the "
        "port may read them",
    )


class DebugSettings(Settings):
    """Whether a server can be asked what it does."""

    debug_socket: bool = Field(
        default=True,
        description="answer `commerce debug` of the same user or of root, on this machine and in this container "
        "([Debugging](debugging.md)); only on Linux",
    )


def _listed(text: str | None) -> list[str]:
    return [element.strip() for element in (text or "").split(",") if element.strip()]


class HttpServerSettings(HttpSettings, ListenSettings, IdentitySettings, LimitSettings):
    """What the HTTP port needs to know."""


class OptimizationSettings(Settings):
    """Switches for optimizations. With all of them off, the server gives the same answers more slowly."""

    fast_path: bool = Field(
        default=True,
        description="run a unit of work as one SQL statement where possible, instead of as a transaction",
        json_schema_extra=EXPERT,
    )
    batched_reads: bool = Field(
        default=True,
        description="let concurrent reads by id share a SQL statement",
        json_schema_extra=EXPERT,
    )
    encoded_messages: bool = Field(
        default=True,
        description="also store users and orders as the protobuf messages that the API returns",
        json_schema_extra=EXPERT,
    )
    held_connection: bool = Field(
        default=True,
        description="hold one connection between single statements, instead of returning it to the pool",
        json_schema_extra=EXPERT,
    )
    event_loop: Literal["auto", "uvloop", "asyncio"] = Field(
        "auto",
        description="event loop of the server; `auto` is `uvloop`, which in accept mode `calls` also reads all pending "
        "wake-ups of gRPC together",
        json_schema_extra=EXPERT,
    )
    accept_mode: Literal["auto", "calls", "listeners"] = Field(
        "auto",
        description="how several calls are accepted concurrently: `calls` uses a private interface of gRPC, "
        "`listeners` opens several listeners on the port; `auto` is `calls` with a tested release of grpcio, else "
        "`listeners`. The log line `serving` names the mode. `listeners` with `COMMERCE_PENDING_ACCEPTS=1` is gRPC's "
        "default behaviour",
        json_schema_extra=EXPERT,
    )
    pending_accepts: Count = Field(
        16,
        description="number of calls of each method to request at the same time (`calls`), or of listeners "
        "(`listeners`)",
        json_schema_extra=EXPERT,
    )
    scheduling: Literal["adaptive", "batch", "normal"] = Field(
        "adaptive",
        description="how Linux schedules the server: with `batch` (SCHED_BATCH, and a higher nice value for the "
        "polling thread of gRPC) its threads do not preempt each other, which costs less CPU, but they wait for other "
        "busy processes; `adaptive` is that while the server uses most of a processor (the nice value only where it "
        "can be reset, as by root); no effect on other systems",
        json_schema_extra=EXPERT,
    )
    frozen_garbage_collector: bool = Field(
        default=True,
        description="exclude the objects made at start from garbage collection, and collect garbage less often",
        json_schema_extra=EXPERT,
    )


class ServerSettings(
    ReplicaSettings,
    ExportSettings,
    WatchSettings,
    PasswordSettings,
    SignInSettings,
    HttpServerSettings,
    MetricsSettings,
    DebugSettings,
    PolicySettings,
    AdmissionSettings,
    OptimizationSettings,
    LogSettings,
):
    """All settings of `commerce serve`. Each part of the server takes only the class with its own settings."""

    signing_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="secret that signs page tokens, cursors and digests of requests; by default one is stored in the "
        "database. After `base64:`, it is encoded in base64 ([Signing key](operations/signing-key.md))",
    )
    accepted_signing_key: SecretStr | None = Field(
        None,
        min_length=32,
        description="another such secret: what it has signed is accepted too, while the signing key is replaced",
    )

    @field_validator("signing_key", "accepted_signing_key")
    @classmethod
    def _decodable(cls, key: SecretStr | None) -> SecretStr | None:
        if key and len(signing_key_bytes(key)) < _MIN_KEY_BYTES:
            raise PydanticCustomError("signing_key", "after base64: it must have at least 32 bytes, encoded in base64")
        return key


class GcSettings(DatabaseSettings):
    """How long data is stored before `commerce gc` deletes it."""

    event_retention_days: Count = Field(90, description="days that events are stored for watches, relays and timelines")


class RelaySettings(DatabaseSettings, MetricsSettings, LogSettings):
    """Where `commerce relay` publishes events."""

    nats_url: SecretStr = Field(
        min_length=1, description="NATS server with JetStream, `nats://user:password@host:4222`"
    )
    relay_stream: str = Field(
        "commerce", pattern="^[A-Za-z0-9_-]{1,100}$", description="JetStream stream; created if it does not exist"
    )
    relay_name: str = Field(
        "nats",
        pattern="^[A-Za-z0-9_.-]{1,100}$",
        description="name of the relay's cursor; of several relays with the same name, only one publishes",
    )
    relay_poll_interval: Seconds = Field(
        0.1, description="seconds between two polls of the relay for new events", json_schema_extra=EXPERT
    )


class DevelopmentSettings(Settings):
    """The embedded PostgreSQL of `commerce serve --dev`."""

    data_dir: Path = Field(Path(".data"), description="directory of the embedded PostgreSQL")
    postgres_bin: Path | None = Field(
        None, description="directory of the PostgreSQL programs, instead of the installed ones"
    )


class DevelopmentServerSettings(ServerSettings, DevelopmentSettings):
    """All settings of `commerce serve --dev`."""


def signing_key_bytes(key: SecretStr) -> bytes:
    """Return the bytes of a signing key; empty if it says that it is encoded in base64 and is not.

    >>> signing_key_bytes(SecretStr("base64:a2V5"))
    b'key'
    """
    text = key.get_secret_value()
    if not text.startswith(_BASE64):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_BASE64), validate=True)
    except binascii.Error:
        return b""


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(kind: type[SettingsT], **values: object) -> SettingsT:
    """Return the settings from the environment, and from the files that it names; `values` that are not None override.

    Raises:
        SettingsError: settings are missing or wrong. The message names all of them.
    """
    given = {name: value for name, value in values.items() if value is not None}
    by_old_names = _values_by_old_names(kind)
    from_files, problems = _secrets_from_files(kind, given.keys())
    try:
        settings = kind(**{**by_old_names, **from_files, **given})
    except ValidationError as error:
        problems = _problems(kind, error, {environment_name(kind, name) for name in from_files}, problems)
    if problems:
        raise SettingsError("; ".join(problems.values()))
    return settings


def warn_of_unknown_variables() -> None:
    """Log a warning for each environment variable with our prefix that no program of this service reads."""
    for warning in unknown_variables():
        log.warning("%s", warning)


def unknown_variables() -> Iterator[str]:
    """Yield a line for each environment variable with our prefix that no program of this service reads."""
    known = {*OLD_NAMES}
    for kind in _kinds(Settings):
        for field in kind.model_fields:
            known.add(name := environment_name(kind, field))
            if is_secret(kind, field):
                known.add(f"{name}{FILE_SUFFIX}")
    for name in sorted(os.environ):
        # Pydantic ignores the case of environment variables, too.
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            # All names share the prefix, so that even unrelated ones are similar.
            similar = "".join(f"; is it {one}?" for one in get_close_matches(name.upper(), known, 1, cutoff=0.85))
            yield f"{name} is ignored: there is no setting of this name{similar}"


def _problems(
    kind: type[Settings], error: ValidationError, from_files: Collection[str], known: Mapping[str, str]
) -> dict[str, str]:
    """Return what is wrong with each setting, without its value, by the name of the setting.

    Args:
        kind: the class of the settings.
        error: what is wrong with values.
        from_files: the names of the settings whose values come from files.
        known: what is wrong with other settings, so that they are missing.
    """
    problems = dict(known)
    for found in error.errors(include_input=False, include_url=False):
        name = environment_name(kind, str(found["loc"][0]))
        shown = f"{name}{FILE_SUFFIX}" if name in from_files else name
        match found["type"]:
            case "missing":
                problem = f"{name} is not set"
            case "string_pattern_mismatch":
                problem = f"{shown} is wrong: use 1 to 100 letters, digits, underscores and hyphens"
            case "too_short" | "string_too_short":
                # Of a secret, the message would count items.
                number = found["ctx"]["min_length"]
                problem = f"{shown} is wrong: it must have at least {number} character{'s' if number > 1 else ''}"
            case _:
                problem = f"{shown} is wrong: {found['msg']}"
        problems.setdefault(name, problem)
    return problems


def _secrets_from_files(kind: type[Settings], given: Collection[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the secrets that are in files as arguments of the class, and what is wrong with others by their names.

    Args:
        kind: the class of the settings.
        given: the names of the settings that are given otherwise.
    """
    environment = variables()
    secrets: dict[str, str] = {}
    problems: dict[str, str] = {}
    for field in kind.model_fields:
        name = environment_name(kind, field)
        path = environment.get(f"{name}{FILE_SUFFIX}")
        if path is None or not is_secret(kind, field) or field in given or name in given:
            continue
        if name in environment:
            problems[name] = f"{name} and {name}{FILE_SUFFIX} are both set: unset one of them"
            continue
        try:
            secrets[kind.model_fields[field].alias or field] = read_secret(path)
        except ValueError as error:
            problems[name] = f"{name}{FILE_SUFFIX} is wrong: {error}"
    return secrets, problems


def _kinds(base: type[Settings]) -> Iterator[type[Settings]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


def environment_name(kind: type[BaseSettings], field: str) -> str:
    """Return the environment variable of a field, given the name or the alias of the field."""
    info = kind.model_fields.get(field)
    if info is None or info.alias:
        return info.alias if info and info.alias else field
    return f"{kind.model_config['env_prefix']}{field}".upper()


def is_secret(kind: type[BaseSettings], field: str) -> bool:
    """Return whether a setting is a secret, which can also be in a file."""
    annotation = kind.model_fields[field].annotation
    return SecretStr in (annotation, *get_args(annotation))


def is_expert(kind: type[BaseSettings], field: str) -> bool:
    """Return whether a setting is not for everyday operation."""
    return kind.model_fields[field].json_schema_extra is EXPERT


def _values_by_old_names(kind: type[BaseSettings]) -> dict[str, object]:
    """Return the values of fields that are set under an old name, and log a warning for each old name."""
    environment = variables()
    values: dict[str, object] = {}
    for old, field in OLD_NAMES.items():
        if field not in kind.model_fields or old not in environment:
            continue
        new = environment_name(kind, field)
        if new in environment and environment[new] != environment[old]:
            log.warning("%s is ignored: its new name %s is set to another value", old, new)
            continue
        log.warning("%s is now named %s; the old name works until the next release", old, new)
        values[field] = environment[old]
    return values
