"""The `commerce` command. It reports an expected error in one line on standard error, with exit status 1."""

import sys
from importlib.metadata import version as version_of

import click

from service.cli.data import export_orders, import_users
from service.cli.maintain import gc, verify_ledger
from service.cli.migrate import migrate
from service.cli.relay import relay
from service.cli.serve import serve
from service.db.operations.migrate import head


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The user and order service: gRPC in front of PostgreSQL.

    Settings are environment variables; docs/settings.md lists them. Only DATABASE_URL is required, and
    COMMERCE_NATS_URL for `relay`.
    """


@click.command()
def version() -> None:
    """Print the version of the service and the schema revision that it needs."""
    click.echo(f"commerce {version_of('commerce-service')}, schema {head()}, Python {sys.version.split()[0]}")


for command in (serve, migrate, gc, verify_ledger, relay, import_users, export_orders, version):
    main.add_command(command)
