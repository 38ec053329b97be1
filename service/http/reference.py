"""The OpenAPI description as a page to read: one HTML document without scripts, which needs nothing from elsewhere."""

import json
import re
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #666; --soft: #8881; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; --link: #8ab4f8; } }
* { box-sizing: border-box; }
body { font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
body { margin: 0 auto; max-width: 62rem; padding: 1rem; }
a { color: var(--link); }
code, pre { font: 0.9em/1.5 ui-monospace, monospace; }
pre { background: var(--soft); border-radius: 0.4rem; overflow: auto; padding: 0.75rem; }
nav ul { columns: 15rem; list-style: none; padding: 0; }
details { border: 1px solid var(--line); border-radius: 0.4rem; margin: 0.5rem 0; padding: 0.5rem 0.75rem; }
summary { cursor: pointer; }
summary h3 { display: inline; font-size: 1rem; }
table { border-collapse: collapse; width: 100%; }
th { white-space: nowrap; }
th, td { border-top: 1px solid var(--line); padding: 0.3rem 0.5rem 0.3rem 0; text-align: left; vertical-align: top; }
td p, td ul { margin: 0 0 0.3rem; }
.quiet { color: var(--quiet); }
/* A link to what is inside an element that is closed opens it. */
details > div { scroll-margin-top: 4rem; }
:target { outline: 2px solid var(--link); outline-offset: 2px; }
"""
_REFERENCE = "#/components/schemas/"
# The rules of a value that are shown beside its type.
_RULES = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} elements",
    "maxItems": "at most {} elements",
    "maxProperties": "at most {} entries",
    "minimum": "at least {}",
    "maximum": "at most {}",
    "pattern": "pattern {}",
}


def reference_page(document: dict[str, Any]) -> str:
    """Return the page of a description."""
    title = escape(document["info"]["title"])
    services = "".join(_service(document, tag) for tag in document["tags"])
    schemas = "".join(_schema(name, schema) for name, schema in document["components"]["schemas"].items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<header><h1>{title}</h1>{_text(document['info']['description'])}"
        '<p>The same for programs: <a href="/openapi.json">openapi.json</a> (OpenAPI 3.1).</p></header>'
        f'<nav aria-label="Methods">{_contents(document)}</nav><main>{services}<h2 id="schemas">Messages</h2>{schemas}'
        "</main></body></html>"
    )


def _operations(document: dict[str, Any], tag: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the paths of a service, each with its operations."""
    return [(path, operations) for path, operations in document["paths"].items() if tag in operations["post"]["tags"]]


def _contents(document: dict[str, Any]) -> str:
    parts = []
    for tag in document["tags"]:
        links = "".join(
            f'<li><a href="#{_anchor(path)}">{escape(path.rpartition("/")[2])}</a></li>'
            for path, _ in _operations(document, tag["name"])
        )
        parts.append(f"<h2>{escape(tag['name'])}</h2><ul>{links}</ul>")
    return "".join(parts)


def _service(document: dict[str, Any], tag: dict[str, Any]) -> str:
    methods = "".join(_method(path, operations) for path, operations in _operations(document, tag["name"]))
    return f"<section><h2>{escape(tag['name'])}</h2>{_text(tag['description'])}{methods}</section>"


def _method(path: str, operations: dict[str, Any]) -> str:
    post = operations["post"]
    body = post["requestBody"]["content"]["application/json"]
    example = escape(json.dumps(body["example"], indent=2, ensure_ascii=False))
    responses = "".join(
        f"<tr><th scope='row'>{status}</th><td>{_text(response['description'])}</td><td>{_content(response)}</td></tr>"
        for status, response in post["responses"].items()
    )
    allowed = "GET, POST" if "get" in operations else "POST"
    return (
        f"<details><summary><h3>{escape(path.rpartition('/')[2])}</h3> "
        f'<span class="quiet">{_inline(post["summary"])}</span></summary>'
        f'<div id="{_anchor(path)}">'
        f"<p>{allowed} <code>{escape(path)}</code></p>{_text(post['description'])}"
        f"<p>Request: {_type(body['schema'])}. Example:</p><pre>{example}</pre>"
        "<table><thead><tr><th scope='col'>Status</th><th scope='col'>Meaning</th><th scope='col'>Body</th></tr>"
        "</thead>"
        f"<tbody>{responses}</tbody></table></div></details>"
    )


def _content(response: dict[str, Any]) -> str:
    ((_, content),) = response["content"].items()
    return _type(content["schema"])


def _schema(name: str, schema: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th scope='row'><code>{escape(field)}</code></th>"
        f"<td>{_type(of_field)}{_flags(schema, field, of_field)}</td>"
        f"<td>{_text(of_field.get('description', ''))}</td></tr>"
        for field, of_field in schema.get("properties", {}).items()
    )
    table = (
        "<table><thead><tr><th scope='col'>Field</th><th scope='col'>Type</th><th scope='col'>Meaning</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
    return (
        f'<details><summary><h3>{escape(name)}</h3></summary><div id="{_anchor(name)}">'
        f"{_text(schema.get('description', ''))}{table if rows else ''}</div></details>"
    )


def _flags(message: dict[str, Any], field: str, schema: dict[str, Any]) -> str:
    flags = [template.format(escape(str(schema[rule]))) for rule, template in _RULES.items() if rule in schema]
    if field in message.get("required", ()):
        flags.insert(0, "required")
    if schema.get("readOnly"):
        flags.insert(0, "set by the server")
    if permission := schema.get("x-permission-to-set"):
        flags.append(f"needs {escape(permission)}")
    return f'<br><span class="quiet">{"; ".join(flags)}</span>' if flags else ""


def _type(schema: dict[str, Any]) -> str:
    """Return the type of a value, with a link to the message that it is."""
    if reference := schema.get("$ref"):
        name = reference.removeprefix(_REFERENCE)
        return f'<a href="#{_anchor(name)}">{escape(name.rpartition(".")[2])}</a>'
    if "oneOf" in schema and "properties" not in schema:
        lines = [
            f"{escape(name)}: {_type(kind)}" for line in schema["oneOf"] for name, kind in line["properties"].items()
        ]
        return "a line each: " + ", ".join(lines)
    match schema["type"]:
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object" if "additionalProperties" in schema:
            return f"map to {_type(schema['additionalProperties'])}"
        case str(kind):
            return escape(schema.get("format", kind))
        case kinds:
            return escape(" or ".join(kinds))


def _text(text: str) -> str:
    """Return paragraphs and lists of a comment as HTML."""
    html = []
    for paragraph in text.strip().split("\n\n"):
        head, *points = re.split(r"(?:^|\n)- ", paragraph)
        if head.strip():
            html.append(f"<p>{_inline(head.strip())}</p>")
        if points:
            html.append(f"<ul>{''.join(f'<li>{_inline(point)}</li>' for point in points)}</ul>")
    return "".join(html)


def _inline(text: str) -> str:
    """Return a text with its code and links as HTML.

    >>> _inline("a `Money` <b>, see [AIP](https://google.aip.dev)")
    'a <code>Money</code> &lt;b&gt;, see <a href="https://google.aip.dev">AIP</a>'
    """
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"\[([^\]]+)\]\((https://[^)\s\"]+)\)", r'<a href="\2">\1</a>', html)


def _anchor(name: str) -> str:
    return escape(name.strip("/").replace("/", "."))
