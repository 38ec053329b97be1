import re
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import TypeVar
from uuid import UUID, uuid4

import commerce.orders.v1.order_service_pb2 as pb
import grpc
import pytest
from commerce.common.v1.error_reason_pb2 import ErrorReason
from google.protobuf.message import Message
from google.rpc.code_pb2 import Code
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, ResourceInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import assume, given
from hypothesis import strategies as st

from service.application.ports.errors import (
    AlreadyAnswered,
    CommitTimedOut,
    ExportStalled,
    OutcomeUnknown,
    Overloaded,
    StoreError,
)
from service.domain.errors import (
    DomainError,
    EtagMismatch,
    FailedPrecondition,
    FieldViolation,
    IllegalTransition,
    InvalidArgument,
    InvalidField,
    NotFound,
    OrderNotFound,
    OrderNotPending,
    SignInLimited,
    UserAlreadyExists,
    UserNotFound,
)
from service.rpc.messages.values import batch_in_order
from service.rpc.status import IssuerUnavailable, ResponseTooLarge, internal_error, status_of
from tests.support.clients import Clients, item, new_order
from tests.support.failures import fails
from tests.support.paths import ROOT
from tests.support.properties import thorough

MAX_MESSAGE_BYTES = 1000
MAX_STATUS_BYTES = 4096
PROTO = ROOT / "protos/commerce/common/v1/error_reason.proto"
REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:]]
Detail = TypeVar("Detail", bound=Message)

PILES = "\N{PILE OF POO}" * 1000


def leaves(base: type[Exception]) -> Iterator[type[Exception]]:
    """Yield the service's own errors under this one that have nothing below them."""
    own = [kind for kind in base.__subclasses__() if kind.__module__.startswith("service.")]
    for kind in own:
        yield from leaves(kind)
    if not own:
        yield base


def an_error(kind: type[Exception], text: str = "what is wrong") -> Exception:
    """Return an error of this kind that says this."""
    if issubclass(kind, InvalidArgument):
        return kind.at(text, text)
    if issubclass(kind, IllegalTransition):
        return kind("orders/1", "ship", "PENDING", ["CONFIRMED", "CANCELLED"])
    if issubclass(kind, FailedPrecondition):
        return kind("orders/1", text)
    if issubclass(kind, SignInLimited):
        return kind(60)
    return kind(text)


def status(error: Exception) -> Status:
    found = status_of(error)
    assert found is not None
    return found


def details(found: Status) -> dict[type[Message], Message]:
    """Return the details of a status, of which it has at most one of each kind."""
    known: tuple[type[Message], ...] = (ErrorInfo, BadRequest, PreconditionFailure, ResourceInfo, RetryInfo)
    kinds = {kind.DESCRIPTOR.full_name: kind for kind in known}
    unpacked: dict[type[Message], Message] = {}
    for packed in found.details:
        detail = kinds[packed.TypeName()]()
        assert packed.Unpack(detail)
        assert type(detail) not in unpacked
        unpacked[type(detail)] = detail
    return unpacked


def detail_of(error: Exception, kind: type[Detail]) -> Detail:
    detail = details(status(error))[kind]
    assert isinstance(detail, kind)
    return detail


def documented() -> dict[str, tuple[str, str]]:
    """Return what the proto says of each reason: its code, and the rest of its comment."""
    found = re.findall(r"// ([A-Z_]+): (.*(?:\n +// .*)*)\n +ERROR_REASON_(\w+) = ", PROTO.read_text("utf-8"))
    return {reason: (code, comment) for code, comment, reason in found}


DOMAIN_ERRORS = [*leaves(DomainError)]
OTHER_ERRORS = [*leaves(StoreError), ExportStalled, IssuerUnavailable, Overloaded, ResponseTooLarge]
every_error = pytest.mark.parametrize("kind", DOMAIN_ERRORS + OTHER_ERRORS, ids=lambda kind: kind.__name__)


@every_error
def test_every_error_has_a_code_and_a_reason_of_the_proto(kind: type[Exception]) -> None:
    info = detail_of(an_error(kind), ErrorInfo)
    assert info.domain == "commerce"
    assert info.reason in REASONS
    code, comment = documented()[info.reason]
    assert Code.Name(status(an_error(kind)).code) == code
    assert (RetryInfo in details(status(an_error(kind)))) == ("RetryInfo" in comment)


