import sys

import pytest

from tests.sql.explain import explain, main


async def test_explain_shows_statements_with_their_plans(empty_database_url: str) -> None:
    shown = await explain(empty_database_url, "ConfirmOrder")
    on_the_fast_path, _, in_a_transaction = shown.partition("-- ConfirmOrder in a transaction:")
    assert "FROM limited" in on_the_fast_path
    assert "FOR NO KEY UPDATE;" in in_a_transaction
    for part in (on_the_fast_path, in_a_transaction):
        assert "--   " in part
        assert "Index Scan using pk_orders" in part


def test_explain_names_the_methods_if_there_is_no_such_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["explain", "Order"])
    with pytest.raises(SystemExit, match="ConfirmOrder"):
        main()
