"""The `commerce serve-tests` command, which the pytest plugin of the client runs (`commerce.client.testing`).

It runs servers for the tests of callers. Each has a database of its own, a clone of a migrated one, so no test sees the
data, the request ids or the unfinished calls of another. All servers run in this process, because a process for each
would take more than a second to start; here a server and its database take less than a tenth of it.

A request is a line of JSON on standard input, and is answered by a line of JSON on standard output:

- ``{"do": "open"}`` runs a server on an empty database: ``{"id": 1, "port": 45123}``;
- ``{"do": "stop", "id": 1}`` stops the server, and ``start`` runs it again, on the same port and database: ``{}``;
- ``{"do": "close", "id": 1}`` stops the server and deletes its database: ``{}``.

The first line of output, ``{}``, says that requests can be sent. ``{"error": "..."}`` is an answer, too. The process
ends when its standard input does, so it also ends if the tests are killed.
"""

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import click

from service.cli.running import one_line_errors
from service.config import LogSettings, SettingsError, load, unknown_variables
from service.devtools.embedded_postgres import embedded_postgres
from service.devtools.temporary_data import temporary_data_dir
from service.observability.logs import configure_logging

# Nothing has to survive a crash. The files are in memory if possible, so few of them are kept for recovery.
_POSTGRES_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # In the data directory, where they are found if PostgreSQL is killed.
    "dynamic_shared_memory_type": "mmap",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "min_wal_size": "32MB",
    "max_wal_size": "64MB",
    "autovacuum": "off",
}


def serve_tests() -> None:
    """Run servers as requests on standard input ask for, until it ends."""
    if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        # uvloop ends the process if it cannot wait for the input, as with /dev/null.
        raise click.UsageError("the standard input must be a pipe")
    with one_line_errors(), temporary_data_dir("commerce-tests-") as data_dir, ThreadPoolExecutor(1) as importing:
        configure_logging(load(LogSettings))
        if unknown := "; ".join(unknown_variables()):
            raise SettingsError(unknown)
        # A server takes as long to import as PostgreSQL takes to create its files.
        servers = importing.submit(import_module, "service.cli.servers_for_tests")
        with embedded_postgres(data_dir, settings=_POSTGRES_SETTINGS) as postgres_url:
            servers.result().serve_requests(postgres_url)
