"""The commands that import and export data, as clients of a running service."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO, cast

import click
import grpc
from commerce.client.cli.private_files import replacing
from commerce.client.cli.user_files import FileError, ImportFile, Rejects, Row
from commerce.common.v1.error_reason_pb2 import ErrorReason
from commerce.orders.v1.order_service_pb2 import ExportOrdersRequest
from commerce.orders.v1.order_service_pb2_grpc import OrderServiceStub
from commerce.users.v1.user_import_pb2 import UserImportConfig, UserImportOnConflict
from commerce.users.v1.user_service_pb2 import ImportUsersRequest, ImportUsersResponse
from commerce.users.v1.user_service_pb2_grpc import UserServiceStub
from google.protobuf.json_format import MessageToJson

from service.cli.channels import TlsOptions, open_channel
from service.config import CallerSettings, SettingsError, load

# A response lists at most this many failed rows, so a call with no more rows than this gets every failure back.
_ROWS_PER_CALL = 1000
_LAST_COMMITTED_ROW = "last-committed-row"
_KEEPALIVE: list[tuple[str, int | str]] = [("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000)]


def import_users(
    file: Path,
    *,
    address: str,
    tls: TlsOptions,
    on_conflict: str,
    rejects: Path | None,
    resume_from: int,
    encoding: str,
) -> None:
    """Import users from a file into the service at the address."""
    rejects = rejects or file.with_suffix(f".rejects{file.suffix}")
    importer: _Importer | None = None
    problem = ""
    try:
        with (
            ImportFile(file, encoding) as rows,
            Rejects(rejects, rows, append=resume_from > 1) as rejected,
            open_channel(address, tls, _KEEPALIVE) as channel,
            click.progressbar(
                length=file.stat().st_size, label="Importing", file=sys.stderr, hidden=not sys.stderr.isatty()
            ) as bar,
        ):
            for chunk in _chunks(row for row in rows if row.number >= resume_from):
                importer = importer or _Importer(UserServiceStub(channel), address, on_conflict, rejected)
                importer.send(chunk)
                bar.update(rows.position() - bar.pos)
    except (FileError, _ImportStopped) as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
        if not importer:
            problem += f"; nothing was imported; continue with --resume-from {resume_from}"
    if importer:
        counts = importer.counts
        click.echo(f"{counts['created']} created, {counts['updated']} updated, {counts['skipped']} skipped")
        if problem:
            problem += f"; {importer.progress()}"
    elif not problem:
        click.echo("0 created, 0 updated, 0 skipped")
    if rejected_count := importer.rejected_count if importer else 0:
        rejection = f"rejected rows: {rejected_count}, see {rejects}"
        problem = f"{problem}; {rejection}" if problem else rejection
    if problem:
        raise click.ClickException(problem)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Yield the rows in lists for one call each; the rows before a FileError come before it."""
    chunk: list[Row] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == _ROWS_PER_CALL:
                yield chunk
                chunk = []
    except FileError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


class _ImportStopped(Exception):
    """The service ended the import. The message says why."""


