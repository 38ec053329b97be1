import csv
import json
from pathlib import Path

import pytest
from commerce.client import Client

from tests.support.both_clients import ITEM
from tests.support.commercectl_shell import NewUser, Shell


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_users_are_imported_from_csv_and_exported(shell: Shell, tmp_path: Path) -> None:
    text = (
        "Email,Username,full_name,superuser,bio\nf1@example.com,first.one,Ada,yes,First\nf2@example.com,second.one,,,\n"
    )
    file = written(tmp_path / "users.csv", text)
    assert shell.run("import-users", file).stdout == "2 created, 0 updated, 0 skipped\n"
    assert shell.run("import-users", file, "--on-conflict", "update").stdout == "0 created, 0 updated, 2 skipped\n"
    target = tmp_path / "out.csv"
    shell.run("export-users", "-o", "csv", "--file", str(target))
    with target.open(newline="") as lines:
        found = {row["username"]: row for row in csv.DictReader(lines)}
    assert found["first.one"]["profile.bio"] == "First"
    assert found["first.one"]["superuser"] == "true"
    assert target.stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.glob("*.part")] == []


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_columns_can_be_separated_as_spreadsheets_do(delimiter: str, shell: Shell, tmp_path: Path) -> None:
    name = f"delimiter{ord(delimiter)}"
    text = delimiter.join(("email", "username")) + "\n" + delimiter.join((f"{name}@example.com", name)) + "\n"
    assert shell.run("import-users", written(tmp_path / "u.csv", text)).stdout.startswith("1 created")


def test_rejected_rows_are_written_with_their_reasons(shell: Shell, tmp_path: Path) -> None:
    rows = [{"email": "r1@example.com", "username": "right"}, {"email": "no", "username": "wrong"}]
    file = written(tmp_path / "users.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    result = shell.run("import-users", file, code=9)
    assert result.stdout == "1 created, 0 updated, 0 skipped\n"
    with (tmp_path / "users.rejects.csv").open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["row"], row["reason"], row["field"]) == ("2", "INVALID_FIELD", "email")


@pytest.mark.parametrize(
    ("name", "text", "problem", "code"),
    [
        ("u.csv", "email,name\n", "unknown column 'name'", 2),
        ("u.csv", "email\n", "column 'username' is missing", 2),
        ("u.csv", "email,username\na@example.com\n", "line 2", 9),
        ("u.csv", "email,username,superuser\na@example.com,aa,maybe\n", "true or false", 9),
        ("u.jsonl", "[]\n", "line 1: the line is not a JSON object", 9),
        ("u.jsonl", '{"mail": 1}\n', "go on with --resume-from 1", 9),
    ],
)
def test_a_file_that_cannot_be_read_says_where(
    name: str, text: str, problem: str, code: int, shell: Shell, tmp_path: Path
) -> None:
    assert problem in shell.run("import-users", written(tmp_path / name, text), code=code).stderr


def test_an_import_that_stops_says_where_to_go_on(shell: Shell, new_user: NewUser, tmp_path: Path) -> None:
    new_user("taken")
    text = "email,username\nfirst@example.com,first\ntaken@example.com,taken\n"
    result = shell.run("import-users", written(tmp_path / "u.csv", text), "--on-conflict", "fail", code=9)
    assert "go on with --resume-from 2" in result.stderr
    assert "USER_ALREADY_EXISTS" in result.stderr


def test_orders_are_exported_with_the_filters_of_the_rpc(shell: Shell, new_user: NewUser, client: Client) -> None:
    user = new_user("exported")
    orders = [client.orders.create(user_id=user.id, items=[ITEM]) for _ in range(2)]
    client.orders.cancel(orders[0].id, reason="test")
    lines = shell.run("export-orders", "--user", "exported", "--status", "cancelled").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [orders[0].id]
    assert shell.run("export-orders", "--user", "exported", "--created-before", "2020-01-01").stdout == ""


def test_a_watch_goes_on_at_its_cursor(shell: Shell, new_user: NewUser, client: Client, tmp_path: Path) -> None:
    user = new_user("watched")
    order = client.orders.create(user_id=user.id, items=[ITEM])
    cursor = str(tmp_path / "cursor")
    watch = ("orders", "watch", "--from", "earliest", "--user", "watched", "--cursor-file", cursor, "--limit", "1")
    assert json.loads(shell.run(*watch, "-o", "json").stdout)["type"] == "ORDER_EVENT_TYPE_CREATED"
    client.orders.confirm(order.id)
    (row,) = csv.DictReader(shell.run(*watch, "-o", "csv").stdout.splitlines())
    assert row["type"] == "CONFIRMED"
    client.orders.process(order.id)
    assert "PROCESSING" in shell.run(*watch).stdout


def test_events_of_users_are_filtered_by_type(shell: Shell, new_user: NewUser, client: Client) -> None:
    user = new_user("typed.events")
    client.users.deactivate(user.id)
    watch = ("users", "watch", "--from", "earliest", "--user", "typed.events", "--type", "deactivated", "--limit", "1")
    assert f"user_id: {user.id}" in shell.run(*watch, "-o", "yaml").stdout
