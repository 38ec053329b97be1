import asyncio
import csv
import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import commerce.users.v1.user_service_pb2 as pb
import grpc
import pytest
from commerce.orders.v1.order_pb2 import Order
from commerce.users.v1.user_pb2 import User, UserProfile
from google.protobuf.json_format import Parse

from service.server import Server
from tests.support.clients import Clients
from tests.support.command import invoke_command
from tests.support.failures import fails
from tests.support.passwords import PASSWORD
from tests.support.policies import guarded_server
from tests.support.processes import CommandResult, run_command, running_command


async def import_users(server: Server, file: Path, *options: str | Path) -> CommandResult:
    return await invoke_command("import-users", file, "--address", f"127.0.0.1:{server.port}", *options)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def row(**fields: Any) -> dict[str, Any]:
    name = f"c{uuid4().hex[:20]}"
    return {"email": f"{name}@example.com", "username": name, **fields}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


async def user_of(clients: Clients, row: dict[str, Any]) -> User:
    return (await clients.users.GetUser(pb.GetUserRequest(email=row["email"]))).user


async def test_users_are_imported_and_orders_exported_from_a_shell(
    server: Server, clients: Clients, tmp_path: Path
) -> None:
    rows = [row(), row() | {"email": "wrong"}]
    file, output = write_csv(tmp_path / "users.csv", rows), tmp_path / "orders.jsonl"
    address = f"127.0.0.1:{server.port}"
    ran = await run_command("import-users", str(file), "--address", address)
    rejects = tmp_path / "users.rejects.csv"
    assert ran == CommandResult(1, "1 created, 0 updated, 0 skipped\n", f"Error: rejected rows: 1, see {rejects}\n")
    order = await clients.create_order((await user_of(clients, rows[0])).id)
    assert await run_command("export-orders", "--address", address, "--output", str(output)) == CommandResult(0, "", "")
    assert order in [Parse(line, Order()) for line in output.read_text().splitlines()]


async def test_a_csv_is_imported_and_again_without_harm(server: Server, clients: Clients, tmp_path: Path) -> None:
    fields = {"full_name": 'Ada "Countess" Lovelace', "superuser": "yes", "bio": "two\nlines", "avatar_url": ""}
    rows = [row(**fields, password=PASSWORD), row(**(fields | {"superuser": ""}), password="")]
    file = write_csv(tmp_path / "users.csv", rows)
    assert await import_users(server, file) == CommandResult(0, "2 created, 0 updated, 0 skipped\n", "")
    user = await user_of(clients, rows[0])
    assert (user.full_name, user.superuser, user.profile.bio) == (fields["full_name"], True, "two\nlines")
    assert not (await user_of(clients, rows[1])).superuser
    await clients.users.VerifyPassword(pb.VerifyPasswordRequest(email=rows[0]["email"], password=PASSWORD))
    assert await import_users(server, file) == CommandResult(0, "0 created, 0 updated, 2 skipped\n", "")
    rows[1]["full_name"] = "Grace"
    file = write_csv(tmp_path / "users.csv", rows)
    assert await import_users(server, file, "--on-conflict", "update") == CommandResult(
        0, "0 created, 1 updated, 1 skipped\n", ""
    )
    assert (await user_of(clients, rows[1])).full_name == "Grace"
    assert names(tmp_path) == ["users.csv"]


async def test_json_lines_are_imported(server: Server, clients: Clients, tmp_path: Path) -> None:
    rows = [row(full_name="Ada", superuser=True, profile={"bio": "Ünïcode"}, _note="ignored"), row()]
    file = write_jsonl(tmp_path / "users.jsonl", rows)
    assert await import_users(server, file) == CommandResult(0, "2 created, 0 updated, 0 skipped\n", "")
    user = await user_of(clients, rows[0])
    assert (user.full_name, user.superuser, user.profile) == ("Ada", True, UserProfile(bio="Ünïcode"))


