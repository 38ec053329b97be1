"""The connection that the executor holds between statements, and how it is given to waiting callers."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from service.application.ports.errors import DeadlineExceeded
from service.config import DatabaseSettings, load
from service.db.connections.engine import create_engine
from service.db.connections.executor import StatementExecutor
from service.db.connections.statement import Statement
from service.runtime.deadline import Deadline
from tests.support.sent_statements import sent_statements

PID = Statement("pid", select(func.pg_backend_pid().label("pid")))
SLEEP = Statement("sleep", select(func.pg_sleep(0.3)))


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=database_url, db_pool_timeout=2), pool_size=2)
    yield engine
    await engine.dispose()


@pytest.fixture
async def executor(engine: AsyncEngine) -> AsyncIterator[StatementExecutor]:
    executor = StatementExecutor(engine, hold_connection=True)
    yield executor
    executor.release_held()


async def pid_of(executor: StatementExecutor) -> int:
    ((pid,),) = await executor.fetch(PID, {})
    assert isinstance(pid, int)
    return pid


async def test_statements_one_after_another_take_one_connection_once(
    engine: AsyncEngine, executor: StatementExecutor
) -> None:
    taken: list[object] = []
    event.listen(engine.sync_engine, "checkout", lambda *_: taken.append(None))
    assert len({await pid_of(executor) for _ in range(5)}) == 1
    assert len(taken) == 1
    executor.release_held()
    await pid_of(executor)
    assert len(taken) == 2


async def test_a_caller_that_needs_the_last_connection_gets_it(
    engine: AsyncEngine, executor: StatementExecutor
) -> None:
    async with engine.connect():
        await pid_of(executor)
        with executor.lend():
            other = await engine.connect()
        # The pool has no third connection.
        with executor.lend(), pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.connect().start(), 0.1)
        await other.close()
        await pid_of(executor)


async def test_a_waiting_caller_gets_the_connection_of_the_statement_that_ends_next(
    engine: AsyncEngine, executor: StatementExecutor
) -> None:
    async with engine.connect():
        sleeping = asyncio.create_task(executor.fetch(SLEEP, {}))
        await asyncio.sleep(0.1)
        with executor.lend():
            other = await engine.connect()
        assert sleeping.done()
        await other.close()


async def test_a_statement_that_waits_for_a_connection_gets_that_of_the_one_that_ends_next(
    engine: AsyncEngine, executor: StatementExecutor
) -> None:
    async with engine.connect():
        sleeping = asyncio.create_task(executor.fetch(SLEEP, {}))
        await asyncio.sleep(0.1)
        # Otherwise it would fail after the pool's timeout, because the server is overloaded.
        await pid_of(executor)
        assert sleeping.done()


async def test_the_held_connection_is_discarded_with_all_others_when_one_leads_to_a_replica(
    engine: AsyncEngine, executor: StatementExecutor
) -> None:
    before = await pid_of(executor)
    async with engine.connect() as connection:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError):
            await connection.execute(text("DELETE FROM order_tags"))
    assert await pid_of(executor) != before


async def test_a_connection_in_use_at_that_time_is_discarded_too(
    engine: AsyncEngine, executor: StatementExecutor
) -> None:
    before = await pid_of(executor)
    sleeping = asyncio.create_task(executor.fetch(SLEEP, {}))
    await asyncio.sleep(0.1)
    async with engine.connect() as connection:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError):
            await connection.execute(text("DELETE FROM order_tags"))
    await sleeping
    assert await pid_of(executor) != before


async def test_a_statement_that_is_late_when_it_gets_a_connection_is_not_sent(
    engine: AsyncEngine, executor: StatementExecutor
) -> None:
    deadline = Deadline(60)
    with sent_statements() as sent:
        sleeping = [asyncio.create_task(executor.fetch(SLEEP, {})) for _ in range(2)]
        await asyncio.sleep(0.1)
        late = asyncio.create_task(executor.fetch(PID, {}, time_left=deadline))
        late_too = asyncio.create_task(executor.rows(PID.core, {}, time_left=deadline))  # type: ignore[arg-type] # a SELECT
        await asyncio.sleep(0)
        deadline.end()
        for call in (late, late_too):
            with pytest.raises(DeadlineExceeded):
                await call
        await asyncio.gather(*sleeping)
    assert [text for text, _ in sent] == [SLEEP.text] * 2
    # And it has cost no connection.
    assert engine.pool.checkedin() == 1  # type: ignore[attr-defined] # a QueuePool; the other connection is held
    await pid_of(executor)