def test_every_reason_of_the_proto_is_that_of_one_error() -> None:
    used = [detail_of(an_error(kind), ErrorInfo).reason for kind in DOMAIN_ERRORS + OTHER_ERRORS]
    assert sorted([*used, "INTERNAL"]) == sorted(REASONS)


def test_every_reason_is_documented_with_its_code() -> None:
    assert sorted(documented()) == sorted(REASONS)


def test_a_retry_is_advised_only_where_nothing_was_written() -> None:
    for kind in OTHER_ERRORS:
        found = status(kind())
        if RetryInfo in details(found):
            delay = detail_of(kind(), RetryInfo).retry_delay.ToTimedelta()
            assert 0.1 <= delay.total_seconds() <= 5
            assert found.code != Code.UNKNOWN


@pytest.mark.parametrize("kind", OTHER_ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_of_the_machinery_shows_nothing_of_its_cause(kind: type[Exception]) -> None:
    found = status(kind("SELECT secret FROM users"))
    assert b"secret" not in found.SerializeToString()
    assert kind.__name__ not in found.message


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), AlreadyAnswered(b"x"), BaseException("x")], ids=repr)
def test_any_other_exception_has_no_status(error: BaseException) -> None:
    assert status_of(error) is None


def test_a_subclass_has_the_status_of_its_base() -> None:
    class Stale(EtagMismatch):
        pass

    assert status(Stale("stale")).code == Code.ABORTED


def test_an_internal_error_holds_an_id_and_nothing_else() -> None:
    found = internal_error("some-id")
    info = details(found)[ErrorInfo]
    assert info == ErrorInfo(reason="INTERNAL", domain="commerce", metadata={"error_id": "some-id"})
    assert (found.code, found.message, len(found.details)) == (Code.INTERNAL, "internal error", 1)


def test_invalid_input_names_each_field_its_rule_and_the_violation() -> None:
    error = InvalidField([FieldViolation("user.email", "must be an e-mail", "STRING_EMAIL"), FieldViolation("id", "x")])
    assert detail_of(error, BadRequest).field_violations == [
        BadRequest.FieldViolation(field="user.email", description="must be an e-mail", reason="STRING_EMAIL"),
        BadRequest.FieldViolation(field="id", description="x"),
    ]
    assert status(error).message == "user.email: must be an e-mail; id: x"


def test_an_illegal_transition_says_where_the_resource_can_go() -> None:
    error = IllegalTransition("orders/1", "ship an order", "PENDING", ["CONFIRMED", "CANCELLED"])
    (violation,) = detail_of(error, PreconditionFailure).violations
    assert (violation.type, violation.subject) == ("ILLEGAL_TRANSITION", "orders/1")
    assert "allowed next states: CONFIRMED, CANCELLED" in violation.description
    assert detail_of(error, ErrorInfo).metadata == {"state": "PENDING", "allowed": "CONFIRMED, CANCELLED"}


def test_any_failed_precondition_names_its_subject() -> None:
    error = OrderNotPending("orders/1", "the order is SHIPPED", {"status": "SHIPPED"})
    (violation,) = detail_of(error, PreconditionFailure).violations
    assert (violation.type, violation.subject) == ("ORDER_NOT_PENDING", "orders/1")
    assert violation.description == "the order is SHIPPED"


