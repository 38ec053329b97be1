"""`commercectl health`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from commerce.client.cli.advice import UNAVAILABLE
from commerce.client.cli.output import print_values
from commerce.client.cli.session import Session, output_options, pass_session
from commerce.client.failures import CommerceError
from commerce.client.methods import Method

if TYPE_CHECKING:
    from commerce.client import Client

_CHECK = Method(
    "/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse, reads=True
)
# What each health name says, in words.
_CHECKS = {
    "": "the process answers",
    "readiness": "its database can be reached and has a schema that it can serve",
    "commerce.users.v1.UserService": "calls of users are answered",
    "commerce.orders.v1.OrderService": "calls of orders are answered",
}


@click.command("health")
@output_options
@pass_session
def HEALTH(session: Session) -> None:  # noqa: N802 - a constant, made by click
    """Show whether the service is alive and ready. The exit code is 7 if it is not."""
    # Otherwise a client does not use a server that is not ready, and so could not ask it.
    with session.waiting(), session.target().client(health_check=False, **session.options) as client:
        rows = [
            {"check": name or "liveness", "status": _status(client, name), "means": meaning}
            for name, meaning in _CHECKS.items()
        ]
    print_values(session, rows, ("check", "status", "means"))
    if any(row["status"] != "SERVING" for row in rows):
        click.get_current_context().exit(UNAVAILABLE)


def _status(client: Client, service: str) -> str:
    try:
        status = client.call(_CHECK, health_pb2.HealthCheckRequest(service=service)).status
    except CommerceError as error:
        if error.code is StatusCode.NOT_FOUND:
            return "UNKNOWN"
        raise
    return health_pb2.HealthCheckResponse.ServingStatus.Name(status)
