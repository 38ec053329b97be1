"""Commands made from RPCs: what they take, and what they print, follows from the descriptors."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from commerce.client.cli.output import print_list, print_one
from commerce.client.cli.parameters import (
    REFERENCES,
    behaviors,
    option_name,
    option_of,
    password_of,
    password_option,
    settable,
    summary,
    type_of,
)
from commerce.client.cli.references import IDS, KEYS, NO_SUCH_USER, likely_user_id
from commerce.client.cli.session import Session, output_options, yes_option
from commerce.client.generated.descriptions import DESCRIPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

    from commerce.client.methods import Method
    from commerce.client.sync.pages import Pages

# They have other options: `--limit` reads as many pages as it takes, and an update changes what is given.
_OTHERWISE = {"page_size", "page_token", "include_total_size", "update_mask", "validate_only", "password"}
_LIMIT = 50
_MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Command:
    """A command that makes one call.

    Attributes:
        name: of the command.
        call: the method of the client, such as `orders.confirm`.
        method: its RPC.
        about: what `id`, or the key of a Get, names: `USER`, `ORDER` or `NOTE`.
        arguments: fields that are given by position, in this order.
        columns: of the table, if it prints several messages.
        question: asked before it is done, if it cannot be undone.
    """

    name: str
    call: str
    method: Method[Any, Any]
    about: str = ""
    arguments: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    question: str = ""

    def build(self) -> click.Command:
        """Return the command."""
        command = click.Command(
            self.name,
            params=[*self._positional(), *self._options()],
            callback=self._run,
            help=DESCRIPTIONS[self.method.path[1:].replace("/", ".")],
            short_help=summary(DESCRIPTIONS[self.method.path[1:].replace("/", ".")]),
        )
        if self.question:
            command = yes_option(command)
        return output_options(command)

    @property
    def _request(self) -> Descriptor:
        descriptor: Descriptor = self.method.request.DESCRIPTOR
        return descriptor

    def _resource(self) -> FieldDescriptor | None:
        """Return the field with the resource that is created or updated."""
        if not self.method.path.rpartition("/")[2].startswith(("Create", "Update")):
            return None
        return next(field for field in self._request.fields if field.message_type is not None)

    @property
    def _updates(self) -> bool:
        return "update_mask" in self._request.fields_by_name

    def _key(self) -> set[str]:
        """Return the names of the alternative fields of a key: the caller sets one of them to name the resource."""
        return {
            field.name for oneof in self._request.oneofs if oneof.name in {"key", "login"} for field in oneof.fields
        }

    def _fields(self) -> list[FieldDescriptor]:
        """Return the fields that are options or arguments."""
        from google.api.field_behavior_pb2 import IMMUTABLE

        resource = self._resource()
        fields = [field for field in self._request.fields if field.name not in _OTHERWISE and field != resource]
        if resource is not None:
            changed = settable(resource.message_type)
            if self._updates:
                changed = [field for field in changed if IMMUTABLE not in behaviors(field)]
            else:
                changed = [field for field in changed if field.name != "etag"]
            fields = [*changed, *fields]
        key = self._key()
        return [field for field in fields if field.name not in key and not (self.about and field.name == "id")]

    def _positional(self) -> list[click.Parameter]:
        fields = {field.name: field for field in self._fields()}
        found: list[click.Parameter] = []
        if self.about:
            found.append(click.Argument(["resource"], metavar=self.about))
        for name in self.arguments:
            field = fields[name]
            many = bool(field.is_repeated)
            metavar = option_name(name).upper() + ("..." if many else "")
            found.append(
                click.Argument([name], type=type_of(field), nargs=-1 if many else 1, required=True, metavar=metavar)
            )
        return found

    def _options(self) -> list[click.Parameter]:
        from google.api.field_behavior_pb2 import REQUIRED

        found: list[click.Parameter] = []
        for field in self._fields():
            if field.name not in self.arguments:
                required = REQUIRED in behaviors(field) and not self._updates
                found += option_of(field, required=required, clears=self._updates)
        names = self._request.fields_by_name
        if "password" in names:
            found.append(password_option())
        if "page_size" in names:
            found.append(
                click.Option(
                    ["--limit"],
                    type=click.IntRange(min=0),
                    default=_LIMIT,
                    show_default=True,
                    metavar="N",
                    help="Print at most so many; 0 for all.",
                )
            )
        if "validate_only" in names:
            found.append(click.Option(["--dry-run"], is_flag=True, help="Check everything, and write nothing."))
        return found

    def _run(self, **given: Any) -> None:
        session = click.get_current_context().ensure_object(Session)
        session.changes = not self.method.reads
        if self.question and not given.get("dry_run"):
            facts = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in given.items()}
            session.confirm(self.question.format_map(facts))
        password = password_of(given["password_file"]) if "password_file" in given else None
        with session.waiting():
            arguments = self._arguments(session, given)
            if password is not None:
                arguments["password"] = password
            result = self._call(session, arguments, given)
            self._print(session, result, given)
        if given.get("dry_run"):
            session.note("dry run: nothing was written")

    def _call(self, session: Session, arguments: dict[str, Any], given: dict[str, Any]) -> Any:
        service, _, name = self.call.partition(".")
        call: Callable[..., Any] = getattr(getattr(session.client, service), name)
        if self._updates:
            if not arguments.keys() - {"id", "request_id", "validate_only", "etag"}:
                raise click.UsageError("nothing to change: name a field, as listed by --help")
            return call(arguments.pop("id"), **arguments)
        try:
            return call(**arguments)
        except NO_SUCH_USER as error:
            if not (self.about == "USER" and self._key()):
                raise
            return call(id=likely_user_id(session, given["resource"], error))

    def _arguments(self, session: Session, given: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of the method."""
        arguments = {
            field.name: value for field in self._fields() if (value := value_of(session, field, given)) is not None
        }
        if self.about:
            text = given["resource"]
            arguments |= KEYS[self.about](text) if self._key() else {"id": IDS[self.about](session, text)}
        if given.get("dry_run"):
            arguments["validate_only"] = True
        elif "request_id" in given:
            # Known here, so that an error can say with which id to repeat the command.
            session.request_id = arguments.setdefault("request_id", str(uuid4()))
        if "limit" in given:
            arguments["page_size"] = min(given["limit"] or _MAX_PAGE, _MAX_PAGE)
        return arguments

    def _print(self, session: Session, result: Any, given: dict[str, Any]) -> None:
        if "limit" in given:
            self._print_pages(session, result, given["limit"])
        elif self.columns:
            print_list(session, self._items(), result, self.columns)
        elif result is not None and result.DESCRIPTOR.fields:
            print_one(session, result)

    def _items(self) -> Descriptor:
        """Return the type of the elements of the repeated field of the response."""
        field = next(field for field in self.method.response.DESCRIPTOR.fields if field.is_repeated)
        descriptor: Descriptor = field.message_type
        return descriptor

    def _print_pages(self, session: Session, pages: Pages[Any], limit: int) -> None:
        # Iterating asks for the next page, too, which a limit within one page does not need.
        page = pages.first_page() if 0 < limit <= _MAX_PAGE else None
        if page is not None and (len(page.items) == limit or not page.next_page_token):
            print_list(session, self._items(), page.items, self.columns)
            has_more = bool(page.next_page_token)
        else:
            found = iter(pages)
            print_list(session, self._items(), islice(found, limit) if limit else found, self.columns)
            has_more = bool(limit) and next(found, None) is not None
        if has_more:
            session.note(f"there are more than {limit}: pass --limit 0 for all")


def value_of(session: Session, field: FieldDescriptor, given: dict[str, Any]) -> Any:
    """Return the value that options give to a field; None if they give none."""
    if field.message_type is not None and field.message_type.full_name == "google.type.Interval":
        interval = (given["created_after"], given["created_before"])
        return interval if any(interval) else None
    if field.message_type is not None and field.name not in given:
        # Its fields are options of their own.
        inner = {name: given[name] for name in field.message_type.fields_by_name if given.get(name) is not None}
        return inner or None
    value = given[field.name]
    if value is None or value == ():
        return None
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    found = [_one(session, field, item) for item in (value if field.is_repeated else [value])]
    return found if field.is_repeated else found[0]


def _one(session: Session, field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        return value.upper()
    kind = REFERENCES.get(field.name)
    return IDS[kind](session, value) if kind else value


def group(name: str, help_text: str, commands: Iterable[Command], *others: click.Command) -> click.Group:
    """Return a group of commands."""
    made = click.Group(name, help=help_text)
    for command in commands:
        made.add_command(command.build())
    for other in others:
        made.add_command(other)
    return made
