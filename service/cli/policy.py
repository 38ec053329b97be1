"""The commands `commerce policy check` and `commerce policy explain`."""

import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

import click
from google.protobuf.descriptor import MethodDescriptor

from service.cli.running import one_line_errors
from service.config import PolicySettings, SettingsError, load
from service.rpc.identity.permissions import OWN_SUFFIX, authorization_of, can_be_limited, methods
from service.rpc.identity.policy import Grants, Policy
from service.rpc.identity.policy_parsing import PolicyError, read_policy, suspicions

# The exit status of `explain` for a call that would be denied; click uses 2 for wrong arguments.
DENIED = 3


def check_policy(file: Path) -> None:
    """Check a policy, and print what it allows."""
    policy = _read(file)
    for suspicion in suspicions(policy):
        click.echo(f"warning: {file}: {suspicion}", err=True)
    for name, grants in policy.identities.items():
        click.echo(f"{name}: {', '.join(grants.roles) or 'no roles'}")
        for permission in _permissions(grants):
            allowed = [method.name for method in methods() if _allows(grants, method) and _needs(method, permission)]
            click.echo(f"  {permission}: {', '.join(allowed) or 'x-on-behalf-of'}")
    click.echo(f"{file} is valid: {len(policy.roles)} roles, {len(policy.identities)} identities")


def explain_policy(identity: str, method: str, file: Path | None) -> None:
    """Say whether an identity may call a method, and why."""
    with one_line_errors():
        file = file or load(PolicySettings).policy_file
        if file is None:
            raise SettingsError("COMMERCE_POLICY_FILE is not set; name the policy with --policy FILE")
    called = _method(method)
    grants = _read(file)[identity]
    for line in _explanation(identity, called, grants):
        click.echo(line)
    sys.exit(0 if _allows(grants, called) else DENIED)


def _explanation(identity: str, method: MethodDescriptor, grants: Grants) -> Iterator[str]:
    needed = authorization_of(method).permission
    yield f"{method.full_name} needs {needed}."
    if not grants.name:
        yield f"No name in the policy matches {identity}."
    else:
        how = "is named" if grants.name == identity else f"matches {grants.name}"
        yield f"{identity} {how} in the policy, with {_listed('role', grants.roles)}."
        yield f"Permissions: {', '.join(_permissions(grants)) or 'none'}."
    if needed in grants.permissions:
        yield "Allowed."
    elif needed not in grants.own:
        yield f"Denied: {needed} is missing."
    elif can_be_limited(method):
        yield "Allowed for what belongs to the user for whom the caller acts; otherwise denied."
    else:
        yield f"Denied: {needed}{OWN_SUFFIX} does not allow it, because it cannot be limited to one user."


def _read(file: Path) -> Policy:
    try:
        return read_policy(file)
    except PolicyError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        raise click.ClickException(f"{file} cannot be used as a policy") from error


def _method(name: str) -> MethodDescriptor:
    """Return the method of this name; the service and its package may be left out."""
    wanted = name.strip("/").replace("/", ".")
    known = {method.full_name: method for method in methods()}
    for full_name, method in known.items():
        if f".{full_name}".endswith(f".{wanted}"):
            return method
    names = [method.name for method in known.values()]
    similar = "".join(f"; is it {one}?" for one in get_close_matches(wanted.rpartition(".")[2], names, 1))
    raise click.UsageError(f"there is no method {name}{similar}")


def _permissions(grants: Grants) -> list[str]:
    return sorted([*grants.permissions, *(f"{name}{OWN_SUFFIX}" for name in grants.own)])


def _needs(method: MethodDescriptor, permission: str) -> bool:
    return authorization_of(method).permission == permission.removesuffix(OWN_SUFFIX)


def _allows(grants: Grants, method: MethodDescriptor) -> bool:
    needed = authorization_of(method).permission
    return needed in grants.permissions or (needed in grants.own and can_be_limited(method))


def _listed(noun: str, names: tuple[str, ...]) -> str:
    if not names:
        return f"no {noun}s"
    return f"the {noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"
