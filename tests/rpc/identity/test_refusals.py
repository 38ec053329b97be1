from service.rpc.identity.refusals import Refusals
from tests.support.logs import logged


def test_an_error_says_what_is_accepted_and_not_what_was_wrong() -> None:
    refusals = Refusals(["a token", "a key", "a certificate"])
    error = refusals.error("bearer token", "unknown")
    assert error.message == (
        "the bearer token is unknown or not valid here; this server accepts a token, a key or a certificate"
    )
    assert refusals.error("API key", "expired").message.startswith("the API key has expired; ")
    missing = Refusals(["a key"]).error("none", "missing")
    assert missing.message == "the caller sent no credential; this server accepts a key"
    assert missing.metadata == {"credential": "none", "problem": "missing"}


def test_refusals_are_counted_and_logged_at_a_bounded_rate() -> None:
    now = [100.0]
    refusals = Refusals(["a key"], lambda: now[0])
    with logged() as log:
        for _ in range(50):
            refusals.error("API key", "unknown")
        refusals.error("API key", "expired")
        now[0] += 9.9
        refusals.error("API key", "unknown")
        now[0] += 0.1
        refusals.error("API key", "unknown")
        lines = log.lines(event="refused calls of unknown callers")
    assert [(line["credential"], line["problem"], line["calls"]) for line in lines] == [
        ("API key", "unknown", 1),
        ("API key", "expired", 1),
        ("API key", "unknown", 51),
    ]
    assert refusals.counts == {("API key", "unknown"): 52, ("API key", "expired"): 1}
