"""Conversions of imported users from and to messages."""

from commerce.common.v1.error_reason_pb2 import ErrorReason
from commerce.users.v1.user_import_pb2 import UserImportFailure, UserImportOnConflict, UserImportRow

from service.application.imports import ImportRow, OnConflict
from service.domain.errors import AlreadyExists, DomainError, InvalidArgument
from service.domain.users import UserFields, checked_fields, require_password_length

ON_CONFLICT = {
    UserImportOnConflict.USER_IMPORT_ON_CONFLICT_UNSPECIFIED: OnConflict.SKIP,
    UserImportOnConflict.USER_IMPORT_ON_CONFLICT_SKIP: OnConflict.SKIP,
    UserImportOnConflict.USER_IMPORT_ON_CONFLICT_UPDATE: OnConflict.UPDATE,
    UserImportOnConflict.USER_IMPORT_ON_CONFLICT_FAIL: OnConflict.FAIL,
}
_MAX_TEXT = 200


def parse_import_row(message: UserImportRow) -> ImportRow:
    """Return the row in a valid message; the row's fields leave out the empty fields of the message.

    Raises InvalidField like `checked_fields` and `require_password_length`.
    """
    fields = UserFields(email=message.email, username=message.username)
    if message.full_name:
        fields["full_name"] = message.full_name
    if message.HasField("superuser"):
        fields["superuser"] = message.superuser
    if message.profile.bio:
        fields["bio"] = message.profile.bio
    if message.profile.avatar_url:
        fields["avatar_url"] = message.profile.avatar_url
    if message.password:
        require_password_length(message.password, "password")
    return ImportRow(checked_fields(fields), message.password)


def import_failure_message(row_number: int, error: DomainError) -> UserImportFailure:
    """Return the message that tells why a row was not imported."""
    field = error.field if isinstance(error, AlreadyExists) else ""
    if isinstance(error, InvalidArgument):
        field = error.violations[0].field
    return UserImportFailure(
        row_number=row_number,
        reason=ErrorReason.Value(f"ERROR_REASON_{error.reason}"),
        field=field,
        message=error.message[:_MAX_TEXT],
    )
