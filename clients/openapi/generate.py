"""Generate the OpenAPI description of the HTTP port from `protos/`: `python -m clients.openapi.generate [OUTPUT]`.

The output is committed, because the server has descriptors without comments, and no compiler of protos. It describes
plain JSON; Connect and gRPC-Web have clients of their own, which need no description.
"""

import json
import re
import sys
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import MethodOptions

from clients.openapi.descriptors import Protos
from clients.openapi.examples import example
from clients.openapi.schemas import Schema, Schemas

OUTPUT = Path(__file__).with_name("openapi.json")
SERVICES = ("commerce.users.v1.UserService", "commerce.orders.v1.OrderService")

_JSON = "application/json"
_LINES = "application/x-ndjson"
# "NOT_FOUND (USER_NOT_FOUND, ORDER_NOT_FOUND)" in a comment.
_ERROR = re.compile(r"\b([A-Z]+(?:_[A-Z]+)*) \(([A-Z]+(?:_[A-Z]+)*(?:, [A-Z]+(?:_[A-Z]+)*)*)\)")
# Codes that the comments of the services name without a reason in brackets: the reason has the same name.
_BARE = re.compile(r"\b(DEADLINE_EXCEEDED|INTERNAL)\b(?! \()")
_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
# Of the comment of a service, the errors of methods with a `request_id` only.
_WITH_REQUEST_ID = frozenset({"REQUEST_ID_REUSED", "CONTENTION", "OUTCOME_UNKNOWN"})

_DESCRIPTION = """\
Generated from the protos of the services by clients/openapi/generate.py.

Each method is a POST of its request as JSON, in [protobuf's JSON format](https://protobuf.dev/programming-guides/json/):
names in lowerCamelCase, numbers of 64 bits as strings, and fields with their default value left out of responses. A
request with an unknown field is refused. A method without side effects is a GET, too, with the request in the parameter
`message`.

A failure is a `google.rpc.Status`. Its first detail, a `google.rpc.ErrorInfo`, has the reason, which
`commerce.common.v1.ErrorReason` explains. A failure without one comes from a proxy or the network, or the deadline of
the caller has passed: a change may have happened then, and a call with the same `requestId` tells.

A method that streams its responses returns a line of JSON for each. The last line is `{"end": {}}`, or `{"error": …}`
with a status; a stream without such a line was cut."""

_STATUS: Schema = {
    "type": "object",
    "description": "The failure of a call, as a google.rpc.Status.",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "integer", "description": "The code, as in google/rpc/code.proto."},
        "message": {"type": "string", "description": "What is wrong, for people."},
        "details": {
            "type": "array",
            "description": "More, for programs: the first is a google.rpc.ErrorInfo. Each has a `@type`.",
            "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
        },
    },
    "examples": [
        {
            "code": 5,
            "message": "user ada not found",
            "details": [
                {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "USER_NOT_FOUND", "domain": "commerce"}
            ],
        }
    ],
}
_PARAMETERS: dict[str, Schema] = {
    "x-request-id": {
        "description": "Ties the log lines of the call together; the response has it, too. Not the `requestId` of a "
        "request.",
        "schema": {"type": "string", "maxLength": 128},
    },
    "connect-timeout-ms": {
        "description": "How many milliseconds the call may take.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 9_999_999_999},
    },
    "x-on-behalf-of": {
        "description": "The id of the user for whom the caller acts; needs the permission `act_for_users`.",
        "schema": {"type": "string", "format": "uuid"},
    },
    "x-read-preference": {
        "description": "Whether the response may come from a replica, which may lag.",
        "schema": {"type": "string", "enum": ["primary", "replica"]},
    },
}


