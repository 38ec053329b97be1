"""Helpers of the commands: run a coroutine, connect to the database, report an error in one line.

What takes memory is imported only where it is used: the parent of workers uses this module, and needs no database.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
import uvloop

from service.application.ports.errors import StoreError
from service.config import DatabaseSettings, LogSettings, SettingsError, SettingsT, load, warn_of_unknown_variables
from service.observability.logs import configure_logging
from service.runtime.errors import OperatorError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop) -> T:
    """Run a coroutine to completion on a new event loop, and return its result."""
    # Everything is loaded now (`service.__main__`).
    gc.enable()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


def load_and_log(
    kind: type[SettingsT], call_id: Callable[[], str | None] = lambda: None, **values: object
) -> SettingsT:
    """Load settings, and configure logging; raises SettingsError, which names every setting that is wrong."""
    problems: dict[str, None] = {}
    log_settings = _loaded(LogSettings, problems)
    if log_settings:
        # First, because loading the others can log warnings.
        configure_logging(log_settings, call_id=call_id)
    settings = _loaded(kind, problems, **values)
    # Also if a setting is missing, because its name may be misspelled.
    warn_of_unknown_variables()
    if settings is None or problems:
        raise SettingsError("; ".join(problems))
    return settings


def _loaded(kind: type[SettingsT], problems: dict[str, None], **values: object) -> SettingsT | None:
    try:
        return load(kind, **values)
    except SettingsError as error:
        problems.update(dict.fromkeys(str(error).split("; ")))
        return None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Report an expected error of the block in one line on standard error, and exit with status 1."""
    try:
        yield
    except (SettingsError, OperatorError) as error:
        raise click.ClickException(str(error)) from error
    except click.ClickException:
        raise
    except StoreError as error:
        from service.db.operations.readiness import describe_store_error  # noqa: PLC0415 - see above

        raise click.ClickException(describe_store_error(error)) from error
    except Exception as error:
        from service.db.operations.readiness import describe_missing_right  # noqa: PLC0415 - see above

        if lacks := describe_missing_right(error):
            raise click.ClickException(lacks) from error
        raise


@asynccontextmanager
async def single_connection(settings: DatabaseSettings) -> AsyncIterator["AsyncEngine"]:
    """Yield an engine with at most one connection, and close the connection after the block."""
    from service.db.connections.engine import create_engine  # noqa: PLC0415 - see above

    engine = create_engine(settings, pool_size=1)
    try:
        yield engine
    finally:
        await engine.dispose()
