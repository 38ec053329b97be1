"""The private attributes of SQLAlchemy that compiled statements need: they are there, and mean what we take them for.

If one of these tests fails after an update of SQLAlchemy, adapt `service.db.connections.sqlalchemy_compiled`.
"""

from collections.abc import Callable
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Boolean, Numeric, Text, Uuid, bindparam, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, asyncpg

from service.config import DatabaseSettings, load
from service.db.connections.engine import JSON, create_engine
from service.db.connections.executor import StatementExecutor
from service.db.connections.sqlalchemy_compiled import (
    SQLAlchemyChangedError,
    bind_processors,
    result_columns,
    result_processor,
)
from service.db.connections.statement import Statement
from service.db.tables import orders, users

DIALECT: Any = asyncpg.dialect(**JSON)  # type: ignore[no-untyped-call] # has no types
ID = UUID("00000000-0000-7000-8000-00000000000a")


def compiled(core: Any) -> Any:
    return core.compile(dialect=DIALECT)


def test_parameters_are_converted_as_their_types_ask() -> None:
    statement = compiled(select(users.c.id).where(users.c.username == bindparam("username"), literal({}, JSONB) == {}))
    processors = bind_processors(statement)
    assert set(processors) <= set(statement.positiontup)
    assert "username" not in processors
    (json_parameter, *_) = [name for name in statement.positiontup if name in processors]
    assert processors[json_parameter]({"a": 1}) == '{"a":1}'


def test_columns_come_in_their_order_with_their_names_and_types() -> None:
    columns = result_columns(compiled(select(users.c.id, orders.c.total_amount.label("total"), func.now().label("at"))))
    assert [column.name for column in columns] == ["id", "total", "at"]
    assert isinstance(columns[1].type, Numeric)


def test_what_asyncpg_gives_is_converted_only_if_its_type_asks_for_that() -> None:
    assert result_processor(Text(), DIALECT, None) is None
    assert result_processor(Boolean(), DIALECT, None) is None
    assert result_processor(Numeric(19, 4), DIALECT, 1700) is None
    to_text = result_processor(Uuid(as_uuid=False), DIALECT, None)
    assert to_text
    assert to_text(ID) == str(ID)


async def test_a_compiled_statement_gives_what_sqlalchemy_gives(shared_database_url: str) -> None:
    core = select(
        literal(ID, Uuid).label("id"),
        literal(str(ID), Uuid(as_uuid=False)).label("text_id"),
        literal(Decimal("1.2500"), Numeric(19, 4)).label("amount"),
        literal({"a": [1]}, JSONB).label("json"),
        bindparam("text", type_=Text).label("text"),
        literal(None, Uuid(as_uuid=False)).label("nothing"),
    )
    engine = create_engine(load(DatabaseSettings, DATABASE_URL=shared_database_url), pool_size=1)
    executor = StatementExecutor(engine)
    (row,) = await executor.fetch(Statement("everything", core), {"text": "a"})
    (expected,) = await executor.rows(core, {"text": "a"})
    await engine.dispose()
    assert row == expected == (ID, str(ID), Decimal("1.2500"), {"a": [1]}, "a", None)
    assert row._asdict() == expected._asdict()


@pytest.mark.parametrize(
    ("use", "attribute"),
    [
        (bind_processors, "_bind_processors"),
        (result_columns, "_result_columns"),
        (lambda kind: result_processor(kind, DIALECT, None), "_cached_result_processor"),
    ],
)
def test_an_attribute_that_is_gone_is_named_with_what_to_do(use: Callable[[Any], object], attribute: str) -> None:
    with pytest.raises(SQLAlchemyChangedError, match=rf"has no attribute {attribute}; adapt .*sqlalchemy_compiled"):
        use(SimpleNamespace())
