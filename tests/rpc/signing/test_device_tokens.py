from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.rpc.signing.base64url import decode_base64url, encode_base64url
from service.rpc.signing.device_tokens import VALIDITY, DeviceTokens

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TOKENS = DeviceTokens(b"k" * 32)
MAX_LENGTH = 128


def test_a_token_keeps_the_id_of_its_device() -> None:
    token = TOKENS.write(None, "email", "ada@example.com", NOW)
    device = TOKENS.read(token, "email", "ada@example.com", NOW)
    assert device is not None
    renewed = TOKENS.write(device, "email", "ada@example.com", NOW + timedelta(days=1))
    assert renewed != token
    assert TOKENS.read(renewed, "email", "ada@example.com", NOW) == device


def test_every_new_device_has_an_id_of_its_own() -> None:
    tokens = [TOKENS.write(None, "email", "ada@example.com", NOW) for _ in range(100)]
    assert len({TOKENS.read(token, "email", "ada@example.com", NOW) for token in tokens}) == 100
    assert max(map(len, tokens)) <= MAX_LENGTH


def test_a_token_is_valid_for_its_login_its_key_and_its_time() -> None:
    token = TOKENS.write(None, "email", "ada@example.com", NOW)
    assert TOKENS.read(token, "email", "joan@example.com", NOW) is None
    assert TOKENS.read(token, "username", "ada@example.com", NOW) is None
    assert DeviceTokens(b"o" * 32).read(token, "email", "ada@example.com", NOW) is None
    assert TOKENS.read(token, "email", "ada@example.com", NOW + VALIDITY) is not None
    assert TOKENS.read(token, "email", "ada@example.com", NOW + VALIDITY + timedelta(seconds=1)) is None


def test_a_token_of_an_accepted_key_is_valid_and_new_ones_have_the_own_key() -> None:
    both = DeviceTokens(b"n" * 32, [b"o" * 32, b"k" * 32])
    token = TOKENS.write(b"d" * 12, "email", "ada@example.com", NOW)
    assert both.read(token, "email", "ada@example.com", NOW) == b"d" * 12
    assert both.read(token, "email", "joan@example.com", NOW) is None
    own = both.write(b"d" * 12, "email", "ada@example.com", NOW)
    assert both.read(own, "email", "ada@example.com", NOW) == b"d" * 12
    assert TOKENS.read(own, "email", "ada@example.com", NOW) is None


@given(st.text(max_size=MAX_LENGTH))
def test_no_other_text_is_a_token(text: str) -> None:
    assert TOKENS.read(text, "email", "ada@example.com", NOW) is None


@given(st.integers(min_value=0, max_value=287))
def test_a_token_with_a_changed_bit_is_not_valid(bit: int) -> None:
    data = bytearray(decode_base64url(TOKENS.write(b"d" * 12, "email", "ada@example.com", NOW)))
    assert len(data) == 36
    data[bit // 8] ^= 1 << bit % 8
    assert TOKENS.read(encode_base64url(bytes(data)), "email", "ada@example.com", NOW) is None
