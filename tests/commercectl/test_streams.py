import csv
import json
import re
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


def test_rejected_rows_can_be_corrected_and_imported(shell: Shell, tmp_path: Path) -> None:
    rows = [{"email": "r1@example.com", "username": "right"}, {"email": "no", "username": "wrong"}]
    file = written(tmp_path / "users.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    result = shell.run("import-users", file, code=9)
    assert result.stdout == "1 created, 0 updated, 0 skipped\n"
    rejects = tmp_path / "users.rejects.jsonl"
    assert f"rejected rows: 1, see {rejects}" in result.stderr
    (row,) = map(json.loads, rejects.read_text().splitlines())
    assert (row["_row"], row["_reason"], row["_field"], row["email"]) == (2, "INVALID_FIELD", "email", "no")
    row["email"] = "no@example.com"
    rejects.write_text(json.dumps(row))
    assert shell.run("import-users", str(rejects)).stdout == "1 created, 0 updated, 0 skipped\n"


@pytest.mark.parametrize(
    ("name", "text", "problem", "code"),
    [
        ("u.csv", "email,name\n", "unknown column 'name'", 2),
        ("u.csv", "email\n", "column 'username' is missing", 2),
        ("u.csv", "", "is missing", 2),
        ("u.csv", "\N{ZERO WIDTH NO-BREAK SPACE}\0\n", "unknown column", 2),
        ("u.txt", "email,username\n", "must end in .csv or .jsonl", 2),
    ],
)
def test_a_file_of_another_kind_is_refused(
    name: str, text: str, problem: str, code: int, shell: Shell, tmp_path: Path
) -> None:
    assert problem in shell.run("import-users", written(tmp_path / name, text), code=code).stderr


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("u.csv", "a@example.com", "1 columns, but the header has 3"),
        ("u.csv", "a@example.com,aa,maybe", "superuser must be true or false"),
        ("u.csv", '"a@example.com,aa,', "quote"),
        ("u.csv", "a" * 200_000 + ",aa,", "bytes"),
        ("u.jsonl", "[]", "the line is not a JSON object"),
        ("u.jsonl", '{"mail": 1}', "mail"),
        ("u.jsonl", '{"email":' * 100_000, "too many nested"),
        ("u.jsonl", '{"email": "\\ud800"}', "surrogate"),
    ],
)
def test_a_row_that_cannot_be_read_is_written_with_its_line_and_costs_no_other(
    name: str, line: str, problem: str, shell: Shell, tmp_path: Path
) -> None:
    header = "email,username,superuser\n" if name == "u.csv" else ""
    before, after = (
        f"{user}@example.com,{user},\n" if header else f'{{"email": "{user}@example.com", "username": "{user}"}}\n'
        for user in ("before.it", "after.it")
    )
    text = f"{header}{before}{line}\n{after}"
    result = shell.run("import-users", written(tmp_path / name, text), "--on-conflict", "update", code=9)
    assert sum(map(int, re.findall(r"\d+", result.stdout))) == 2
    rejected = (tmp_path / name).with_suffix(f".rejects{(tmp_path / name).suffix}").read_text()
    assert "UNREADABLE" in rejected
    assert f"line {3 if header else 2}: " in rejected
    assert problem in rejected
    assert "before.it" not in rejected


@pytest.mark.parametrize(("encoding", "options"), [("utf-16", ()), ("cp1252", ("--encoding", "cp1252"))])
def test_files_of_spreadsheets_are_read(encoding: str, options: tuple[str, ...], shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    file.write_text(f"Email;Username;full_name\n{encoding}@example.com;{encoding};Zoë\n;;\n", encoding=encoding)
    assert shell.run("import-users", str(file), *options).stdout == "1 created, 0 updated, 0 skipped\n"
    assert shell.json("users", "get", encoding)["full_name"] == "Zoë"
    assert "no encoding 'no'" in shell.run("import-users", str(file), "--encoding", "no", code=2).stderr


def test_an_import_that_stops_says_where_to_go_on_and_what_was_rejected_before(
    shell: Shell, new_user: NewUser, tmp_path: Path
) -> None:
    new_user("taken")
    file = written(
        tmp_path / "u.csv",
        "email,username\nnone\nfirst@example.com,first\nwrong,wrong\ntaken@example.com,taken\nlast@example.com,last\n",
    )
    result = shell.run("import-users", file, "--on-conflict", "fail", code=9)
    assert "USER_ALREADY_EXISTS" in result.stderr
    assert "go on with --resume-from 4" in result.stderr
    assert "not in these numbers: 1" in result.stderr
    with (tmp_path / "u.rejects.csv").open(newline="") as lines:
        assert [(row["_row"], row["_reason"]) for row in csv.DictReader(lines)] == [
            ("1", "UNREADABLE"),
            ("3", "INVALID_FIELD"),
        ]
    assert shell.run("import-users", file, "--resume-from", "4").stdout == "1 created, 0 updated, 1 skipped\n"


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
