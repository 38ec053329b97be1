"""The tables of docs/settings.md. `python -m service.devtools.settings_tables` prints them."""

from collections.abc import Iterator

import click
from pydantic_core import PydanticUndefined

from service.config import (
    OLD_NAMES,
    CallerSettings,
    DatabaseSettings,
    DevelopmentSettings,
    GcSettings,
    LogSettings,
    OptimizationSettings,
    PasswordSettings,
    RelaySettings,
    ServerSettings,
    Settings,
    environment_name,
    is_expert,
)

EXPERT_HEADING = "## Expert settings"
RENAMED_HEADING = "## Renamed settings"
# In the order of the document; a setting is listed with the first class that has it.
KINDS: tuple[type[Settings], ...] = (
    DatabaseSettings,
    ServerSettings,
    LogSettings,
    PasswordSettings,
    DevelopmentSettings,
    GcSettings,
    RelaySettings,
    CallerSettings,
    OptimizationSettings,
)
_HEAD = "| Variable | Default | Meaning |\n|---|---|---|"


def rows(*, expert: bool) -> Iterator[str]:
    """Yield the table rows of the everyday or of the expert settings."""
    seen = set()
    for kind in KINDS:
        for field, info in kind.model_fields.items():
            name = environment_name(kind, field)
            if name in seen or is_expert(kind, field) is not expert:
                continue
            seen.add(name)
            default = "-" if info.default in (None, PydanticUndefined) else f"`{info.default}`"
            yield f"| `{name}` | {default} | {info.description} |"


def renamed() -> Iterator[str]:
    """Yield the table rows of the settings that have an old name."""
    for old, field in OLD_NAMES.items():
        kind = next(kind for kind in KINDS if field in kind.model_fields)
        yield f"| `{old}` | `{environment_name(kind, field)}` |"


def tables() -> str:
    """Return all tables with the headings between them."""
    return "\n".join(
        [
            _HEAD,
            *rows(expert=False),
            "",
            EXPERT_HEADING,
            "",
            _HEAD,
            *rows(expert=True),
            "",
            RENAMED_HEADING,
            "",
            "| Old name | New name |\n|---|---|",
            *renamed(),
        ]
    )


if __name__ == "__main__":
    click.echo(tables())
