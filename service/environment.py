"""The variables of the environment, and secrets that are in files."""

import os
from pathlib import Path

# The variable with this ending names the file that has the value.
FILE_SUFFIX = "_FILE"
# No secret is nearly as long, so the file is another one.
_MAX_SECRET_BYTES = 65536


def variables() -> dict[str, str]:
    """Return the variables by name in capitals, because pydantic ignores the case of names."""
    return {name.upper(): value for name, value in os.environ.items()}


def read_secret(path: str) -> str:
    """Return the secret in a file, without the line breaks at its end, which editors and `echo` add.

    Raises:
        ValueError: the file cannot be used. The message says why, and contains nothing of the file.
    """
    try:
        # A directory, too, is an OSError.
        with Path(path).open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text in UTF-8") from None
    if len(content) > _MAX_SECRET_BYTES:
        raise ValueError(f"{path} is longer than {_MAX_SECRET_BYTES} bytes")
    if not (secret := text.rstrip("\r\n")):
        raise ValueError(f"{path} is empty")
    return secret
