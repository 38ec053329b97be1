"""The `commerce` command. It reports an expected error in one line on standard error, with exit status 1.

This module declares the commands and imports only what that needs, so that help, `--version` and the completion of a
shell answer immediately. Each command imports its implementation when it runs.
"""

import codecs
import gc
import signal
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TextIO, TypeVar

import click

from service.cli.debug_commands import debug

_file = click.Path(dir_okay=False, path_type=Path)
_Command = TypeVar("_Command", bound=Callable[..., None])


def _tls_options(command: _Command) -> _Command:
    """Add the options for a connection with TLS."""
    for name, what in (
        ("--key-file", "Private key of that certificate, PEM."),
        ("--certificate-file", "Certificate of this command, PEM, for a service that asks for one."),
        ("--ca-file", "Connect with TLS, and trust the CAs in this file, PEM."),
    ):
        command = click.option(name, type=_file, help=what)(command)
    return command


def _connection(command: _Command) -> _Command:
    """Add the options for a connection to a running service."""
    command = _tls_options(command)
    return click.option(
        "--address",
        default="127.0.0.1:50051",
        show_default=True,
        metavar="HOST:PORT",
        help="Address of the service; unix:PATH for a Unix socket.",
    )(command)


def _known_encoding(_context: click.Context, _parameter: click.Parameter, encoding: str | None) -> str:
    try:
        "".encode(encoding or "utf-8")
    except (LookupError, UnicodeError):
        raise click.BadParameter(f"there is no encoding {encoding!r}") from None
    name = codecs.lookup(encoding).name if encoding else ""
    # With or without a byte order mark.
    return "utf-8-sig" if name == "utf-8" else name


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version_of("commerce-service"), message="commerce %(version)s")
def main() -> None:
    """The user and order service: gRPC in front of PostgreSQL.

    Settings are environment variables; docs/settings.md lists them. Only DATABASE_URL is required, and
    COMMERCE_NATS_URL for `relay`.
    """


@main.command()
@click.option(
    "--dev",
    is_flag=True,
    help="Start an embedded PostgreSQL with its data in COMMERCE_DATA_DIR, migrate it, and serve.",
)
@click.option("--host", help="Address to listen on, instead of COMMERCE_HOST (127.0.0.1).")
@click.option("--port", type=int, help="Port to listen on, instead of COMMERCE_PORT (50051); 0 selects a free one.")
@click.option("--workers", type=int, help="Number of processes that serve, instead of COMMERCE_WORKERS (1).")
def serve(*, dev: bool, host: str | None, port: int | None, workers: int | None) -> None:
    """Serve until SIGTERM or Ctrl-C; a second signal stops immediately.

    The first signal drains the server: it stops listening, its health becomes NOT_SERVING, clients are moved away by
    GOAWAY as their connections reach the maximum age, and running calls may finish. Without a client, that takes no
    time.

    With several workers, this process starts them, replaces those that end, and stops them. SIGHUP replaces them one
    after the other without failing a call.
    """
    from service.cli.serve import serve

    _interruptible()
    serve(dev=dev, host=host, port=port, workers=workers)


@main.command(hidden=True)
@click.argument("number", type=int)
@click.argument("descriptor", type=int)
def worker(*, number: int, descriptor: int) -> None:
    """Serve as worker NUMBER of `commerce serve --workers`, which runs this with a channel in DESCRIPTOR."""
    from service.cli.one_process import work

    work(number, descriptor)


@main.command("serve-tests", hidden=True)
def serve_tests() -> None:
    """Serve the tests of callers, each on a database of its own; their pytest plugin runs this."""
    from service.cli.serve_tests import serve_tests

    serve_tests()


@main.command()
@click.argument("revision", default="head")
@click.option("--check", is_flag=True, help="Change nothing; fail if this build cannot serve the current schema.")
def migrate(*, revision: str, check: bool) -> None:
    """Migrate the schema to REVISION, by default the newest.

    Several processes may run this at the same time: one migrates, and the others wait for it.
    """
    from service.cli.migrate import migrate

    _interruptible()
    migrate(revision, check=check)


@main.command("gc")
def collect() -> None:
    """Run periodic maintenance; schedule hourly. Also backfills encoded messages.

    Releases credit held for orders that were not confirmed in time; purges users 30 days after their deletion, except
    those with open orders or credit; deletes request ids after 24 hours, and counts of attempts to sign in that no
    longer matter; and deletes events after COMMERCE_EVENT_RETENTION_DAYS (90), except those that a relay has not
    published yet. Several processes may run this at the same time. What fails is logged, everything else is done, and
    the exit status is 1.
    """
    from service.cli.maintain import gc as maintain

    _interruptible()
    maintain()


