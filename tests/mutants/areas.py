"""The source files that `make mutants` changes, and the tests that run against each mutant."""

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
    """Return the modules of a folder; its packages have only what other areas cover, or protocols without code."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py")
    return tuple(file for file in files if file not in without)


AREAS = (
    # The examples in the docstrings of service/ are tests too.
    Area("domain", _files("service/domain", _DOMAIN_ERRORS), ("service/domain", "tests/domain")),
    Area(
        "application",
        _files("service/application"),
        (
            "tests/application",
            "tests/db/test_text_search.py",
            "tests/db/writes/test_deadlocks.py",
            "tests/db/writes/test_lock_orders.py",
        ),
    ),
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
        # Of the tests of interceptors, those of this one; others depend on time, and fail on a busy machine.
        (
            "tests/db/test_errors.py",
            *(
                f"tests/rpc/interceptors/test_interceptors.py::{test}"
                for test in (
                    "test_messages_pass_unchanged",
                    "test_an_unknown_failure_shows_only_its_id",
                    "test_a_failure_and_its_causes_are_freed_without_the_garbage_collector",
                    "test_a_cancellation_from_inside_is_internal_and_not_a_silence",
                    "test_a_caller_that_goes_is_no_failure",
                    "test_a_failure_of_the_store_has_its_status",
                    "test_an_x_request_id_comes_back_with_a_failure_too",
                )
            ),
        ),
    ),
)