async def test_rejected_rows_of_a_csv_are_written_with_the_reason_and_can_be_imported_when_corrected(
    server: Server, clients: Clients, tmp_path: Path
) -> None:
    taken = await clients.create_user()
    rows = [row(), row() | {"email": "wrong"}, row(), row() | {"username": taken.username}]
    file = write_csv(tmp_path / "users.csv", rows)
    with file.open("a", encoding="utf-8") as opened:
        opened.write("too,many,columns\n")
        opened.flush()
        opened.buffer.write(b"caf\xe9@example.com,latin1\n")
    ran = await import_users(server, file)
    rejects = tmp_path / "users.rejects.csv"
    assert (ran.status, ran.stdout) == (1, "2 created, 0 updated, 0 skipped\n")
    assert ran.stderr == f"Error: rejected rows: 4, see {rejects}\n"
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    with rejects.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        header, *rejected = csv.reader(opened)
    assert header == ["_row", "_reason", "_field", "_message", "email", "username"]
    assert [cells[:3] for cells in rejected] == [
        ["2", "INVALID_FIELD", "email"],
        ["4", "USER_ALREADY_EXISTS", "username"],
        ["5", "UNREADABLE", ""],
        ["6", "UNREADABLE", ""],
    ]
    assert all(cells[3] for cells in rejected)
    assert rejected[0][4:] == ["wrong", rows[1]["username"]]
    assert rejected[2][4:] == ["too", "many", "columns"]
    assert b"caf\xe9@example.com,latin1" in rejects.read_bytes()
    corrected = [dict(zip(header, rejected[0], strict=True)) | {"email": row()["email"]}]
    file = write_csv(rejects, corrected)
    assert await import_users(server, file) == CommandResult(0, "1 created, 0 updated, 0 skipped\n", "")
    assert (await user_of(clients, corrected[0])).username == rows[1]["username"]


async def test_rejected_json_lines_are_written_with_the_reason(server: Server, tmp_path: Path) -> None:
    wrong = row(superuser="maybe", _row=9)
    file = write_jsonl(tmp_path / "users.jsonl", [row(), wrong, row(nonsense=1), row(password="short")])  # noqa: S106 - too short to be one
    with file.open("a") as opened:
        opened.write("\nnot json\n[1]\n")
    rejects = tmp_path / "bad.jsonl"
    ran = await import_users(server, file, "--rejects", rejects)
    assert (ran.status, ran.stdout) == (1, "1 created, 0 updated, 0 skipped\n")
    rejected = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(line["_row"], line["_reason"], line["_field"]) for line in rejected] == [
        (2, "UNREADABLE", ""),
        (3, "UNREADABLE", ""),
        (4, "INVALID_FIELD", "password"),
        (5, "UNREADABLE", ""),
        (6, "UNREADABLE", ""),
    ]
    assert rejected[0]["email"] == wrong["email"]
    assert [line.get("_line") for line in rejected[3:]] == ["not json", "[1]"]


async def test_every_one_of_many_rejected_rows_is_written(server: Server, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "users.csv", [{"email": "wrong", "username": "ada"}] * 2500)
    ran = await import_users(server, file)
    assert ran.stderr.startswith("Error: rejected rows: 2500, ")
    with (tmp_path / "users.rejects.csv").open(newline="") as opened:
        assert [line["_row"] for line in csv.DictReader(opened)] == [str(number) for number in range(1, 2501)]