def document() -> dict[str, Any]:
    """Return the description."""
    protos = Protos()
    schemas = Schemas(protos)
    services = [protos.pool.FindServiceByName(name) for name in SERVICES]
    methods = [method for service in services for method in service.methods if not method.client_streaming]
    paths = {
        f"/{method.containing_service.full_name}/{method.name}": _path(protos, schemas, method) for method in methods
    }
    reasons = protos.pool.FindEnumTypeByName("commerce.common.v1.ErrorReason")
    schemas.schemas["google.rpc.Status"] = _STATUS
    schemas.add_enum(reasons)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Users and orders",
            "version": "v1",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": service.name, "description": protos.comment(service.full_name)} for service in services],
        "security": [{"token": []}, {"apiKey": []}, {}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.schemas.items())),
            "parameters": {
                name: {"name": name, "in": "header", **parameter} for name, parameter in _PARAMETERS.items()
            },
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _path(protos: Protos, schemas: Schemas, method: Any) -> dict[str, Any]:  # noqa: ANN401 - a descriptor of one of two implementations
    request = schemas.reference(method.input_type)
    shown = example(protos, method.input_type)
    body = {"required": True, "content": {_JSON: {"schema": request, "example": shown}}}
    operation = _operation(protos, schemas, method)
    if not reads(method):
        return {"post": {**operation, "requestBody": body}}
    parameter = {
        "name": "message",
        "in": "query",
        "description": "The request.",
        "content": {_JSON: {"schema": request, "example": shown}},
    }
    get = {**operation, "operationId": f"{operation['operationId']}_get"}
    get["parameters"] = [parameter, *operation["parameters"]]
    return {"get": get, "post": {**operation, "requestBody": body}}


def reads(method: Any) -> bool:  # noqa: ANN401 - see above
    """Return whether a method has no side effects."""
    return bool(method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS)


def _operation(protos: Protos, schemas: Schemas, method: Any) -> dict[str, Any]:  # noqa: ANN401 - see above
    comment = protos.comment(method.full_name)
    description = "\n\n".join(part for part in comment.split("\n\n") if not part.startswith("Errors:"))
    permission = protos.options(method)["[commerce.common.v1.authorization]"]["permission"]
    names = ["x-request-id", "connect-timeout-ms", "x-on-behalf-of"]
    if reads(method) and not method.server_streaming:
        names.append("x-read-preference")
    return {
        "operationId": f"{method.containing_service.name}_{method.name}",
        "tags": [method.containing_service.name],
        "summary": re.split(r"(?<=\.)\s", description)[0],
        "description": f"{description}\n\nNeeds the permission `{permission}`, if the server has a policy.",
        "x-permission": permission,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in names],
        "responses": _responses(protos, schemas, method),
    }


def _responses(protos: Protos, schemas: Schemas, method: Any) -> dict[str, Any]:  # noqa: ANN401 - see above
    response, status = schemas.reference(method.output_type), {"$ref": "#/components/schemas/google.rpc.Status"}
    if method.server_streaming:
        lines = [("result", response), ("end", {"type": "object"}), ("error", status)]
        line = {"oneOf": [{"type": "object", "required": [name], "properties": {name: kind}} for name, kind in lines]}
        success = {
            "description": "A line of JSON for each response, and a last line.",
            "content": {_LINES: {"schema": line}},
        }
    else:
        success = {"description": "The response.", "content": {_JSON: {"schema": response}}}
    by_status: dict[int, dict[str, list[str]]] = {}
    for code, reason in errors_of(protos, method):
        reasons = by_status.setdefault(_STATUSES[code], {}).setdefault(code, [])
        if reason not in reasons:
            reasons.append(reason)
    failures = {
        str(number): {
            "description": f"{HTTPStatus(number).phrase}. "
            + "; ".join(f"{code}: {', '.join(reasons)}" for code, reasons in sorted(codes.items()))
            + ".",
            "content": {_JSON: {"schema": status}},
        }
        for number, codes in sorted(by_status.items())
    }
    return {"200": success, **failures}


def errors_of(protos: Protos, method: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401 - see above
    """Yield the code and the reason of each error that the comments of a method and of its service name."""
    yield from _named(protos.comment(method.full_name))
    has_request_id = "request_id" in method.input_type.fields_by_name
    for code, reason in _named(protos.comment(method.containing_service.full_name)):
        if has_request_id or reason not in _WITH_REQUEST_ID:
            yield code, reason


def _named(comment: str) -> Iterator[tuple[str, str]]:
    for code, listed in _ERROR.findall(comment):
        yield from ((code, reason) for reason in listed.split(", "))
    for code in _BARE.findall(comment):
        yield code, code


def generate(output: Path) -> None:
    """Write the description."""
    output.write_text(json.dumps(document(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT)
