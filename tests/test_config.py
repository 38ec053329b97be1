import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.config import (
    OLD_NAMES,
    DatabaseSettings,
    DevelopmentSettings,
    RelaySettings,
    ServerSettings,
    Settings,
    SettingsError,
    environment_name,
    is_secret,
    load,
    signing_key_bytes,
    unknown_variables,
    warn_of_unknown_variables,
)
from service.db.connections.engine import async_url
from service.devtools.settings_tables import EXPERT_HEADING, RENAMED_HEADING, renamed, rows, tables
from tests.support.paths import ROOT

SECRET = "hunter2"  # noqa: S105 - what must not be shown
URL = f"postgresql://commerce:{SECRET}@db.example.com/commerce"
DOCUMENT = ROOT / "docs/settings.md"
SECONDS = ("DB_POOL_TIMEOUT", "DB_CONNECT_TIMEOUT", "DB_STATEMENT_TIMEOUT", "DEFAULT_DEADLINE")
COUNTS = (
    *("DB_POOL_SIZE", "ARGON2_TIME_COST", "ARGON2_PARALLELISM", "PASSWORD_THREADS", "PASSWORD_QUEUE_SIZE"),
    *("MAX_REQUEST_BYTES", "MAX_RESPONSE_BYTES", "MAX_CONCURRENT_STREAMS", "MAX_CONCURRENT_CALLS"),
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that has only the database URL."""
    for name in os.environ:
        if name.upper().startswith("COMMERCE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", URL)
    return monkeypatch


def refused(**values: object) -> str:
    """Return the error message that a user of the command sees."""
    with pytest.raises(SettingsError) as error:
        load(ServerSettings, **values)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_database_is_all_that_is_needed() -> None:
    settings = load(ServerSettings)
    assert settings.database_url.get_secret_value() == URL
    assert settings.model_dump(exclude={"database_url"}) == {
        "db_pool_size": 10,
        "db_pool_min_size": 4,
        "db_pool_timeout": 5,
        "db_connect_timeout": 2,
        "db_statement_timeout": 30,
        "expensive_read_connections": 2,
        "expensive_read_timeout": 10,
        "pgbouncer_mode": "none",
        "read_database_url": None,
        "read_preference": "primary",
        "max_replica_lag": 1,
        "log_format": "auto",
        "log_level": "info",
        "argon2_time_cost": 2,
        "argon2_memory_kib": 19 * 1024,
        "argon2_parallelism": 1,
        "password_threads": 2,
        "password_queue_size": 64,
        "sign_in_free_attempts": 5,
        "sign_in_max_delay": 900,
        # By default, other machines cannot reach a server without TLS.
        "host": "127.0.0.1",
        "port": 50051,
        "accept_mode": "auto",
        "pending_accepts": 16,
        "batched_log_lines": True,
        "frozen_garbage_collector": True,
        "fast_path": True,
        "batched_reads": True,
        "encoded_messages": True,
        "held_connection": True,
        "event_loop": "auto",
        "scheduling": "adaptive",
        # Without a parent process.
        "workers": 1,
        # Two servers on one port by mistake would share it silently.
        "reuse_port": False,
        "unix_socket": None,
        # Of the user who runs the server.
        "unix_socket_mode": "600",
        "tls_certificate_file": None,
        "tls_key_file": None,
        "tls_client_ca_file": None,
        "tls_port_without_client_certificates": None,
        "tls_reload_interval": 5,
        "allow_plaintext": False,
        "allow_anonymous": False,
        # Not served.
        "http_port": None,
        "http_host": "127.0.0.1",
        "console": False,
        "metrics_port": None,
        "metrics_host": "127.0.0.1",
        "metrics_open": False,
        # Only for the same user on the same machine.
        "debug_socket": True,
        "http_cors_origins": None,
        "http_max_request_bytes": 1024 * 1024,
        "http_max_connections": 1000,
        "http_keep_alive_timeout": 75,
        "default_deadline": 30,
        # What gRPC takes by default on the other side.
        "max_request_bytes": 4 * 1024 * 1024,
        "max_response_bytes": 4 * 1024 * 1024,
        "max_request_bytes_in_flight": 32 * 1024 * 1024,
        "max_unread_response_bytes": 12 * 1024 * 1024,
        "max_metadata_bytes": 16 * 1024,
        "max_connections": 4000,
        "handshake_timeout": 10,
        "transfer_timeout": 20,
        "min_ping_interval": 10,
        "max_concurrent_streams": 1000,
        "max_concurrent_calls": 4000,
        "admission": True,
        "admission_min_calls": 64,
        "admission_queue_size": 1000,
        "admission_queue_timeout": 5,
        # Nobody is known, and the address is the loopback.
        "client_certificates": "off",
        "jwt_issuers_file": None,
        "api_keys_file": None,
        "policy_file": None,
        "reflection": "auto",
        "max_connection_age": 15,
        "shutdown_grace": 10,
        "signing_key": None,
        "accepted_signing_key": None,
        "max_exports": 4,
        "export_stall_timeout": 60,
        "watch_poll_interval": 0.02,
        "max_watches": 1000,
        "watch_queue_size": 1000,
        "slow_consumer_timeout": 10,
        "watch_checkpoint_interval": 5,
        "watch_catch_up_connections": 2,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"tls_certificate_file": "a"},
            "COMMERCE_TLS_KEY_FILE is wrong: it and COMMERCE_TLS_CERTIFICATE_FILE need each",
        ),
        ({"tls_key_file": "a"}, "COMMERCE_TLS_KEY_FILE is wrong: it and COMMERCE_TLS_CERTIFICATE_FILE need each other"),
        ({"tls_client_ca_file": "a"}, "COMMERCE_TLS_CLIENT_CA_FILE is wrong: it needs COMMERCE_TLS_CERTIFICATE_FILE"),
        (
            {"tls_certificate_file": "a", "tls_key_file": "b", "tls_port_without_client_certificates": 1},
            "COMMERCE_TLS_PORT_WITHOUT_CLIENT_CERTIFICATES is wrong: only with COMMERCE_TLS_CLIENT_CA_FILE are there",
        ),
        ({"host": ""}, "COMMERCE_UNIX_SOCKET is wrong: an empty COMMERCE_HOST needs it"),
        (
            {"host": "", "unix_socket": "s", "workers": 2},
            "COMMERCE_WORKERS is wrong: several processes need a TCP port",
        ),
        ({"unix_socket_mode": "rw"}, "COMMERCE_UNIX_SOCKET_MODE is wrong: use three octal digits, such as 660"),
        ({"unix_socket_mode": "999"}, "COMMERCE_UNIX_SOCKET_MODE is wrong"),
        ({"max_connections": 0}, "COMMERCE_MAX_CONNECTIONS is wrong"),
        ({"handshake_timeout": 0}, "COMMERCE_HANDSHAKE_TIMEOUT is wrong"),
    ],
)
def test_settings_of_endpoints_that_do_not_fit_are_named(values: dict[str, object], message: str) -> None:
    assert message in refused(**values)


def test_a_server_may_listen_on_nothing_but_a_unix_socket() -> None:
    assert load(ServerSettings, host="", unix_socket="/run/commerce.sock").unix_socket == Path("/run/commerce.sock")


def test_the_embedded_database_needs_no_settings() -> None:
    assert load(DevelopmentSettings).model_dump() == {"data_dir": Path(".data"), "postgres_bin": None}


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("COMMERCE_PORT", "0", "port", 0),
        ("COMMERCE_HOST", "::1", "host", "::1"),
        ("COMMERCE_DB_POOL_TIMEOUT", "0.5", "db_pool_timeout", 0.5),
        ("COMMERCE_MAX_CONNECTION_AGE", "0", "max_connection_age", 0),
        ("COMMERCE_SHUTDOWN_GRACE", "0", "shutdown_grace", 0),
        ("COMMERCE_LOG_FORMAT", "json", "log_format", "json"),
        ("commerce_log_level", "debug", "log_level", "debug"),
    ],
)
def test_the_environment_sets_a_field(
    environment: pytest.MonkeyPatch, name: str, text: str, field: str, value: object
) -> None:
    environment.setenv(name, text)
    assert getattr(load(ServerSettings), field) == value


def test_an_option_of_the_command_comes_before_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_PORT", "1")
    assert load(ServerSettings, port=2, host=None).port == 2
    assert load(ServerSettings, port=None).port == 1


def test_other_variables_in_the_environment_are_ignored(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PORT", "1")
    environment.setenv("COMMERCE_NOTHING", "1")
    assert load(ServerSettings).port == 50051


def test_all_wrong_settings_are_named_together(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("DATABASE_URL")
    environment.setenv("COMMERCE_PORT", "many")
    environment.setenv("COMMERCE_DB_POOL_SIZE", "0")
    problems = refused().split("; ")
    assert {problem.partition(" ")[0] for problem in problems} == {
        "DATABASE_URL",
        "COMMERCE_PORT",
        "COMMERCE_DB_POOL_SIZE",
    }


def test_unknown_variables_with_our_prefix_are_named(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Of another program of the service, of the old names, and of others.
    for name in ("COMMERCE_NATS_URL", "COMMERCE_ACCEPT", "COMMERCIAL", "PORT", "commerce_host"):
        environment.setenv(name, "1")
    warn_of_unknown_variables()
    assert not caplog.messages
    environment.setenv("COMMERCE_PROT", SECRET)
    environment.setenv("commerce_zzz", SECRET)
    warn_of_unknown_variables()
    assert caplog.messages == [
        "COMMERCE_PROT is ignored: there is no setting of this name; is it COMMERCE_PORT?",
        "commerce_zzz is ignored: there is no setting of this name",
    ]


@pytest.mark.parametrize(
    ("kind", "name", "field"),
    [
        (ServerSettings, "DATABASE_URL", "database_url"),
        (ServerSettings, "READ_DATABASE_URL", "read_database_url"),
        (ServerSettings, "COMMERCE_SIGNING_KEY", "signing_key"),
        (ServerSettings, "COMMERCE_ACCEPTED_SIGNING_KEY", "accepted_signing_key"),
        (RelaySettings, "COMMERCE_NATS_URL", "nats_url"),
    ],
)
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_each_secret_can_be_in_a_file(
    environment: pytest.MonkeyPatch, tmp_path: Path, kind: type[Settings], name: str, field: str, end: str
) -> None:
    secret = f"{URL}/ {SECRET}é"
    (tmp_path / "secret").write_bytes(f"{secret}{end}".encode())
    if kind is RelaySettings:
        environment.setenv("COMMERCE_NATS_URL", URL)
    environment.delenv(name, raising=False)
    environment.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    assert getattr(load(kind), field).get_secret_value() == secret
    # In any case of letters, as all variables.
    environment.delenv(f"{name}_FILE")
    environment.setenv(f"{name}_FILE".lower(), str(tmp_path / "secret"))
    assert getattr(load(kind), field).get_secret_value() == secret


def test_all_secrets_can_be_in_files() -> None:
    secrets = {
        environment_name(kind, field)
        for kind in (ServerSettings, RelaySettings)
        for field in kind.model_fields
        if is_secret(kind, field)
    }
    assert secrets >= {"DATABASE_URL", "READ_DATABASE_URL", "COMMERCE_SIGNING_KEY", "COMMERCE_NATS_URL"}
    assert "COMMERCE_PORT" not in secrets
    assert not list(unknown_variables())


def test_a_secret_from_the_environment_and_from_a_file_is_refused(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text(URL)
    environment.setenv("DATABASE_URL_FILE", str(tmp_path / "url"))
    assert refused() == "DATABASE_URL and DATABASE_URL_FILE are both set: unset one of them"
    # What the command itself sets replaces both.
    assert load(ServerSettings, DATABASE_URL="postgresql:///").database_url.get_secret_value() == "postgresql:///"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read {path}: No such file or directory"),
        (b"", "{path} is empty"),
        (b"\n", "{path} is empty"),
        (b"\xff" + SECRET.encode(), "{path} is not a text in UTF-8"),
        (SECRET.encode() * 10_000, "{path} is longer than 65536 bytes"),
        (SECRET.encode(), "it must have at least 32 characters"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_that_names_its_variable(
    environment: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    environment.setenv("COMMERCE_SIGNING_KEY_FILE", str(path))
    assert f"COMMERCE_SIGNING_KEY_FILE is wrong: {words.format(path=path)}" in refused(port=-1).split("; ")
    environment.setenv("DATABASE_URL", "")
    message = refused(port=-1)
    assert message.count("is wrong") == 3
    assert SECRET not in message


def test_a_folder_is_no_secret(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("COMMERCE_SIGNING_KEY_FILE", str(tmp_path))
    assert "Is a directory" in refused()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(ServerSettings).port = 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((f"COMMERCE_{name}", value) for name in COUNTS for value in ("0", "-1", "1.5", SECRET, "", "1e3")),
        *((f"COMMERCE_{name}", value) for name in SECONDS for value in ("0", "-1", SECRET, "", "nan", "inf")),
        ("COMMERCE_MAX_CONNECTION_AGE", "-0.1"),
        ("COMMERCE_MAX_CONNECTION_AGE", "inf"),
        ("COMMERCE_SHUTDOWN_GRACE", "-0.1"),
        ("COMMERCE_SHUTDOWN_GRACE", "inf"),
        ("COMMERCE_ARGON2_MEMORY_KIB", "7"),
        ("COMMERCE_PORT", "-1"),
        ("COMMERCE_PORT", "65536"),
        ("COMMERCE_PORT", SECRET),
        ("COMMERCE_LOG_FORMAT", SECRET),
        ("COMMERCE_LOG_FORMAT", "JSON"),
        ("COMMERCE_LOG_LEVEL", SECRET),
        ("COMMERCE_SIGNING_KEY", SECRET),
        ("COMMERCE_SIGNING_KEY", SECRET * 4 + "abc"),
        ("COMMERCE_SIGNING_KEY", ""),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable_and_not_the_value(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)
    message = refused()
    assert message.startswith(f"{name} is wrong: ")
    assert SECRET not in message


def test_a_wrong_option_of_the_command_names_its_variable() -> None:
    assert refused(port=65536).startswith("COMMERCE_PORT is wrong: ")


def test_a_secret_that_is_too_short_is_described_in_characters(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_SIGNING_KEY", SECRET)
    assert refused() == "COMMERCE_SIGNING_KEY is wrong: it must have at least 32 characters"


def test_an_empty_database_url_is_refused_with_the_other_settings(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("DATABASE_URL", "")
    environment.setenv("READ_DATABASE_URL", "")
    assert refused(port=-1).count("is wrong") == 2


def test_without_a_database_nothing_is_loaded(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("DATABASE_URL")
    assert refused() == "DATABASE_URL is not set"


@pytest.mark.parametrize("name", ["MAX_REQUEST_BYTES", "MAX_RESPONSE_BYTES", "MAX_CONCURRENT_STREAMS"])
def test_a_number_larger_than_grpc_takes_is_wrong(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(f"COMMERCE_{name}", str(2**31))
    assert refused().startswith(f"COMMERCE_{name} is wrong: ")


@pytest.mark.parametrize("name", ["DB_STATEMENT_TIMEOUT", "DEFAULT_DEADLINE", "MAX_CONNECTION_AGE"])
def test_more_seconds_than_grpc_and_postgresql_take_as_milliseconds_are_wrong(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv(f"COMMERCE_{name}", str(2**31 / 1000))
    assert refused().startswith(f"COMMERCE_{name} is wrong: ")


def test_argon2_needs_memory_for_each_lane(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_ARGON2_PARALLELISM", "4")
    environment.setenv("COMMERCE_ARGON2_MEMORY_KIB", "31")
    assert refused().startswith("COMMERCE_ARGON2_MEMORY_KIB is wrong: ")
    environment.setenv("COMMERCE_ARGON2_MEMORY_KIB", "32")
    assert load(ServerSettings).argon2_memory_kib == 32


def test_a_signing_key_of_32_characters_is_long_enough(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_SIGNING_KEY", "k" * 32)
    key = load(ServerSettings).signing_key
    assert key is not None
    assert key.get_secret_value() == "k" * 32


@pytest.mark.parametrize("encoded", ["a" * 43, "!" * 44, "YQ==" * 8, "YWFh" * 7])
def test_a_signing_key_in_base64_must_have_32_bytes(environment: pytest.MonkeyPatch, encoded: str) -> None:
    environment.setenv("COMMERCE_SIGNING_KEY", f"base64:{encoded}")
    problem = "COMMERCE_SIGNING_KEY is wrong: after base64: it must have at least 32 bytes, encoded in base64"
    assert refused() == problem


def test_a_signing_key_is_a_text_or_bytes_in_base64(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_SIGNING_KEY", "k" * 32)
    assert signing_key_of(load(ServerSettings)) == b"k" * 32
    environment.setenv("COMMERCE_SIGNING_KEY", f"base64:{base64.b64encode(bytes(range(32))).decode()}")
    assert signing_key_of(load(ServerSettings)) == bytes(range(32))


def signing_key_of(settings: ServerSettings) -> bytes:
    assert settings.signing_key
    return signing_key_bytes(settings.signing_key)


def test_printed_settings_show_no_secret(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_SIGNING_KEY", SECRET * 5)
    settings = load(ServerSettings)
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in shown


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgresql://ada:pw@db/commerce", "postgresql+asyncpg://ada:pw@db/commerce"),
        ("postgres://ada:pw@db/commerce", "postgresql+asyncpg://ada:pw@db/commerce"),
        ("postgresql+asyncpg://ada:pw@db/commerce", "postgresql+asyncpg://ada:pw@db/commerce"),
        ("postgresql://db:5433/commerce", "postgresql+asyncpg://db:5433/commerce"),
        ("postgresql://[::1]/commerce", "postgresql+asyncpg://[::1]/commerce"),
        ("postgresql:///commerce?host=/run/db", "postgresql+asyncpg:///commerce?host=%2Frun%2Fdb&port=5432"),
        ("postgres://db/commerce?sslmode=require", "postgresql+asyncpg://db/commerce?ssl=require"),
        (
            "postgresql://db/commerce?sslmode=verify-full&sslrootcert=system",
            "postgresql+asyncpg://db/commerce?ssl=verify-full&sslrootcert=system",
        ),
        (
            "postgresql://one,two:5433/commerce?target_session_attrs=read-write",
            "postgresql+asyncpg:///commerce?host=one%2Ctwo&port=5432%2C5433&target_session_attrs=read-write",
        ),
        (
            "postgresql:///commerce?host=one,two&port=6432",
            "postgresql+asyncpg:///commerce?host=one%2Ctwo&port=6432%2C6432",
        ),
        ("postgresql://%2Frun%2Fdb:5433/commerce", "postgresql+asyncpg:///commerce?host=%2Frun%2Fdb&port=5433"),
        ("postgresql://?dbname=commerce&user=ada&host=db", "postgresql+asyncpg://ada@db/commerce"),
        ("postgresql://ada@shop:p/w@db/commerce", "postgresql+asyncpg://ada%40shop:p%2Fw@db/commerce"),
        (
            "postgresql://db/commerce?application_name=ada@home",
            "postgresql+asyncpg://db/commerce?application_name=ada%40home",
        ),
        ("postgresql://db/commerce?channel_binding=prefer&client_encoding=UTF8", "postgresql+asyncpg://db/commerce"),
        (" postgresql://ada:pw@db/commerce\n", "postgresql+asyncpg://ada:pw@db/commerce"),
        ("postgresql://db/commerce?ssl=require", "postgresql+asyncpg://db/commerce?ssl=require"),
        ("postgresql://db/commerce?ssl=true", "postgresql+asyncpg://db/commerce?ssl=require"),
        # As in libpq, + is no space.
        ("postgresql://ada@db/commerce?password=a+b%20c", "postgresql+asyncpg://ada:a+b c@db/commerce"),
    ],
)
def test_a_database_url_may_have_the_form_that_other_programs_take(given: str, used: str) -> None:
    assert async_url(given).render_as_string(hide_password=False) == used


def test_a_password_in_a_database_url_may_hold_any_character() -> None:
    assert async_url("postgresql://ada:p%40ss%2Fw%3Ard@db/commerce").password == "p@ss/w:rd"  # noqa: S105 - an example


@pytest.mark.parametrize(
    "given",
    [
        SECRET,
        "",
        f"//ada:{SECRET}@db/commerce",
        f"postgresql:ada:{SECRET}@db/commerce",
        f"postgresql://ada:{SECRET}@db:port/commerce",
        f"mysql://ada:{SECRET}@db/commerce",
        f"postgresql+psycopg://ada:{SECRET}@db/commerce",
        f"https://ada:{SECRET}@db/commerce",
        f"sqlite:///{SECRET}.db",
        f"postgresql://ada:{SECRET}@db/commerce?channel_binding=require",
        f"postgresql://ada:{SECRET}@db/commerce?sslmode={SECRET}",
        f"postgresql://ada:{SECRET}@db/commerce?sslrootcert=/{SECRET}",
        f"postgresql://ada:{SECRET}@db/commerce?sslrootcert=system",
        f"postgresql://ada:{SECRET}@db/commerce?connect_timeout={SECRET}",
        f"postgresql://ada:{SECRET}@db/commerce?{SECRET}=1",
        f"postgresql://ada:{SECRET}@db/commerce?{SECRET}",
        f"postgresql://ada:{SECRET}@one,two/commerce?port=1,2,3",
        f"postgresql://ada:{SECRET}@db:0/commerce",
        f"postgresql://ada:{SECRET}@db:65536/commerce",
        f"postgresql://ada:{SECRET}%00@db/commerce",
        f"postgresql://ada:{SECRET}%E4@db/commerce",
        f"postgresql://ada:{SECRET}@db/commerce?application_name=%00",
    ],
)
def test_an_invalid_database_url_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(SettingsError, match=r"^DATABASE_URL is wrong: [^\n]*$") as error:
        async_url(given)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("channel_binding=require", "channel_binding"),
        ("keepalives_idle=10", "the parameter keepalives_idle is not supported"),
        ("connect_timeout=soon", "connect_timeout is not a whole number"),
        ("sslmode=strict", "sslmode is none of disable"),
        ("sslrootcert=/nowhere", "the file that sslrootcert names cannot be read"),
    ],
)
def test_a_refused_parameter_is_named(query: str, words: str) -> None:
    assert words in refused(DATABASE_URL=f"{URL}?{query}")


def test_verifying_a_server_needs_certificates(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("HOME", str(tmp_path))
    assert "needs sslrootcert" in refused(DATABASE_URL=f"{URL}?sslmode=verify-full")
    environment.setenv("PGSSLROOTCERT", str(tmp_path))
    load(ServerSettings, DATABASE_URL=f"{URL}?sslmode=verify-full")


@pytest.mark.parametrize("url", [f"ada:{SECRET}@db", f"postgresql://ada:{SECRET}@db:port/x"], ids=["no URL", "no port"])
def test_the_command_says_in_one_line_that_the_url_is_wrong(url: str) -> None:
    command = [sys.executable, "-m", "service", "migrate", "--check"]
    ended = subprocess.run(
        command, env={**os.environ, "DATABASE_URL": url}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("Error: DATABASE_URL is wrong: ")
    assert len(ended.stderr.splitlines()) == 1
    assert SECRET not in ended.stderr


@pytest.mark.parametrize(("old", "field"), OLD_NAMES.items())
def test_an_old_name_still_works_and_is_warned_of(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, old: str, field: str
) -> None:
    value = {"accept_mode": "listeners", "pgbouncer_mode": "transaction"}.get(field, "7")
    environment.setenv(old.lower(), value)
    assert str(getattr(load(ServerSettings), field)) in {value, f"{value}.0"}
    new = environment_name(ServerSettings, field)
    assert caplog.messages == [f"{old} is now named {new}; the old name works until the next release"]


def test_the_new_name_wins_over_the_old_one(environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    environment.setenv("COMMERCE_ACCEPTS", "2")
    environment.setenv("COMMERCE_PENDING_ACCEPTS", "3")
    assert load(ServerSettings).pending_accepts == 3
    assert caplog.messages == [
        "COMMERCE_ACCEPTS is ignored: its new name COMMERCE_PENDING_ACCEPTS is set to another value"
    ]


def test_an_option_of_the_command_comes_before_an_old_name(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_ACCEPTS", "2")
    assert load(ServerSettings, pending_accepts=4).pending_accepts == 4


def test_an_old_name_that_these_settings_do_not_have_is_not_warned_of(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("COMMERCE_ACCEPTS", "2")
    load(DatabaseSettings)
    assert caplog.messages == []


@pytest.mark.parametrize("value", ["many", SECRET])
def test_a_wrong_value_of_an_old_name_is_reported_without_the_value(
    environment: pytest.MonkeyPatch, value: str
) -> None:
    environment.setenv("COMMERCE_ACCEPTS", value)
    message = refused()
    assert message.startswith("COMMERCE_PENDING_ACCEPTS is wrong: ")
    assert value not in message


def test_a_command_without_logging_warns_of_an_old_name_in_one_line(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_DB_POOLER", "transaction")
    command = [sys.executable, "-m", "service", "migrate"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    warning, error = ended.stderr.splitlines()
    assert warning.startswith("COMMERCE_DB_POOLER is now named COMMERCE_PGBOUNCER_MODE; ")
    assert error.startswith("Error: ")


def test_a_wrong_name_is_explained_without_a_pattern(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COMMERCE_NATS_URL", "nats://127.0.0.1")
    environment.setenv("COMMERCE_RELAY_STREAM", "a b")
    with pytest.raises(SettingsError) as error:
        load(RelaySettings)
    assert str(error.value) == ("COMMERCE_RELAY_STREAM is wrong: use 1 to 100 letters, digits, underscores and hyphens")


def test_the_document_has_the_tables_of_all_settings() -> None:
    # `python -m service.devtools.settings_tables` prints them.
    everyday, rest = DOCUMENT.read_text("utf-8").split(EXPERT_HEADING)
    expert, old = rest.split(RENAMED_HEADING)
    for part, expected in ((everyday, rows(expert=False)), (expert, rows(expert=True)), (old, renamed())):
        assert sorted(line for line in part.splitlines() if line.startswith("| `")) == sorted(expected)
    assert all(line in tables().splitlines() for line in rows(expert=True))