async def test_fail_stops_at_the_conflict_and_says_where_to_go_on(
    server: Server, clients: Clients, tmp_path: Path
) -> None:
    user = await clients.create_user()
    rows = [row() for _ in range(1010)]
    rows[1003]["email"] = "wrong"
    rows[1005]["email"] = user.email
    file = write_csv(tmp_path / "users.csv", rows)
    ran = await import_users(server, file, "--on-conflict", "fail")
    assert (ran.status, ran.stdout) == (1, "1000 created, 0 updated, 0 skipped\n")
    assert ran.stderr.startswith("Error: row 1006: another user has this email (ALREADY_EXISTS)")
    assert "; the rows before row 1006 were imported; 4 of them are not in the counts; continue with" in ran.stderr
    assert "--resume-from 1006; rejected rows: 1, see " in ran.stderr
    assert ran.stderr.count("\n") == 1
    await user_of(clients, rows[1004])
    with fails(grpc.StatusCode.NOT_FOUND, "USER_NOT_FOUND"):
        await user_of(clients, rows[1006])
    ran = await import_users(server, file, "--on-conflict", "fail", "--resume-from", "1007")
    assert ran == CommandResult(0, "4 created, 0 updated, 0 skipped\n", "")
    with (tmp_path / "users.rejects.csv").open(newline="") as opened:
        assert [line["_row"] for line in csv.DictReader(opened)] == ["1004"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("users.txt", "email\n", "must end in .csv or .jsonl"),
        ("users.csv", "", "column 'email' is missing"),
        ("users.csv", "email,username,fullname\n", "unknown column 'fullname'; allowed columns: email, username"),
        ("users.csv", f"{'x' * 10_000}\n", f"unknown column '{'x' * 50}'…; allowed columns"),
        ("users.csv", "email,username,email\n", "two columns have the same name"),
        ("users.csv", '"email,username\n', "the header has a quote"),
    ],
)
async def test_a_file_that_cannot_be_read_is_one_line(
    server: Server, tmp_path: Path, name: str, text: str, problem: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "")
    assert problem in ran.stderr
    assert ran.stderr.count("\n") == 1


def reasons(rejects: Path) -> dict[str, str]:
    """Return the messages of the rejected rows, by the numbers of the rows."""
    with rejects.open(newline="", encoding="utf-8", errors="surrogateescape") as opened:
        return {line["_row"]: line["_message"] for line in csv.DictReader(opened)}


async def test_a_csv_is_read_as_spreadsheets_write_it(server: Server, clients: Clients, tmp_path: Path) -> None:
    rows = [row() for _ in range(3)]
    lines = [
        "sep=;",
        "Email;USERNAME;full_name;superuser;bio;password;;",
        f" {rows[0]['email']} ;\u00a0{rows[0]['username']} ; Ada;TRUE;;  {PASSWORD};;",
        ";;;;;;;",
        " ; ;\u00a0;;;;;",
        f'"{rows[1]["email"]}" ; "{rows[1]["username"]}";"Grace ""Amazing"" Hopper";FALSE;"two\r\n\tlines; one";;;',
        "",
        f"{rows[2]['email']};{rows[2]['username']};;;;;;",
    ]
    file = tmp_path / "users.csv"
    file.write_bytes("\r\n".join(lines).encode())
    assert await import_users(server, file) == CommandResult(0, "3 created, 0 updated, 0 skipped\n", "")
    ada, grace = [await user_of(clients, row) for row in rows[:2]]
    assert (ada.username, ada.full_name, ada.superuser) == (rows[0]["username"], "Ada", True)
    await clients.users.VerifyPassword(pb.VerifyPasswordRequest(email=ada.email, password=f"  {PASSWORD}"))
    assert (grace.full_name, grace.profile.bio) == ('Grace "Amazing" Hopper', "two\n\tlines; one")


@pytest.mark.parametrize(
    ("encoding", "options"),
    [
        ("utf-8-sig", ()),
        ("utf-16", ()),
        ("utf-16-le", ()),
        ("utf-16-be", ()),
        ("utf-32", ()),
        ("cp1252", ("--encoding", "cp1252")),
        ("utf-16", ("--encoding", f"utf-16-{sys.byteorder[0]}e")),
    ],
)
async def test_the_encoding_of_a_file_is_detected_or_named(
    server: Server, clients: Clients, tmp_path: Path, encoding: str, options: tuple[str, ...]
) -> None:
    user = row(full_name="Zoë Müller")
    file = tmp_path / "users.csv"
    file.write_text("\r\n".join(",".join(cells) for cells in (user, user.values())), encoding, newline="")
    assert await import_users(server, file, *options) == CommandResult(0, "1 created, 0 updated, 0 skipped\n", "")
    assert (await user_of(clients, user)).full_name == "Zoë Müller"


