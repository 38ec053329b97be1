import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.rpc.signing.base64url import decode_base64url, encode_base64url
from tests.support.properties import thorough


@thorough
@given(st.binary())
@example(b"\x00\x00\x17")
def test_bytes_survive_as_text_that_needs_no_escaping(data: bytes) -> None:
    text = encode_base64url(data)
    assert decode_base64url(text) == data
    assert text.replace("-", "").replace("_", "").isalnum() or not data


def test_the_alphabet_is_that_of_urls() -> None:
    assert encode_base64url(b"\xfb\xff\x17") == "-_8X"


@pytest.mark.parametrize("text", ["A", "AAAAA", "AB", "AAB", "AA=", "AA==", "AAA=", "+/8X", "AA A", "AA\n", "é", "\0"])
def test_text_that_was_not_issued_is_no_bytes(text: str) -> None:
    assert decode_base64url(text) == b""
