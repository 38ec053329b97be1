"""The source files of which `make mutants` makes mutants, and the tests that must notice."""

from dataclasses import dataclass

from tests.support.paths import ROOT


@dataclass(frozen=True)
class Area:
    """Source files, and the tests that run against each of their mutants."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


# Its reasons are in statuses.
_DOMAIN_ERRORS = "service/domain/errors.py"


def _files(folder: str, *without: str) -> tuple[str, ...]:
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py")
    return tuple(file for file in files if file not in without)


AREAS = (
    # The examples in the docstrings of service/ are tests too.
    Area("domain", _files("service/domain", _DOMAIN_ERRORS), ("service/domain", "tests/domain")),
    Area("application", _files("service/application"), ("tests/application", "tests/db/writes/test_lock_orders.py")),
    Area("signing", _files("service/rpc/signing"), ("tests/rpc/signing",)),
    Area(
        "retry",
        ("service/rpc/retry.py", "service/runtime/retry.py"),
        ("tests/rpc/test_retry.py", "tests/runtime/test_retry.py"),
    ),
    Area(
        "status",
        (_DOMAIN_ERRORS, "service/rpc/status.py"),
        ("tests/domain/test_errors.py", "tests/rpc/test_status.py"),
    ),
    Area(
        "errors",
        ("service/rpc/interceptors/errors.py", "service/db/errors.py"),
        ("tests/db/test_errors.py", "tests/rpc/interceptors/test_interceptors.py"),
    ),
)