async def test_a_row_in_another_encoding_says_so(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    rows = [row(full_name=name) for name in ("Ada", "Zoë", "Grace")]
    file.write_text("\n".join(",".join(cells) for cells in (rows[0], *(row.values() for row in rows))), "latin-1")
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "2 created, 0 updated, 0 skipped\n")
    ((number, message),) = reasons(tmp_path / "users.rejects.csv").items()
    assert number == "2"
    assert message.startswith("line 3: the byte 0xEB is not UTF-8; name the encoding of the file with --encoding")
    ran = await import_users(server, file, "--encoding", "klingon")
    assert (ran.status, ran.stdout) == (2, "")
    assert "there is no encoding 'klingon'" in ran.stderr


async def test_text_that_no_encoding_has_costs_only_its_row(server: Server, tmp_path: Path) -> None:
    rows = [row(full_name="Ada"), row(full_name="a\ud83d"), row(full_name="Grace")]
    file = tmp_path / "users.csv"
    lines = "\n".join(",".join(cells) for cells in (rows[0], *(row.values() for row in rows)))
    file.write_bytes(lines.encode("utf-16", "surrogatepass"))
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "2 created, 0 updated, 0 skipped\n")
    ((number, message),) = reasons(tmp_path / "users.rejects.csv").items()
    assert (number, "is not UTF-16" in message) == ("2", True)
    # JSON can write half of a surrogate pair.
    file = write_jsonl(tmp_path / "users.jsonl", [row(), rows[1], row()])
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "2 created, 0 updated, 0 skipped\n")
    (line,) = (tmp_path / "users.rejects.jsonl").read_text().splitlines()
    assert rows[1].items() <= json.loads(line).items()


async def test_json_that_is_nested_too_deep_costs_only_its_row(server: Server, tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "users.jsonl", [row()])
    with file.open("a") as opened:
        opened.write("[" * 100_000 + "\n")
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "1 created, 0 updated, 0 skipped\n")


async def test_a_column_without_a_name_may_be_empty(server: Server, tmp_path: Path) -> None:
    users = [row(), row()]
    file = tmp_path / "users.csv"
    lines = [
        ",email,,username",
        *(f",{user['email']},{value},{user['username']}" for user, value in zip(users, " x", strict=True)),
    ]
    file.write_text("\n".join(lines))
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "1 created, 0 updated, 0 skipped\n")
    message = "line 3: column 3 has no name in the header, but the row has a value there"
    assert reasons(tmp_path / "users.rejects.csv") == {"2": message}


async def test_a_long_field_costs_only_its_row(server: Server, tmp_path: Path) -> None:
    long = [row(full_name="x" * size) for size in (50_000, 200_000, 5_000_000)]
    rows = [row(full_name="x"), *long, row(full_name="x" * 200_000 + "\n"), row(full_name="x")]
    file = write_csv(tmp_path / "users.csv", rows)
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "2 created, 0 updated, 0 skipped\n")
    lines = (tmp_path / "users.rejects.csv").read_text().splitlines()
    assert [line[:1] for line in lines] == ["_", "2", "3", "4", "5", '"']


@pytest.mark.parametrize("last_line", ["", '"', 'late@example.com,"', '"late@example.com","late"'])
async def test_a_stray_quote_costs_only_its_line(server: Server, tmp_path: Path, last_line: str) -> None:
    rows = [row(bio="one\nbio") for _ in range(4000)]
    rows[99]["bio"] = "STRAY"
    file = write_csv(tmp_path / "users.csv", rows)
    file.write_text(file.read_text().replace("STRAY", '"likes engines') + last_line)
    ran = await import_users(server, file)
    assert ran.status == 1
    assert int(ran.stdout.split()[0]) == 3999
    found = reasons(tmp_path / "users.rejects.csv")
    # Before it, 99 rows of two lines and the header.
    assert found.pop("100").startswith("line 200: the line has a quote")
    assert len(found) == bool(last_line)


