"""Tokens of devices on which users have signed in.

They are the device cookies of OWASP's "Slow Down Online Guessing Attacks with Device Cookies"
(https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies): attempts to sign in with a
token are limited apart from those of everybody else. A token is no proof of identity, and nothing is stored for it.
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Sequence
from datetime import datetime, timedelta

from service.rpc.signing.base64url import decode_base64url, encode_base64url

VALIDITY = timedelta(days=180)
_MAC_BYTES = 16
_DEVICE_BYTES = 12
# The id of the device, and the time of issue in seconds since 1970.
_PAYLOAD = struct.Struct(f">{_DEVICE_BYTES}sQ")
# Has a fixed length, and differs from all input that page tokens and cursors sign with the same key.
_SCOPE = hashlib.sha256(b"device token").digest()


class DeviceTokens:
    """Writes and reads the tokens of devices, signed with a secret key; each is valid for one login.

    Args:
        key: the secret with which they are signed.
        accepted_keys: other secrets whose tokens are valid too.
    """

    def __init__(self, key: bytes, accepted_keys: Sequence[bytes] = ()) -> None:
        self._key = key
        self._keys = (key, *accepted_keys)

    def write(self, device: bytes | None, login_kind: str, login: str, now: datetime) -> str:
        """Return a token.

        Args:
            device: the id of the device; None for a new one.
            login_kind: `email` or `username`.
            login: the e-mail address or username, folded.
            now: the time of issue.
        """
        payload = _PAYLOAD.pack(device or os.urandom(_DEVICE_BYTES), int(now.timestamp()))
        return encode_base64url(_mac(self._key, payload, login_kind, login) + payload)

    def read(self, token: str, login_kind: str, login: str, now: datetime) -> bytes | None:
        """Return the id of the device; None without a token, and for one that is not valid for this login."""
        data = decode_base64url(token)
        mac, payload = data[:_MAC_BYTES], data[_MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(key, payload, login_kind, login)) for key in self._keys):
            return None
        device: bytes
        device, issued = _PAYLOAD.unpack(payload)
        return device if now.timestamp() - issued <= VALIDITY.total_seconds() else None


def _mac(key: bytes, payload: bytes, login_kind: str, login: str) -> bytes:
    # The digest has a fixed length, so the boundary between the two inputs cannot be moved.
    subject = hashlib.sha256(f"{login_kind}\0{login}".encode()).digest()
    return hmac.digest(key, _SCOPE + subject + payload, hashlib.sha256)[:_MAC_BYTES]
