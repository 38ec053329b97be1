"""Options of a call, and the metadata that they become."""

import os
from collections.abc import Mapping
from typing import Literal, TypedDict, cast

from commerce.client.retries import RetryPolicy
from commerce.client.values import Id

ReadPreference = Literal["primary", "replica"]
Metadata = tuple[tuple[str, str | bytes], ...]


class CallOptions(TypedDict, total=False):
    """Options that every call takes as keyword arguments.

    Attributes:
        timeout: seconds for the call with all its attempts and pauses.
        attempt_timeout: seconds for each attempt; None for no limit but `timeout`.
        on_behalf_of: the id of the user for whom the caller acts; needs a permission.
        grpc_metadata: further metadata. With `x-request-id`, the server logs the call under this id.
        retry: when the call is repeated.
    """

    timeout: float
    attempt_timeout: float | None
    on_behalf_of: Id | None
    grpc_metadata: Mapping[str, str | bytes]
    retry: RetryPolicy


class ReadOptions(CallOptions, total=False):
    """Options of methods that only read.

    Attributes:
        read_preference: whether a replica may answer.
    """

    read_preference: ReadPreference | None


# All options together. A method that does not read ignores the read preference that is a client's default.
AnyOptions = ReadOptions
# Options as the methods pass them on; `merged` checks them.
Options = Mapping[str, object]


DEFAULTS: AnyOptions = {"timeout": 30.0, "attempt_timeout": 10.0}
_NAMES = ReadOptions.__optional_keys__
_MAX_SECONDS = 366 * 24 * 3600.0


def merged(defaults: AnyOptions, options: Options) -> AnyOptions:
    """Return the options of a call over the defaults of its client.

    Raises:
        TypeError: there is no such option.
        ValueError: a time-out is not a number of seconds.
    """
    if not options:
        return defaults
    if wrong := options.keys() - _NAMES:
        raise TypeError(f"there is no option {', '.join(sorted(wrong))}")
    for name in ("timeout", "attempt_timeout"):
        seconds = options.get(name)
        if seconds is None and name == "attempt_timeout":
            continue
        # Also false for NaN.
        if name in options and not (isinstance(seconds, int | float) and 0 < seconds <= _MAX_SECONDS):
            raise ValueError(f"{name} must be seconds, greater than 0 and at most a year, not {seconds!r}")
    given = cast("AnyOptions", options)
    together: AnyOptions = {**defaults, **given}
    if "grpc_metadata" in defaults and "grpc_metadata" in given:
        together["grpc_metadata"] = {**defaults["grpc_metadata"], **given["grpc_metadata"]}
    return together


def metadata_of(options: AnyOptions, *, reads: bool) -> tuple[Metadata, str]:
    """Return the metadata of a call without its credentials, and the `x-request-id` in it, which is made if missing."""
    metadata: list[tuple[str, str | bytes]] = []
    x_request_id: str | bytes | None = None
    if further := options.get("grpc_metadata"):
        metadata.extend((key.lower(), value) for key, value in further.items())
        x_request_id = next((value for key, value in metadata if key == "x-request-id"), None)
    if x_request_id is None:
        x_request_id = os.urandom(16).hex()
        metadata.append(("x-request-id", x_request_id))
    if (user := options.get("on_behalf_of")) is not None:
        metadata.append(("x-on-behalf-of", str(user)))
    if reads and (preference := options.get("read_preference")) is not None:
        metadata.append(("x-read-preference", preference))
    return tuple(metadata), x_request_id if isinstance(x_request_id, str) else x_request_id.decode()