class _Importer:
    """Sends rows to the service, with one call for each chunk, and counts their outcomes."""

    def __init__(self, stub: UserServiceStub, address: str, on_conflict: str, rejected: Rejects) -> None:
        self._stub = stub
        self._address = address
        self._config = UserImportConfig(
            on_conflict=UserImportOnConflict.Value(f"USER_IMPORT_ON_CONFLICT_{on_conflict.upper()}")
        )
        self._metadata = _credentials()
        self._rejected = rejected
        self._next_row = 1
        self._uncounted = 0
        self.counts: Counter[str] = Counter()

    @property
    def rejected_count(self) -> int:
        """The number of rows that were written to the file of rejected rows."""
        return self._rejected.count

    def progress(self) -> str:
        """Return how to continue after the import has ended early."""
        row = self._next_row
        uncounted = f"{self._uncounted} of them are not in the counts; " if self._uncounted else ""
        return f"the rows before row {row} were imported; {uncounted}continue with --resume-from {row}"

    def send(self, rows: Sequence[Row]) -> None:
        """Import some rows; raises FileError and _ImportStopped if the import cannot continue."""
        # If anything fails, these rows can be sent again.
        self._next_row = rows[0].number
        sent = [row for row in rows if row.message]
        try:
            response = self._stub.ImportUsers(self._requests(sent, self._config), metadata=self._metadata)
        except grpc.RpcError as error:
            self._stop(_failed_call(error), rows, sent)
        self.counts.update(
            created=response.created_count, updated=response.updated_count, skipped=response.skipped_count
        )
        self._report(rows, sent, response)
        self._next_row = rows[-1].number + 1

    def _report(self, rows: Sequence[Row], sent: Sequence[Row], response: ImportUsersResponse) -> None:
        # The service numbers the rows of a call from 1.
        failures = {sent[failure.row_number - 1].number: failure for failure in response.failures}
        for row in rows:
            if row.problem:
                self._rejected.add(row, "UNREADABLE", "", row.problem)
            elif failure := failures.get(row.number):
                reason = ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")
                self._rejected.add(row, reason, failure.field, failure.message)
        self._rejected.flush()

    def _requests(self, rows: Sequence[Row], config: UserImportConfig) -> Iterator[ImportUsersRequest]:
        yield ImportUsersRequest(config=config)
        for row in rows:
            yield ImportUsersRequest(row=row.message)

    def _stop(self, call: grpc.Call, rows: Sequence[Row], sent: Sequence[Row]) -> NoReturn:
        done = int(dict(call.trailing_metadata()).get(_LAST_COMMITTED_ROW, 0))
        next_row = sent[done].number if done < len(sent) else rows[-1].number + 1
        what = _description(call, self._address)
        failures = ImportUsersResponse()
        if call.code() == grpc.StatusCode.ALREADY_EXISTS:
            what = f"row {next_row}: {what}"
            # The status does not list the invalid rows before the conflict. Importing the rows before it once more
            # changes nothing and lists the invalid ones.
            try:
                failures = self._stub.ImportUsers(
                    self._requests(sent[:done], UserImportConfig()), metadata=self._metadata
                )
            except grpc.RpcError as error:
                unknown = _description(_failed_call(error), self._address)
                what += f"; which rows before it were rejected is not known: {unknown}"
        self._next_row, self._uncounted = next_row, done - failures.failure_count
        self._report([row for row in rows if row.number < next_row], sent, failures)
        raise _ImportStopped(what)


def export_orders(*, address: str, tls: TlsOptions, output: str) -> None:
    """Export all orders of the service at the address to a file."""
    with open_channel(address, tls, _KEEPALIVE) as channel, _output_file(output) as file:
        call = OrderServiceStub(channel).ExportOrders(ExportOrdersRequest(), metadata=_credentials())
        orders = (order for response in call for order in response.orders)
        hidden = not sys.stderr.isatty()
        try:
            with click.progressbar(
                orders, label="Exporting", file=sys.stderr, hidden=hidden, show_pos=True, update_min_steps=500
            ) as bar:
                for order in bar:
                    file.write(MessageToJson(order, preserving_proto_field_name=True, indent=None) + "\n")
        except grpc.RpcError as error:
            raise click.ClickException(_description(_failed_call(error), address)) from error


def _credentials() -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata that says who calls; empty if no key is set."""
    try:
        key = load(CallerSettings).api_key
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    return (("x-api-key", key.get_secret_value()),) if key else ()


@contextmanager
def _output_file(output: str) -> Iterator[TextIO]:
    """Yield a file to write; it gets its final name when the block ends without an error."""
    if output == "-":
        yield sys.stdout
        return
    path = Path(output)
    try:
        if path.exists() and not path.is_file():
            # A device or a pipe, which cannot be replaced: writing begins immediately.
            with path.open("w", encoding="utf-8") as file:
                yield file
            return
        # A link is replaced, not followed.
        with replacing(path) as file:
            yield file
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error


def _failed_call(error: grpc.RpcError) -> grpc.Call:
    # gRPC raises the failed call itself as the error, but the declared type does not say so.
    return cast("grpc.Call", error)


def _description(call: grpc.Call, address: str) -> str:
    trailers = dict(call.trailing_metadata())
    if call.code() == grpc.StatusCode.UNAVAILABLE and "grpc-status-details-bin" not in trailers:
        return f"no service answers at {address}"
    return f"{call.details()} ({call.code().name})"
