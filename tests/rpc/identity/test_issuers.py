from pathlib import Path

import pytest

from service.rpc.identity.issuers import Issuer, IssuerFileError, read_issuers

VALID = """\
[issuers.accounts]
issuer = "https://accounts.example.com"
audience = "commerce"
algorithms = ["ES256"]
jwks = "keys.json"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "issuers.toml"
    path.write_text(text)
    return path


def test_a_file_has_its_issuers_with_safe_defaults(tmp_path: Path) -> None:
    assert read_issuers(written(tmp_path, VALID)) == [
        Issuer(
            "accounts",
            "https://accounts.example.com",
            "commerce",
            frozenset({"ES256"}),
            tmp_path / "keys.json",
            "services",
            30,
        )
    ]


@pytest.mark.parametrize("jwks", ["https://accounts.example.com/jwks", "http://127.0.0.1:1/jwks", "http://localhost/x"])
def test_keys_may_be_at_a_url(tmp_path: Path, jwks: str) -> None:
    (issuer,) = read_issuers(written(tmp_path, VALID.replace("keys.json", jwks)))
    assert issuer.jwks == jwks


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"ES256"', '"HS256"', "issuer 'accounts' in the file of issuers may not use HS256; use ES256"),
        ('"ES256"', '"none"', "may not use none"),
        ('["ES256"]', "[]", "needs `algorithms`"),
        ('["ES256"]', '"ES256"', "needs `algorithms`"),
        ('audience = "commerce"\n', "", "needs `audience`, a text"),
        ('"commerce"', '["commerce"]', "needs `audience`, a text"),
        ('"commerce"', '""', "needs `audience`, a text"),
        ('"keys.json"', '"http://accounts.example.com/jwks"', "needs `jwks` with https://"),
        ('"keys.json"', '"ftp://accounts.example.com/jwks"', "needs `jwks` with https://"),
        ('"keys.json"', '"keys.json"\nleeway = 61', "`leeway` that is not 0 to 60 seconds"),
        ('"keys.json"', '"keys.json"\nleeway = true', "`leeway` that is not 0 to 60 seconds"),
        ('"keys.json"', '"keys.json"\nsubjects = "all"', "`subjects` that are neither"),
        ('"keys.json"', '"keys.json"\nsecret = "x"', "must have only"),
        ("issuers.accounts", 'issuers."a:b"', "has a name that is not"),
        (VALID, "", "must have a table"),
        (VALID, "issuers = 1", "must have a table"),
        (VALID, f"x = 1\n{VALID}", "must have a table"),
        (VALID, "[", "is not valid TOML"),
        (VALID, VALID + VALID.replace("accounts]", "other]"), "two issuers"),
    ],
)
def test_a_file_that_is_not_valid_says_why(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(IssuerFileError, match=problem.replace("[", r"\[")):
        read_issuers(written(tmp_path, VALID.replace(old, new, 1)))


def test_a_missing_file_is_a_problem_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(IssuerFileError, match=r"^the file of issuers cannot be read: No such file or directory$"):
        read_issuers(tmp_path / "none.toml")
