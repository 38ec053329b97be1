"""The `commerce version` command."""

import sys
from importlib.metadata import version as version_of

import click

from service.db.operations.migrate import head


def version() -> None:
    """Print the version of the service, the schema revision that it needs, and the version of Python."""
    click.echo(f"commerce {version_of('commerce-service')}, schema {head()}, Python {sys.version.split()[0]}")