async def test_rows_before_the_end_of_a_truncated_file_are_imported(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    rows = [row(), row()]
    file.write_bytes(
        "\n".join(",".join(cells) for cells in (rows[0], *(row.values() for row in rows))).encode("utf-16")
    )
    file.write_bytes(file.read_bytes()[:-1])
    ran = await import_users(server, file)
    assert (ran.status, ran.stdout) == (1, "1 created, 0 updated, 0 skipped\n")
    assert "is not utf-16 up to its end" in ran.stderr
    assert "continue with --resume-from 2\n" in ran.stderr
    assert ran.stderr.count("\n") == 1


async def test_no_service_is_one_line(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "users.csv", [row()])
    ran = await invoke_command("import-users", file, "--address", "127.0.0.1:1")
    assert (ran.status, ran.stdout) == (1, "0 created, 0 updated, 0 skipped\n")
    assert ran.stderr == (
        "Error: no service answers at 127.0.0.1:1; the rows before row 1 were imported; continue with --resume-from 1\n"
    )
    # Nothing to send, because all rows are wrong.
    file.write_text("email,username\n1,2,3\n")
    ran = await invoke_command("import-users", file, "--address", "127.0.0.1:1")
    assert (ran.status, ran.stdout) == (1, "0 created, 0 updated, 0 skipped\n")
    assert "the rows before row 2 were imported; continue with --resume-from 2; rejected rows: 1" in ran.stderr
    (tmp_path / "users.rejects.csv").unlink()
    output = tmp_path / "orders.jsonl"
    ran = await invoke_command("export-orders", "--address", "127.0.0.1:1", "--output", output)
    assert ran == CommandResult(1, "", "Error: no service answers at 127.0.0.1:1\n")
    assert names(tmp_path) == ["users.csv"]


async def test_an_import_that_is_interrupted_early_says_where_to_go_on(tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    os.mkfifo(file)
    async with running_command("import-users", str(file), "--resume-from", "7") as process:
        # Opens the pipe as soon as the command reads from it.
        handle = await asyncio.to_thread(os.open, file, os.O_WRONLY)
        process.send(signal.SIGINT)
        finished = await process.end()
        os.close(handle)
    problem = "interrupted; nothing was imported; continue with --resume-from 7"
    assert (finished.status, finished.stderr) == (1, f"Error: {problem}\n")


async def test_the_file_to_import_is_never_written_over(server: Server, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "users.csv", [row() | {"email": "wrong"}])
    before = file.read_bytes()
    ran = await import_users(server, file, "--rejects", file)
    assert ran.status == 1
    assert "it is the file to import" in ran.stderr
    assert file.read_bytes() == before


async def test_orders_are_exported_one_on_each_line(server: Server, clients: Clients, tmp_path: Path) -> None:
    user = await clients.create_user()
    orders = [await clients.create_order(user.id) for _ in range(3)]
    output = tmp_path / "orders.jsonl"
    ran = await invoke_command("export-orders", "--address", f"127.0.0.1:{server.port}", "--output", output)
    assert ran == CommandResult(0, "", "")
    exported = [Parse(line, Order()) for line in output.read_text().splitlines()]
    assert [order for order in exported if order.user_id == user.id] == orders
    assert '"order_number"' in output.read_text()
    assert names(tmp_path) == ["orders.jsonl"]
    ran = await invoke_command("export-orders", "--address", f"127.0.0.1:{server.port}")
    assert ran.stdout == output.read_text()


async def test_an_output_that_cannot_be_written_is_one_line(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "missing" / "orders.jsonl"
    ran = await invoke_command("export-orders", "--address", f"127.0.0.1:{server.port}", "--output", output)
    assert ran == CommandResult(1, "", f"Error: {output}: No such file or directory\n")


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to], ids=["symbolic", "hard"])
async def test_the_file_to_import_is_never_written_over_by_another_name(
    server: Server, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    file = write_csv(tmp_path / "users.csv", [row() | {"email": "wrong"}])
    before = file.read_bytes()
    link(tmp_path / "users.rejects.csv", file)
    ran = await import_users(server, file)
    assert ran.status == 1
    assert "it is the file to import" in ran.stderr
    assert file.read_bytes() == before


async def test_rejected_rows_are_not_written_through_a_link(server: Server, tmp_path: Path) -> None:
    file, other = write_csv(tmp_path / "users.csv", [row() | {"email": "wrong"}]), tmp_path / "other"
    other.write_text("kept")
    (tmp_path / "users.rejects.csv").symlink_to(other)
    ran = await import_users(server, file)
    rejects = tmp_path / "users.rejects.csv"
    assert ran == CommandResult(
        1,
        "0 created, 0 updated, 0 skipped\n",
        f"Error: cannot write the rejected rows to {rejects}: it is a link, which is not followed;"
        " the rows before row 1 were imported; continue with --resume-from 1\n",
    )
    assert other.read_text() == "kept"


async def test_rejected_rows_that_do_not_fit_on_the_disk_are_one_line(server: Server, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "users.csv", [row() | {"email": "wrong"}])
    ran = await import_users(server, file, "--rejects", "/dev/full")
    assert (ran.status, ran.stdout) == (1, "0 created, 0 updated, 0 skipped\n")
    assert ran.stderr.startswith("Error: cannot write the rejected rows to /dev/full: No space left on device; ")
    assert "continue with --resume-from 1" in ran.stderr


async def test_a_pipe_is_imported(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "users.csv"
    os.mkfifo(file)
    user = row()
    text = "\n".join(",".join(cells) for cells in (user, user.values()))
    writing = asyncio.create_task(asyncio.to_thread(file.write_text, text))
    assert await import_users(server, file) == CommandResult(0, "1 created, 0 updated, 0 skipped\n", "")
    await writing


async def test_an_existing_file_of_rejected_rows_becomes_private(server: Server, tmp_path: Path) -> None:
    file, rejects = write_csv(tmp_path / "users.csv", [row() | {"email": "wrong"}]), tmp_path / "users.rejects.csv"
    rejects.write_text("old")
    rejects.chmod(0o644)
    assert (await import_users(server, file)).status == 1
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    assert "old" not in rejects.read_text()


async def export(server: Server, output: Path) -> CommandResult:
    return await invoke_command("export-orders", "--address", f"127.0.0.1:{server.port}", "--output", output)


async def test_an_export_is_private_and_touches_no_other_file(server: Server, clients: Clients, tmp_path: Path) -> None:
    await clients.create_order((await clients.create_user()).id)
    output, part, other = (tmp_path / name for name in ("orders.jsonl", "orders.jsonl.part", "other"))
    part.write_text("kept")
    other.write_text("kept")
    output.symlink_to(other)
    assert (await export(server, output)).status == 0
    assert not output.is_symlink()
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert output.read_text().startswith("{")
    assert part.read_text() == other.read_text() == "kept"
    assert sorted(names(tmp_path)) == ["orders.jsonl", "orders.jsonl.part", "other"]


async def test_an_export_to_a_device_or_a_pipe_writes_to_it(server: Server, clients: Clients, tmp_path: Path) -> None:
    await clients.create_order((await clients.create_user()).id)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
    assert (await export(server, pipe)).status == 0
    assert (await reading).startswith("{")
    assert pipe.is_fifo()
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    assert (await export(server, null)).status == 0
    assert null.is_char_device()
    assert sorted(names(tmp_path)) == ["null", "pipe"]


async def test_the_commands_send_their_api_key(postgres_url: str, template_url: str, tmp_path: Path) -> None:
    file = tmp_path / "users.jsonl"
    file.write_text('{"email": "ada@example.com", "username": "ada"}\n')
    policy = {"key:loader": ["users.admin", "orders.read"]}
    async with guarded_server(postgres_url, template_url, tmp_path, policy) as guarded:
        address = ("--address", f"127.0.0.1:{guarded.server.port}")
        key = guarded.key_of("loader")
        for arguments in (("import-users", str(file), *address), ("export-orders", *address)):
            allowed = await run_command(*arguments, api_key=key)
            assert allowed.status == 0, allowed
            refused = await run_command(*arguments)
            assert refused.status == 1
            assert "the caller sent no credential" in refused.stderr
        actor = await guarded.connection.fetchval("SELECT actor FROM events")
        assert actor == "key:loader"
