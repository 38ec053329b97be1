"""The `commerce debug` commands: their names, options and help; `service.cli.debug` does the work."""

from collections.abc import Callable
from typing import TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., None])


def _common(command: _Command) -> _Command:
    """Add the options that all commands have."""
    command = click.option("--json", is_flag=True, help="Print JSON: a list with an object for each process.")(command)
    return click.option("--pid", type=int, metavar="ID", help="Ask only the process with this id.")(command)


@click.group()
def debug() -> None:
    """Show what a running server does now (docs/debugging.md).

    Asks all servers of the same user on this machine, or in this container; root may ask those of any user. With
    workers, each of them answers. It needs no settings, changes nothing, and shows no SQL and no contents of requests.
    Only on Linux, and not if COMMERCE_DEBUG_SOCKET is off.
    """


@debug.command()
@_common
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most calls to print.")
@click.option("--stacks", is_flag=True, help="Also print the functions in which each call waits, innermost first.")
def calls(*, pid: int | None, json: bool, limit: int, stacks: bool) -> None:
    """Show running calls: method, age, caller, x-request-id, and what each waits for.

    If the event loop is stuck, shows the functions in which it is.
    """
    from service.cli.debug import calls  # noqa: PLC0415 - see service.cli.main

    calls(pid, as_json=json, limit=limit, stacks=stacks)


@debug.command()
@_common
def pool(*, pid: int | None, json: bool) -> None:
    """Show the pools of database connections, and which call uses which connection since when.

    Connections have the numbers of their backends, as `pid` in pg_stat_activity.
    """
    from service.cli.debug import pool  # noqa: PLC0415 - as above

    pool(pid, as_json=json)


@debug.command()
@_common
@click.option(
    "--longer-than",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Show only sessions whose statement or transaction has begun before that.",
)
def statements(*, pid: int | None, json: bool, longer_than: float) -> None:
    """Show what PostgreSQL does for the server now: statements by name, their ages, waits, and who blocks them."""
    from service.cli.debug import statements  # noqa: PLC0415 - as above

    statements(pid, as_json=json, longer_than=longer_than)


@debug.command()
@_common
def channels(*, pid: int | None, json: bool) -> None:
    """Show the connections of clients as gRPC counts them (channelz): calls, messages, keepalives, times."""
    from service.cli.debug import channels  # noqa: PLC0415 - as above

    channels(pid, as_json=json)


@debug.command()
@_common
@click.option(
    "--seconds", type=click.FloatRange(0.1, 60), default=10.0, show_default=True, help="How long to look at it."
)
@click.option("--wall", is_flag=True, help="Count all time of the event loop's thread, also while it waits.")
@click.option("--top", type=click.IntRange(min=1), default=25, show_default=True, help="Functions to print.")
@click.option("--collapsed", metavar="FILE", help="Write the stacks for a flame graph; - is standard output.")
def profile(*, pid: int | None, json: bool, seconds: float, wall: bool, top: int, collapsed: str | None) -> None:
    """Show which functions use the processor, from a hundred looks a second at all threads.

    Ctrl-C ends it early. A process is profiled once at a time.
    """
    from service.cli.debug import profile  # noqa: PLC0415 - as above

    profile(pid, as_json=json, seconds=seconds, wall=wall, top=top, collapsed=collapsed)