@main.command("verify-ledger")
@click.option("--record", is_flag=True, help="Store whether there is a difference, for the metrics of servers.")
def verify_ledger(*, record: bool) -> None:
    """Compare every credit balance with the sum of its entries; print each difference and fail if there is one.

    Reads the whole ledger in one statement: schedule it daily, with --record, and with a COMMERCE_DB_STATEMENT_TIMEOUT
    that is long enough. Without --record, it changes nothing.
    """
    from service.cli.maintain import verify_ledger

    _interruptible()
    verify_ledger(record=record)


@main.command("restore-events")
def restore_events() -> None:
    """Make restored events fit this PostgreSQL cluster; run after each restore of a dump.

    Run it while no server and no relay runs, as the user that runs `migrate`. New events then follow the restored ones,
    relays go on after the last event that they have published, and watches must start again: their cursors fail with
    CURSOR_EXPIRED.
    """
    from service.cli.maintain import restore_events

    _interruptible()
    restore_events()


@main.command("purged-users")
def purged_users() -> None:
    """Print the id of each purged user and the time, a line for each, as long as the events are stored.

    Store the lines apart from backups, and append new ones at least every COMMERCE_EVENT_RETENTION_DAYS: a restored
    backup brings back users that were purged after it was made, and `purge-again` purges them again.
    """
    from service.cli.maintain import print_purged_users

    _interruptible()
    print_purged_users()


@main.command("purge-again")
@click.argument("file", type=click.File())
def purge_again(*, file: TextIO) -> None:
    """Purge the users in FILE that a restored backup has brought back; - is standard input.

    FILE has the lines of `purged-users`. A user is purged also if it has open orders or credit. Run it after each
    restore, before the first server starts; users that are not in the database are no error.
    """
    from service.cli.maintain import purge_users_again

    _interruptible()
    purge_users_again(file)


@main.command()
@click.option("--nats-url", help="NATS server to publish to, instead of COMMERCE_NATS_URL.")
@click.option(
    "--stream", help="JetStream stream, instead of COMMERCE_RELAY_STREAM (commerce); created if it does not exist."
)
@click.option("--name", help="Name of the cursor, instead of COMMERCE_RELAY_NAME (nats).")
def relay(*, nats_url: str | None, stream: str | None, name: str | None) -> None:
    """Publish events to NATS JetStream as CloudEvents, until SIGTERM or Ctrl-C.

    Publishes every event at least once, and the events of each user or order in sequence. If several relays have the
    same name, one of them publishes, and another takes over when that one ends.
    """
    from service.cli.relay import relay

    _interruptible()
    relay(nats_url=nats_url, stream=stream, name=name)


@main.command("import-users")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_connection
@click.option(
    "--on-conflict",
    type=click.Choice(["skip", "update", "fail"]),
    default="skip",
    show_default=True,
    help="What to do with a row whose e-mail address already belongs to a user.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for rejected rows; by default NAME.rejects.csv or NAME.rejects.jsonl beside FILE.",
)
@click.option("--resume-from", type=click.IntRange(min=1), default=1, metavar="N", help="Skip the rows before row N.")
@click.option(
    "--encoding",
    callback=_known_encoding,
    help="Encoding of FILE, such as cp1252.  [default: UTF-8 or UTF-16, detected]",
)
def import_users(
    *,
    file: Path,
    address: str,
    on_conflict: str,
    rejects: Path | None,
    resume_from: int,
    encoding: str,
    **files: Path | None,
) -> None:
    """Import users from FILE: a .csv file with a header, or a .jsonl file with one object per line.

    A .csv file has the columns email, username, full_name, superuser, bio, avatar_url and password. The objects of a
    .jsonl file have the same keys, with bio and avatar_url inside profile. Names that begin with _ are ignored. Row 1
    is the first row after the header; empty rows are not counted. The columns of a .csv file may also be separated by
    semicolons or tabs.

    Rejected rows are written, each with the reason, to a file of the same format, which can be corrected and imported.
    The command can be repeated safely: by default, it skips users that already exist. The exit status is 1 if a row was
    rejected. `commercectl import-users` does the same, and will replace this command.
    """
    from service.cli.channels import TlsOptions
    from service.cli.data import import_users

    _interruptible()
    gc.enable()
    import_users(
        file,
        address=address,
        tls=TlsOptions(**files),
        on_conflict=on_conflict,
        rejects=rejects,
        resume_from=resume_from,
        encoding=encoding,
    )


@main.command("export-orders")
@_connection
@click.option("--output", default="-", metavar="FILE", help="File to write; - is standard output.  [default: -]")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["jsonl"]),
    default="jsonl",
    show_default=True,
    help="Format of the file.",
)
def export_orders(*, address: str, output: str, file_format: str, **files: Path | None) -> None:  # noqa: ARG001 - only one format exists so far
    """Export a consistent snapshot of all orders with their items as JSON Lines, in protobuf's JSON format.

    FILE is created only when the export is complete. `commercectl export-orders` has filters and CSV, and will replace
    this command.
    """
    from service.cli.channels import TlsOptions
    from service.cli.data import export_orders

    _interruptible()
    gc.enable()
    export_orders(address=address, tls=TlsOptions(**files), output=output)