def test_a_missing_resource_is_named_by_type_and_name() -> None:
    info = detail_of(OrderNotFound("ORD-1"), ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("commerce.orders.v1.Order", "ORD-1")
    assert status(OrderNotFound("ORD-1")).message == info.description == "order ORD-1 not found"


def test_a_missing_resource_may_have_no_name_to_show() -> None:
    assert status(UserNotFound()).message == "user not found"


def test_a_duplicate_names_the_field_and_not_its_value() -> None:
    error = UserAlreadyExists("email")
    assert detail_of(error, ErrorInfo).metadata == {"field": "email"}
    info = detail_of(error, ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("commerce.users.v1.User", "")


def require_small(found: Status) -> None:
    """Require what fits into trailers for any text of the caller."""
    assert len(found.message.encode("ascii")) <= MAX_MESSAGE_BYTES
    assert len(found.SerializeToString()) <= MAX_STATUS_BYTES


@pytest.mark.parametrize("text", [PILES, "x" * 100_000, "\0" * 100_000, ""], ids=["unicode", "ascii", "zeros", "empty"])
@pytest.mark.parametrize("kind", [*leaves(InvalidArgument)], ids=lambda kind: kind.__name__)
def test_a_status_stays_small_however_much_a_caller_wrote(kind: type[InvalidArgument], text: str) -> None:
    require_small(status(kind.at(text, text)))


def test_a_status_stays_small_with_the_longest_name_that_a_caller_can_ask_for() -> None:
    require_small(status(OrderNotFound("\N{PILE OF POO}" * 32)))


@pytest.mark.parametrize("count", [1, 2, 3, 10, 500])
def test_a_status_stays_small_with_many_wrong_fields(count: int) -> None:
    error = InvalidField([FieldViolation(f"order.metadata[{PILES}]", PILES, "STRING_MAX_LEN")] * count)
    require_small(status(error))
    assert 1 <= len(detail_of(error, BadRequest).field_violations) <= count


@pytest.mark.parametrize("message", ["short", "long"])
def test_a_status_stays_small_wherever_the_last_violation_that_fits_begins(message: str) -> None:
    large, small = FieldViolation("f" * 5000, "d" * 5000, "R" * 5000), FieldViolation("f", "")
    first = [large] if message == "long" else []
    for count in range(600):
        require_small(status(InvalidField([*first, *[small] * count, large, large])))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@thorough
@given(st.lists(st.builds(FieldViolation, texts, texts), max_size=20))
def test_a_status_stays_small_for_any_violations(violations: list[FieldViolation]) -> None:
    require_small(status(InvalidField(violations)))


def test_text_of_a_caller_is_returned_readable_and_in_ascii() -> None:
    error = InvalidField([FieldViolation("order.metadata[na\u00efve\n]", "must be on one line")])
    (violation,) = detail_of(error, BadRequest).field_violations
    assert violation.field.isascii()
    assert violation.field.startswith(r"order.metadata[na\xefve")


RETRY_AFTER = {"CONTENTION": 0.2, "DATABASE_UNAVAILABLE": 1.0, "ISSUER_UNAVAILABLE": 5.0, "OVERLOADED": 0.5}


@pytest.mark.parametrize("kind", OTHER_ERRORS, ids=lambda kind: kind.__name__)
def test_a_retry_is_advised_after_the_documented_time(kind: type[Exception]) -> None:
    found = details(status(kind()))
    info = found[ErrorInfo]
    assert isinstance(info, ErrorInfo)
    assert info.metadata == {}
    assert set(found) == ({ErrorInfo, RetryInfo} if info.reason in RETRY_AFTER else {ErrorInfo})
    if info.reason in RETRY_AFTER:
        delay = detail_of(kind(), RetryInfo).retry_delay
        assert delay.seconds + delay.nanos / 1e9 == RETRY_AFTER[info.reason]


def test_a_timed_out_commit_says_so() -> None:
    assert "did not finish in time" in status(CommitTimedOut()).message
    lost = status(OutcomeUnknown())
    assert "connection lost" in lost.message
    assert lost.code == Code.UNKNOWN
    # No advice to retry: without a request id, that could write twice.
    assert details(lost) == {ErrorInfo: ErrorInfo(reason="OUTCOME_UNKNOWN", domain="commerce")}


def test_an_error_has_the_details_of_its_kind_only() -> None:
    assert set(details(status(InvalidField.at("f", "x")))) == {ErrorInfo, BadRequest}
    assert set(details(status(OrderNotPending("orders/1", "x")))) == {ErrorInfo, PreconditionFailure}
    assert set(details(status(UserNotFound("1")))) == {ErrorInfo, ResourceInfo}
    assert set(details(status(UserAlreadyExists("email")))) == {ErrorInfo, ResourceInfo}
    assert set(details(status(EtagMismatch("x")))) == {ErrorInfo}


def test_the_message_of_a_detail_is_that_of_the_status() -> None:
    for error in (UserNotFound("1"), UserAlreadyExists("email")):
        assert detail_of(error, ResourceInfo).description == status(error).message


def test_a_long_message_is_cut_and_shows_other_characters_as_question_marks() -> None:
    assert status(EtagMismatch("x" * 999 + "yz")).message == "x" * 999 + "y"
    assert status(EtagMismatch("na\u00efve")).message == "na?ve"


def test_the_parts_of_a_violation_are_cut() -> None:
    error = InvalidField([FieldViolation("f" * 199 + "gh", "d" * 199 + "ef", "R" * 62 + "ST")])
    (violation,) = detail_of(error, BadRequest).field_violations
    assert (violation.field, violation.description) == ("f" * 199 + "g", "d" * 199 + "e")
    assert violation.reason == "R" * 62 + "S"
    (violation,) = detail_of(InvalidField.at("\u00ef" * 100, "x"), BadRequest).field_violations
    assert violation.field == "\\xef" * 50


@pytest.mark.parametrize(("size", "is_listed"), [(2000, True), (2001, False)])
def test_violations_are_listed_until_they_have_more_than_two_thousand_bytes(size: int, *, is_listed: bool) -> None:
    # Nine violations of 204 bytes each, and one that fills the rest.
    violations = [FieldViolation("f" * 97, "d" * 100)] * 9
    rest = size - detail_of(InvalidField(violations), BadRequest).ByteSize()
    violations.append(FieldViolation("f" * 50, "d" * (rest - 57)))
    assert detail_of(InvalidField(violations), BadRequest).ByteSize() == size
    more = detail_of(InvalidField([*violations, FieldViolation("last", "")]), BadRequest)
    assert (more.field_violations[-1].field == "last") is is_listed


def missing_from(ids: Sequence[UUID], found: Sequence[UUID]) -> NotFound:
    rows = [SimpleNamespace(id=key, message=b"", row_bytes=1) for key in found]
    with pytest.raises(OrderNotFound) as error:
        batch_in_order([str(key) for key in ids], rows, OrderNotFound, len(ids))
    return error.value


def indexes(ranges: str) -> list[int]:
    """Return the numbers that 0-2,7 stands for."""
    ends = [[int(end) for end in part.split("-")] for part in ranges.split(",")]
    return [number for end in ends for number in range(end[0], end[-1] + 1)]


def test_rows_come_in_the_order_of_the_ids_and_as_often() -> None:
    one, two = (SimpleNamespace(id=uuid4(), message=b"", row_bytes=size) for size in (3, 5))
    ids = [str(row.id) for row in (two, one, two)]
    assert batch_in_order(ids, [one, two], OrderNotFound, 13) == [two, one, two]
    with pytest.raises(ResponseTooLarge):
        batch_in_order(ids, [one, two], OrderNotFound, 12)
    with pytest.raises(ResponseTooLarge):
        batch_in_order([str(uuid4())], [one, two], OrderNotFound, 7)


@pytest.mark.parametrize(
    "is_missing",
    [
        lambda index: index % 2 == 1,
        lambda index: index % 2 == 0,
        # Ranges of two take the most room.
        lambda index: index % 3 != 0,
        lambda index: index % 3 != 1,
        lambda _index: True,
        lambda index: index == 999,
    ],
    ids=["odd", "even", "two of three", "two of three, later", "all", "the last"],
)
def test_every_missing_id_is_named_in_a_small_status(is_missing: Callable[[int], bool]) -> None:
    ids = [uuid4() for _ in range(1000)]
    missing = [index for index in range(1000) if is_missing(index)]
    error = missing_from(ids, [key for index, key in enumerate(ids) if index not in set(missing)])
    require_small(status(error))
    metadata = detail_of(error, ErrorInfo).metadata
    assert indexes(metadata["missing_indexes"]) == missing
    assert metadata["missing_count"] == str(len(missing))
    assert metadata["missing_ids"].split(",") == [str(ids[index]) for index in missing[:10]]
    assert detail_of(error, ResourceInfo).resource_name == str(ids[missing[0]])


@thorough
@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_the_ranges_name_exactly_the_missing_ids(missing: list[bool]) -> None:
    assume(any(missing))
    ids = [UUID(int=index) for index in range(len(missing))]
    error = missing_from(ids, [key for key, is_missing in zip(ids, missing, strict=True) if not is_missing])
    expected = [index for index, is_missing in enumerate(missing) if is_missing]
    assert indexes(error.metadata["missing_indexes"]) == expected


@pytest.mark.parametrize(
    "fields",
    [
        # Wrong in each field, and in more places than fit.
        {"items": [item("\n" * 1000, -1, 0) for _ in range(600)]},
        # Paths hold the keys: as long as a request can make them, of characters that grow on their way.
        {"metadata": {"\1" * 1_000_000: "\2", "\N{PILE OF POO}\3" * 100_000: "\4" * 1000}},
    ],
    ids=["items", "keys"],
)
async def test_the_worst_requests_still_get_their_answer(clients: Clients, fields: dict[str, object]) -> None:
    user = await clients.create_user()
    with fails(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD") as failure:
        await clients.orders.CreateOrder(pb.CreateOrderRequest(order=new_order(user.id, **fields)))
    assert failure.fields
    assert len(failure.message) <= MAX_MESSAGE_BYTES
    assert len(failure.trailers["grpc-status-details-bin"]) <= MAX_STATUS_BYTES
