"""Output that documents show."""

import re


def is_shown(shown: str, output: str) -> bool:
    """Return whether this is the output shown, in which `…` stands for anything."""
    return re.fullmatch(re.escape(shown).replace("…", ".+?"), output, re.DOTALL) is not None
