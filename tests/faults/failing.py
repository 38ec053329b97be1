"""What the experiment `leaks` runs: methods that raise the exception that the call names, full of secrets."""

import importlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NoReturn

from service.rpc.call_context import current_call

# Names the class of the exception in the metadata of a call: `module:qualified name`.
HEADER = "x-fault"
SECRETS = {
    "SQL": "SELECT leaked_column FROM leaked_table",
    "hash": "$argon2id$v=19$m=8,t=1,p=1$bGVha2Vk$bGVha2Vk",
    "e-mail": "leaked.person@example.com",
    "path": "/srv/leaked/secret.py",
    "token": "eyJsZWFrZWQi.eyJsZWFrZWQi.bGVha2Vk",
}
# The packages whose exceptions can be raised while a call runs.
_PACKAGES = {
    *("builtins", "asyncio", "decimal", "json", "socket", "ssl", "struct", "uuid", "zlib"),
    *("argon2", "asyncpg", "cryptography", "google", "grpc", "jwt", "orjson", "protovalidate", "pydantic_core"),
    *("service", "sqlalchemy"),
}
# Not failures of a call: a library's servicer raises AbortError after it has sent a status, and a unit of work raises
# AlreadyAnswered with the stored response.
_NO_FAILURES = {
    "grpc.aio._base_server:AbortError",
    "grpc._cython.cygrpc:AbortError",
    "service.application.ports.errors:AlreadyAnswered",
}
# What errors of ours have. Their texts are meant for clients, so they contain no secret.
_OWN: dict[str, object] = {
    "message": "a message for clients",
    "metadata": {},
    "violations": (),
    "subject": "users/1",
    "field": "email",
    "name": "",
    "retry_seconds": 1,
}
# Attributes in which drivers keep what must not get out.
_SECRET_ATTRIBUTES = ("detail", "hint", "query", "statement", "params", "where", "internal_query", "doc", "filename")


def exceptions() -> Sequence[str]:
    """Return the names of all exceptions that can be raised, as HEADER has them."""
    importlib.import_module("service.server")
    return sorted(name for kind in _subclasses(Exception) if _is_raisable(kind, name := _name(kind)))


def _subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _subclasses(subclass)


def _name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _is_raisable(kind: type[BaseException], name: str) -> bool:
    if kind.__module__.split(".")[0] not in _PACKAGES or name in _NO_FAILURES:
        return False
    # Calls of gRPC's other clients are errors, too. One that was never made cannot be deleted.
    if hasattr(kind, "__del__"):
        return False
    # A base of domain errors, which is never raised itself.
    if kind.__module__ == "service.domain.errors" and not hasattr(kind, "reason"):
        return False
    try:
        return _class(name) is kind and _exception(name) is not None
    except (AttributeError, ImportError):
        # Defined in a function, or under another name than its own.
        return False
    except TypeError:
        # One in C that only its own library can make.
        return False


def _class(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


def _exception(name: str) -> BaseException:
    """Return an exception of a class, without calling its constructor."""
    kind = _class(name)
    arguments = ("leaked", [ValueError()]) if issubclass(kind, BaseExceptionGroup) else ()
    error: BaseException = kind.__new__(kind, *arguments)
    error.args = tuple(SECRETS.values())
    is_own = kind.__module__.startswith("service.")
    attributes = _OWN if is_own else dict.fromkeys(_SECRET_ATTRIBUTES, " ".join(SECRETS.values()))
    for attribute, value in attributes.items():
        try:
            setattr(error, attribute, value)
        except (AttributeError, TypeError):
            # It has an attribute of this name that takes no text.
            continue
    error.add_note(" ".join(SECRETS.values()))
    return error


def _raise() -> NoReturn:
    name = str(current_call().metadata[HEADER])
    try:
        raise ValueError(*SECRETS.values())
    except ValueError as cause:
        raise _exception(name) from cause


async def unary(_servicer: object, _request: object, _context: object) -> NoReturn:
    """Raise the exception that the call names, instead of a method that answers once."""
    _raise()


async def streaming(_servicer: object, _request: object, _context: object) -> AsyncIterator[NoReturn]:
    """Raise the exception that the call names, instead of a method that answers with a stream."""
    _raise()
    yield