@main.command()
@click.argument("service", default="")
@click.option("--address", metavar="HOST:PORT", help="Address of the server, instead of that in the settings.")
@_tls_options
@click.option("--timeout", default=5.0, show_default=True, help="Seconds to wait for the answer.")
def health(*, service: str, address: str | None, timeout: float, **files: Path | None) -> None:
    """Check the health of a server: exit status 0 if it is SERVING, else 1.

    SERVICE is `readiness` or the full name of a service; without it, liveness is checked. By default this calls the
    server that has the same settings, on this machine: through its Unix socket, or else through its port, with TLS if
    the server has it.
    """
    from service.cli.channels import TlsOptions
    from service.cli.health import check_health

    _interruptible()
    check_health(service, address=address, tls=TlsOptions(**files), timeout=timeout)


@main.group()
def keys() -> None:
    """Create, revoke and list the API keys of callers (docs/security.md).

    They are in a file of hashes, which a server that runs reads again when it changes.
    """


_keys_file = click.option(
    "--file", type=click.Path(path_type=Path), help="File of the keys, instead of COMMERCE_API_KEYS_FILE."
)


@keys.command("create")
@click.argument("name")
@_keys_file
@click.option("--days", type=click.IntRange(1, 3650), help="Days until the key expires; by default it never does.")
def create_key(*, name: str, file: Path | None, days: int | None) -> None:
    """Create a key for the caller NAME, and print it: only now, because the file has only its hash.

    NAME can have two valid keys, so that a caller can change from one to the other without a pause. The file is created
    if it does not exist, and only its owner may read it.
    """
    from service.cli.keys import create_key

    _interruptible()
    create_key(name, file=file, days=days)


@keys.command("revoke")
@click.argument("key_id", metavar="ID")
@_keys_file
def revoke_key(*, key_id: str, file: Path | None) -> None:
    """Revoke the key with this ID, the part of the key between its underscores."""
    from service.cli.keys import revoke_key

    _interruptible()
    revoke_key(key_id, file=file)


@keys.command("list")
@_keys_file
def list_keys(*, file: Path | None) -> None:
    """List the ids of all keys, with the names of their callers."""
    from service.cli.keys import list_keys

    _interruptible()
    list_keys(file=file)


@main.group()
def policy() -> None:
    """Check and explain policy files, which say what each identity may do (docs/security.md)."""


@policy.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check_policy(*, file: Path) -> None:
    """Check the policy in FILE as the server does, and print what it allows.

    The exit status is 1 if a server would not use the file; standard error then lists everything that is wrong.
    """
    from service.cli.policy import check_policy

    _interruptible()
    check_policy(file)


@policy.command("explain")
@click.argument("identity")
@click.argument("method")
@click.option(
    "--policy", "file", type=click.Path(path_type=Path), metavar="FILE", help="Policy, instead of COMMERCE_POLICY_FILE."
)
def explain_policy(*, identity: str, method: str, file: Path | None) -> None:
    """Say whether IDENTITY may call METHOD, and why.

    IDENTITY is the caller as the access log names it, for example key:storefront. METHOD is the name of a method, with
    or without its service: GetUser or commerce.users.v1.UserService/GetUser. The exit status is 0 if it may, also if
    only for what belongs to one user; 3 if it may not; and 1 if the policy cannot be used.
    """
    from service.cli.policy import explain_policy

    _interruptible()
    explain_policy(identity, method, file)


@main.command()
@click.option("--changed", is_flag=True, help="Leave out settings that have their defaults.")
def config(*, changed: bool) -> None:
    """Print the settings in effect, with the origin of each: environment, file or default.

    Secrets are hidden, also passwords in URLs. Variables that are unknown or wrong are named, and if one is wrong, the
    exit status is 1.
    """
    from service.cli.configuration import config

    config(changed=changed)


@main.command()
def doctor() -> None:
    """Check whether the service can run here, and say what to do if it cannot.

    Checks the settings, who may connect, the files of TLS, identities and policy, and the database: its schema, rights,
    encoding, clock, limits of connections, durability, encryption and replica; its version, the archive of its WAL,
    left-over replication, sequences and the signing key. Prints one line for each check, without secrets, and changes
    nothing. The exit status is 1 if a check failed; warnings do not count.
    """
    from service.cli.doctor import doctor

    _interruptible()
    doctor()


main.add_command(debug)


@main.command()
def version() -> None:
    """Print the version of the service and the schema revision that it needs."""
    from service.cli.version import version

    _interruptible()
    version()


def _interruptible() -> None:
    """Let Ctrl-C raise KeyboardInterrupt from now on; until then it just ends the process (`service.__main__`)."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
