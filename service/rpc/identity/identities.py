"""Who makes a call, by all kinds of identity that are configured."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from uuid import UUID

import structlog

from service.config import IdentitySettings
from service.domain.errors import InvalidField
from service.rpc.identity.api_keys import ApiKeys
from service.rpc.identity.caller import Caller
from service.rpc.identity.certificates import CertificateIdentities, Connection
from service.rpc.identity.issuers import IssuerFileError, read_issuers
from service.rpc.identity.jwks import JwksError
from service.rpc.identity.key_file import KeyFileError
from service.rpc.identity.refusals import Refusals
from service.rpc.identity.tokens import Tokens
from service.rpc.methods import Context

# The metadata with a token, with an API key, and with the id of the user for whom a service acts.
TOKEN = "authorization"  # noqa: S105 - the name of metadata
API_KEY = "x-api-key"
ON_BEHALF_OF = "x-on-behalf-of"
# How often the files are looked at.
POLL_SECONDS = 1.0

log = structlog.get_logger()


class IdentityError(Exception):
    """An identity that is configured cannot be used. The message is one line that names the setting."""


class Identities:
    """Finds out who makes a call.

    If a call has several credentials, each of those that are read must be valid, and the first of these names the
    caller: a token of a service, an API key, the client certificate. The token of a user names the user for whom that
    caller acts; alone, it names the caller too.

    Args:
        settings: which kinds of identity are accepted.

    Attributes:
        refusals: counts the calls of unknown callers.
        keys: the API keys; None if they are not accepted.
        tokens: the tokens; None if they are not accepted.
    """

    def __init__(self, settings: IdentitySettings) -> None:
        self._settings = settings
        self.refusals = Refusals(_accepted(settings))
        form = settings.client_certificates
        self._certificates = None if form == "off" else CertificateIdentities(form)
        self.keys = ApiKeys(settings.api_keys_file, self.refusals) if settings.api_keys_file else None
        self.tokens: Tokens | None = None
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read all files, and watch them from now on.

        Keys at a URL that does not answer are loaded later: other callers need not wait for that.

        Raises:
            IdentityError: a file cannot be read, or is not valid.
        """
        try:
            if self.keys:
                self.keys.load()
        except KeyFileError as error:
            raise IdentityError(f"COMMERCE_API_KEYS_FILE: {error}") from error
        if path := self._settings.jwt_issuers_file:
            try:
                issuers = read_issuers(path)
            except IssuerFileError as error:
                raise IdentityError(f"COMMERCE_JWT_ISSUERS_FILE: {error}") from error
            self.tokens = Tokens(issuers, self.refusals)
            for issuer in issuers:
                try:
                    await self.tokens.key_sets[issuer.name].load()
                except JwksError as error:
                    if not isinstance(issuer.jwks, str):
                        raise IdentityError(f"COMMERCE_JWT_ISSUERS_FILE: issuer {issuer.name!r}: {error}") from error
                    log.warning("keys of an issuer not loaded", issuer=issuer.name, problem=str(error))
        # Each in a task of its own, because an issuer may answer slowly.
        checks: list[Callable[[], Awaitable[None]]] = (
            [key_set.load_if_due for key_set in self.tokens.key_sets.values()] if self.tokens else []
        )
        if self.keys:
            # In a thread, because reading many keys takes long.
            checks.append(partial(asyncio.to_thread, self.keys.reload))
        self._watching = [asyncio.create_task(_every_second(check)) for check in checks]

    async def close(self) -> None:
        """Stop watching the files."""
        for watching in self._watching:
            watching.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)

    def known(self, metadata: Mapping[str, str | bytes], connection: Connection) -> Caller | None:
        """Return who makes a call if that is known without waiting; None if its token must be verified.

        Raises:
            UnauthenticatedCaller: the call has no credential, or one that is not valid.
        """
        of_token = None
        if (sent := metadata.get(TOKEN)) is not None and self.tokens:
            of_token = self.tokens.known(sent)
            # As `_caller` decides it: no other credential is read, or there is none. Most calls end here.
            if of_token is None or (
                API_KEY not in metadata and (of_token.end_user is None or self._certificates is None)
            ):
                return of_token
        return self._caller(metadata, connection, of_token)

    async def caller(self, metadata: Mapping[str, str | bytes], connection: Connection) -> Caller:
        """Return who makes a call.

        Raises:
            UnauthenticatedCaller: the call has no credential, or one that is not valid.
            IssuerUnavailable: the token cannot be verified now.
        """
        of_token = None
        if (sent := metadata.get(TOKEN)) is not None and self.tokens:
            of_token = self.tokens.known(sent) or await self.tokens.caller(sent)
        return self._caller(metadata, connection, of_token)

    def _caller(self, metadata: Mapping[str, str | bytes], connection: Connection, of_token: Caller | None) -> Caller:
        if self.tokens is None and TOKEN in metadata:
            raise self.refusals.error("bearer token", "unknown")
        service, user = (None, of_token) if of_token and of_token.end_user else (of_token, None)
        if (sent := metadata.get(API_KEY)) is not None:
            if self.keys is None:
                raise self.refusals.error("API key", "unknown")
            of_key = self.keys.caller(sent)
            service = service or of_key
        if service is None and self._certificates:
            service = self._certificates.caller(connection)
        if user:
            return Caller(service.name, user.end_user) if service else user
        if service is None:
            raise self.refusals.error("none", "missing")
        return service

    def likely_name(self, context: Context) -> str | None:
        """Return the name that the credentials of a call probably give, without verifying them.

        It is for calls that are refused for load: a refusal must take less work than that.

        Returns:
            None if it takes more work to know.
        """
        metadata = dict(context.invocation_metadata() or ())
        if self.tokens and (sent := metadata.get(TOKEN)) is not None:
            known = self.tokens.known(sent)
            return None if known is None else known.name
        if self.keys and (sent := metadata.get(API_KEY)) is not None:
            return self.keys.likely_name(sent)
        certificate = self._certificates.caller(context) if self._certificates else None
        return None if certificate is None else certificate.name


async def _every_second(check: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(POLL_SECONDS)
        try:
            await check()
        except Exception:
            log.exception("reading a file of identities failed")


def end_user_of(caller: Caller, on_behalf_of: str | bytes) -> UUID:
    """Return the user that the metadata `x-on-behalf-of` names.

    Raises:
        InvalidField: it is not a UUID, or not the user of the caller's token.
    """
    try:
        # Only the usual spelling.
        user_id = UUID(on_behalf_of) if isinstance(on_behalf_of, str) and len(on_behalf_of) == 36 else None  # noqa: PLR2004 - the length of a UUID
    except ValueError:
        user_id = None
    if user_id is None:
        raise InvalidField.at(ON_BEHALF_OF, "must be the id of a user, a UUID")
    if caller.end_user not in {None, user_id}:
        raise InvalidField.at(ON_BEHALF_OF, "must be the user of the token, or be left out")
    return user_id


def _accepted(settings: IdentitySettings) -> list[str]:
    ways = []
    if settings.jwt_issuers_file:
        ways.append("a token as `authorization: Bearer ...`")
    if settings.api_keys_file:
        ways.append("an API key as `x-api-key`")
    match settings.client_certificates:
        case "spiffe":
            ways.append("a client certificate with a SPIFFE ID")
        case "common_name" | "subject":
            ways.append("a client certificate")
    return ways
