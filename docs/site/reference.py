"""The reference, generated from the protos: services, methods, messages, rules of fields, errors and permissions.

It has what the console knows (`clients.console.generate`), and of each method also its path for REST and how it is
limited to what belongs to one user.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clients.console.generate import HEALTH, schema
from clients.openapi.descriptors import Protos
from docs.site.rules import flags_of

_AUTHORIZATION = "[commerce.common.v1.authorization]"
_HTTP = "[google.api.http]"
_KINDS = {
    "unary": "one request, one response",
    "server_stream": "one request, a stream of responses",
    "client_stream": "a stream of requests, one response",
}
_OF_GOOGLE = "https://protobuf.dev/reference/protobuf/google.protobuf/#"
_FIELD_HEAD = "| Field | Type | Rules | Meaning |\n|---|---|---|---|"
_INTRODUCTION = """\
Everything here is generated from the protos: the services and their methods, with the rules of each field and the
errors of each method; the [messages](messages.md) that several of them use; and the [permissions](permissions.md).
[Errors](../errors.md) explains each reason."""
_JSON = """\
In JSON (over [HTTP](../http.md) and [REST](../rest.md)), the names of fields are in lowerCamelCase, numbers of 64 bits
are strings, and times are texts such as `2026-11-30T12:00:00Z`."""
_POLICIES = """\
What a caller needs, if the server has a policy: [Security](../security.md#permissions) explains policies, and what the
permissions limited to one user (`:own`) mean."""
_GENERATED = "<!-- Generated from the protos by docs/site/reference.py. -->\n"


def reference(docs: Path) -> dict[str, str]:
    """Return the pages of the reference, by their paths.

    Args:
        docs: the folder with the pages written by hand, for the links to each reason of an error.
    """
    return _Reference(docs).pages()


def sections_of_reasons(docs: Path) -> dict[str, str]:
    """Return the section of each reason of an error in the catalogue: its path from `docs`, with the fragment."""
    return {
        reason: f"{path.relative_to(docs).as_posix()}#{reason.lower()}"
        for path in sorted((docs / "errors").glob("*.md"))
        for reason in re.findall(r"^## ([A-Z_]+)$", path.read_text("utf-8"), re.MULTILINE)
    }


class _Reference:
    def __init__(self, docs: Path) -> None:
        self._schema = schema()
        self._protos = Protos()
        self._sections = sections_of_reasons(docs)
        services = self._schema["services"]
        # By its full name, the page of a service.
        self._service_pages = {service["name"]: f"{_short(service['name']).lower()}.md" for service in services}
        # Requests and responses are described with their method.
        self._of_methods = {method[side] for service in services for method in service["methods"] for side in _SIDES}
        names = Counter(_short(name) for name in (*self._schema["messages"], *self._schema["enums"]))
        self._ambiguous = {name for name, count in names.items() if count > 1}

    def pages(self) -> dict[str, str]:
        services = self._schema["services"]
        pages = {
            "index.md": self._index(),
            **{self._service_pages[service["name"]]: self._service(service) for service in services},
            "messages.md": self._messages(),
            "permissions.md": self._permissions(),
        }
        return {f"reference/{name}": f"{_GENERATED}\n{text.strip()}\n" for name, text in pages.items()}

    def _index(self) -> str:
        parts = [
            "# Reference",
            _INTRODUCTION,
            _JSON,
        ]
        for service in self._schema["services"]:
            page = self._service_pages[service["name"]]
            rows = [
                f"| [{method['name']}]({page}#{_slug(method['name'])}) | {_cell(_sentence(method['doc']))} |"
                f" {self._permission(method)} |"
                for method in service["methods"]
            ]
            head = "| Method | What it does | Permission |\n|---|---|---|"
            parts += [f"## [{_short(service['name'])}]({page})", _table(head, rows)]
        return "\n\n".join(parts)

    def _permission(self, method: Mapping[str, Any]) -> str:
        return f"`{method['permission']}`" if method["permission"] else "-"

    def _service(self, service: Mapping[str, Any]) -> str:
        parts = [f"# {_short(service['name'])}", f"`{service['name']}`", _prose(service["doc"])]
        for method in service["methods"]:
            parts += [f"## {method['name']}", _prose(method["doc"]), self._facts(service["name"], method)]
            parts += ["**Request**", self._fields(method["input"])]
            if example := method.get("example"):
                parts.append(f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```")
            parts += ["**Response**", self._fields(method["output"])]
            if method["errors"]:
                parts += ["**Errors**", self._errors(method)]
        return "\n\n".join(parts)

    def _facts(self, service: str, method: Mapping[str, Any]) -> str:
        facts = [_KINDS[method["kind"]], "no side effects" if method["reads"] else "changes what is stored"]
        if method["permission"]:
            facts.append(f"needs [`{method['permission']}`](permissions.md)")
        options = {} if service == HEALTH else self._options(f"{service}.{method['name']}")
        if own := options.get(_AUTHORIZATION, {}).get("own"):
            fields = [name for names in own.values() for name in ([names] if isinstance(names, str) else names)]
            facts.append(f"can be limited to what belongs to one user, by {_codes(fields)}")
        lines = [f"- {fact[:1].upper()}{fact[1:]}." for fact in facts]
        lines += [f"- REST: `{http_method} {path}`" for http_method, path in _rest(options.get(_HTTP, {}))]
        return "\n".join(lines)

    def _options(self, method: str) -> dict[str, Any]:
        return self._protos.options(self._protos.pool.FindMethodByName(method))

    def _errors(self, method: Mapping[str, Any]) -> str:
        by_code: dict[str, list[str]] = {}
        for code, reason in method["errors"]:
            by_code.setdefault(code, []).append(self._reason(reason))
        rows = [f"| {code} | {', '.join(reasons)} |" for code, reasons in by_code.items()]
        return _table("| Code | Reasons |\n|---|---|", rows)

    def _reason(self, reason: str) -> str:
        section = self._sections.get(reason)
        return f"[`{reason}`](../{section})" if section else f"`{reason}`"

    def _messages(self) -> str:
        messages, enums = self._schema["messages"], self._schema["enums"]
        shared = {name: message for name, message in messages.items() if name not in self._of_methods}
        parts = ["# Messages", "The messages and enums that several methods use."]
        for name, message in shared.items():
            parts += [f"## {self._title(name)}", f"`{name}`", _prose(message["doc"]), self._fields(name)]
        for name, enum in enums.items():
            rows = [f"| `{value}` | {number} | {_cell(doc)} |" for value, doc, number in enum["values"]]
            table = _table("| Value | Number | Meaning |\n|---|---|---|", rows)
            parts += [f"## {self._title(name)}", f"`{name}`", _prose(enum["doc"]), table]
        return "\n\n".join(part for part in parts if part)

    def _fields(self, name: str) -> str:
        message = self._schema["messages"].get(name)
        if message is None or not message["fields"]:
            return "No fields."
        rows = [self._field(field) for field in message["fields"]]
        notes = [
            f"{'Exactly' if oneof['required'] else 'At most'} one field of `{oneof_name}` is set. {oneof['doc']}"
            for oneof_name, oneof in message.get("oneofs", {}).items()
        ]
        return "\n\n".join([_table(_FIELD_HEAD, rows), *map(_prose, notes)])

    def _field(self, field: Mapping[str, Any]) -> str:
        rules, meaning = _cell("; ".join(flags_of(field))), _cell(field.get("doc", ""))
        return f"| `{field['name']}` | {self._type(field)} | {rules} | {meaning} |"

    def _type(self, field: Mapping[str, Any]) -> str:
        kind = self._linked(field["ref"]) if "ref" in field else field["type"]
        match field.get("label", ""):
            case "repeated":
                return f"list of {kind}"
            case "map":
                return f"map of {field['key']} to {kind}"
            case _:
                return str(kind)

    def _linked(self, name: str) -> str:
        if name.startswith("google.protobuf."):
            return f"[{_short(name)}]({_OF_GOOGLE}{_slug(_short(name).replace('.', ''))})"
        if name in self._of_methods:
            return f"`{_short(name)}`"
        return f"[{_short(name)}](messages.md#{_slug(self._title(name))})"

    def _title(self, name: str) -> str:
        """Return the heading of a message or an enum; that of a name in two packages has the package."""
        short = _short(name)
        return f"{name.split('.')[1]}.{short}" if short in self._ambiguous else short

    def _permissions(self) -> str:
        methods: dict[str, list[str]] = {}
        limited: dict[str, list[str]] = {}
        for service in self._schema["services"]:
            page = self._service_pages[service["name"]]
            for method in service["methods"]:
                if not method["permission"]:
                    continue
                link = f"[{method['name']}]({page}#{_slug(method['name'])})"
                methods.setdefault(method["permission"], []).append(link)
                if "own" in self._options(f"{service['name']}.{method['name']}").get(_AUTHORIZATION, {}):
                    limited.setdefault(method["permission"], []).append(link)
        rows = [
            f"| `{permission}` | {', '.join(links)} | {', '.join(limited.get(permission, [])) or '-'} |"
            for permission, links in sorted(methods.items())
        ]
        fields = [
            f"| `{field['permission']}` | `{field['name']}` of {self._linked(name)} |"
            for name, message in self._schema["messages"].items()
            for field in message["fields"]
            if field.get("permission")
        ]
        return "\n\n".join(
            [
                "# Permissions",
                _POLICIES,
                _table("| Permission | Methods | Methods of `:own` |\n|---|---|---|", rows),
                "These fields need a permission of their own, in addition to that of the method:",
                _table("| Permission | Field |\n|---|---|", fields),
            ]
        )


_SIDES = ("input", "output")


def _short(name: str) -> str:
    """Return the name of a message, an enum or a service without its package.

    >>> _short("commerce.orders.v1.Order"), _short("google.type.Money"), _short("grpc.health.v1.Health")
    ('Order', 'Money', 'Health')
    >>> _short("grpc.health.v1.HealthCheckResponse.ServingStatus")
    'HealthCheckResponse.ServingStatus'
    """
    return re.sub(r"^([a-z0-9_]+\.)+", "", name)


def _slug(title: str) -> str:
    """Return the fragment of a heading, as in links on GitHub."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _rest(rule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for http_method, path in rule.items():
        if http_method in {"get", "post", "patch", "put", "delete"}:
            yield http_method.upper(), path
    for more in rule.get("additional_bindings", ()):
        yield from _rest(more)


def _codes(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _sentence(text: str) -> str:
    """Return the first sentence of a comment."""
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0]


def _prose(text: str) -> str:
    """Return a comment as Markdown: its lists, which begin without an empty line, begin with one."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        head, *points = re.split(r"(?:^|\n)- ", paragraph)
        parts += [_escaped(head.strip())] if head.strip() else []
        parts += ["\n".join(f"- {_escaped(point.strip())}" for point in points)] if points else []
    return "\n\n".join(parts)


def _cell(text: str) -> str:
    r"""Return a comment as one cell of a table.

    >>> _cell("One of:\n- a\n- b|c, `d|e`")
    'One of:<br>- a<br>- b\\|c, `d|e`'
    """
    return _escaped(text.strip(), "|").replace("\n\n", "<br>").replace("\n", "<br>")


def _escaped(text: str, also: str = "") -> str:
    """Return a text in which nothing outside of code is read as HTML, nor these further characters as Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    for index in range(0, len(parts), 2):
        parts[index] = parts[index].replace("<", "&lt;")
        for character in also:
            parts[index] = parts[index].replace(character, f"\\{character}")
    return "".join(parts)


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([head, *rows])
