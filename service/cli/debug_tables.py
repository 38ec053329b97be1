"""The answers to `commerce debug` as text for people."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Answer = Mapping[str, Any]

# How many of the innermost functions of a stuck event loop are printed.
_MOST_FUNCTIONS = 12
# Less is printed as 0.00.
_SHOWN_SECONDS = 0.005
_LAST_CALL = "last_call_started_timestamp"


def heading(process: Mapping[str, Any]) -> str:
    """Return the line above the answer of a process."""
    worker = f"worker {process['worker']}, " if process["worker"] is not None else ""
    draining = ", draining" if process["draining"] else ""
    return (
        f"{worker}process {process['pid']}, port {process['port']}, version {process['version']},"
        f" up {_seconds(process['uptime_seconds'])}{draining}"
    )


def calls(answer: Answer) -> Iterator[str]:
    """Yield the lines about running calls."""
    yield from _event_loop(answer)
    if transferring := answer["being_received_or_sent"]:
        yield f"calls whose requests are being received, or whose responses are being sent: {transferring}"
    if not answer["methods"]:
        yield "no calls are running"
        return
    yield ""
    yield from _table(
        ("RUNNING", "WAITING", "LIMIT", "METHOD"),
        (
            (method["running"], method["waiting_for_admission"], method["limit"], _method(method["method"]))
            for method in answer["methods"]
        ),
    )
    yield ""
    header = ("AGE", "LEFT", "METHOD", "STATE", "CONNECTION", "CALLER", "X-REQUEST-ID", "TRACE")
    rows = _lines(header, [_call(call) for call in answer["calls"]])
    yield next(rows)
    for call, row in zip(answer["calls"], rows, strict=True):
        yield row
        yield from (f"    {_printable(function)}" for function in call.get("stack", ()))
    if answer["not_shown"]:
        yield f"and {answer['not_shown']} younger calls, which are not shown"


def pool(answer: Answer) -> Iterator[str]:
    """Yield the lines about pools and their connections."""
    yield from _event_loop(answer)
    yield ""
    yield from _table(
        ("POOL", "SIZE", "IN USE", "WAITING"),
        ((each["pool"], each["size"], each["in_use"], each["waiting"]) for each in answer["pools"]),
    )
    yield ""
    if not answer["connections"]:
        yield "no connection is in use"
        return
    yield from _table(
        ("CONNECTION", "POOL", "FOR", "USE", "BY"),
        (
            (
                used["connection"],
                used["pool"],
                _seconds(used["seconds"]),
                _use(used),
                _by(used["calls"], used["function"]),
            )
            for used in answer["connections"]
        ),
    )


def statements(answer: Answer) -> Iterator[str]:
    """Yield the lines about sessions in PostgreSQL."""
    yield from _event_loop(answer)
    for server, problem in answer["problems"].items():
        yield f"the {server} cannot be asked: {problem}"
    yield ""
    if not answer["sessions"]:
        yield "PostgreSQL does nothing for this process"
        return
    yield from _table(
        ("CONNECTION", "STATEMENT", "STATE", "FOR", "TRANSACTION", "WAITS FOR", "BLOCKED BY", "BY"),
        (
            (
                session["connection"],
                session["statement"] or ("" if session["is_ours"] else "(not of this process)"),
                session["state"],
                _seconds(session["seconds"]),
                _seconds(session["transaction_seconds"]),
                session["waits_for"],
                ", ".join(str(pid) if pid else "a prepared transaction" for pid in session["blocked_by"]),
                _by(session["calls"], f"{session['application']} of {session['user']}"),
            )
            for session in answer["sessions"]
        ),
    )


def channels(answer: Answer) -> Iterator[str]:
    """Yield the lines about gRPC's connections."""
    for server in answer["servers"]:
        yield ""
        listens = ", ".join(server["listens_on"]) or "nothing"
        yield f"gRPC server {server['id']} listens on {listens}: {_calls(server['calls'])}"
        if not server["connections"]:
            yield "no client is connected"
            continue
        yield from _table(
            ("CLIENT", "SECURITY", "CALLS", "FAILED", "SENT", "RECEIVED", "KEEPALIVES", "LAST CALL", "LAST SENT"),
            (
                (
                    each["remote"],
                    each["security"] or "none",
                    each.get("streams_started", 0),
                    each.get("streams_failed", 0),
                    each.get("messages_sent", 0),
                    each.get("messages_received", 0),
                    each.get("keep_alives_sent", 0),
                    each.get("last_remote_stream_created_timestamp"),
                    each.get("last_message_sent_timestamp"),
                )
                for each in server["connections"]
            ),
        )
        if not server["all_shown"]:
            yield "and more connections, which are not shown"
    if answer["channels"]:
        yield ""
        yield from _table(
            ("CHANNEL OF THIS PROCESS", "STATE", "CALLS", "FAILED"),
            (
                (
                    each["target"],
                    each["calls"].get("state", {}).get("state"),
                    each["calls"].get("calls_started", 0),
                    each["calls"].get("calls_failed", 0),
                )
                for each in answer["channels"]
            ),
        )


def profile(answer: Answer, top: int) -> Iterator[str]:
    """Yield the lines about the functions that use the most time."""
    stacks = answer["stacks_microseconds"]
    total = sum(stacks.values())
    yield f"{answer['looks']} looks in {_seconds(answer['seconds'])}; processor time by thread:"
    yield ""
    threads = sorted(answer["threads"].items(), key=lambda item: -item[1])
    shown = ((f"{used:.2f}", name) for name, used in threads if used >= _SHOWN_SECONDS)
    yield from _table(("SECONDS", "THREAD"), shown)
    yield ""
    if not total:
        yield "no function of Python has used the processor"
        return
    own: Counter[str] = Counter()
    with_called: Counter[str] = Counter()
    for stack, microseconds in stacks.items():
        functions = stack.split(";")
        own[functions[-1]] += microseconds
        # Once, also if it calls itself.
        for function in set(functions):
            with_called[function] += microseconds
    kind = "processor time" if answer["kind"] == "cpu" else "time of the event loop's thread"
    yield f"of {total / 1_000_000:.2f} s of {kind} in Python:"
    yield from _table(
        ("ITSELF", "WITH CALLED", "FUNCTION"),
        (
            (f"{used / total:.1%}", f"{with_called[function] / total:.1%}", function)
            for function, used in own.most_common(top)
        ),
    )
    yield ""
    yield from _table(
        ("WITH CALLED", "FUNCTION"),
        ((f"{used / total:.1%}", function) for function, used in with_called.most_common(top)),
    )


def collapsed(answer: Answer) -> Iterator[str]:
    """Yield the stacks of a profile as programs for flame graphs read them, in microseconds."""
    process = answer["process"]
    root = f"process_{process['pid']}" if process["worker"] is None else f"worker_{process['worker']}"
    yield from (f"{root};{stack} {microseconds}" for stack, microseconds in answer["stacks_microseconds"].items())


def _event_loop(answer: Answer) -> Iterator[str]:
    event_loop = answer["event_loop"]
    if event_loop["answers"]:
        yield f"the event loop answers after {event_loop['lag_seconds'] * 1000:.1f} ms"
        return
    yield "THE EVENT LOOP IS STUCK: it has not answered for 2 s. It is in:"
    functions = event_loop["at"]
    yield from (f"    {_printable(function)}" for function in functions[:_MOST_FUNCTIONS])


def _call(call: Mapping[str, Any]) -> Sequence[object]:
    state = f"{call['state']} {call['statement']}" if call["statement"] else call["state"]
    if call["shared_by"] > 1:
        state += f", shared by {call['shared_by']} calls"
    if call["state"] in {"running", "waiting"} and call["at"]:
        state += f" in {call['at']}"
    return (
        "gone" if call["client_has_gone"] else _seconds(call["age_seconds"]),
        _seconds(call["seconds_left"]),
        _method(call["method"]) or "(its client has gone)",
        state,
        call["connection"],
        call["caller"],
        call["x_request_id"],
        call["trace_id"],
    )


def _use(used: Mapping[str, Any]) -> str:
    if used["statement"]:
        return f"{used['statement']}, in a transaction" if used["in_transaction"] else str(used["statement"])
    return "in a transaction, between statements" if used["in_transaction"] else ""


def _by(calls: Sequence[Mapping[str, Any]], otherwise: str | None) -> str:
    """Return which calls use a connection: the oldest, and how many others."""
    if not calls:
        return otherwise or ""
    first = calls[0]
    age = "whose client has gone" if first["client_has_gone"] else f"for {_seconds(first['age_seconds'])}"
    more = f" and {len(calls) - 1} more calls" if len(calls) > 1 else ""
    return f"{_method(first['method']) or 'a call'} of {first['caller']} {age}, {first['x_request_id']}{more}"


def _calls(data: Mapping[str, Any]) -> str:
    started, failed, last = data.get("calls_started", 0), data.get("calls_failed", 0), data.get(_LAST_CALL)
    return f"{started} calls, {failed} of them failed" + (f", the last at {last}" if last else "")


def _seconds(seconds: float | None) -> str:
    """Return a time for people.

    >>> [_seconds(seconds) for seconds in (0.0123, 4.5, 75, 7500, None)]
    ['12 ms', '4.5 s', '1 min 15 s', '2 h 5 min', '']
    """
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _method(path: str) -> str:
    """Return a method without its package.

    >>> _method("commerce.orders.v1.OrderService/GetOrder"), _method("grpc.health.v1.Health/Watch")
    ('OrderService/GetOrder', 'Health/Watch')
    """
    service, _, method = path.rpartition("/")
    return f"{service.rpartition('.')[2]}/{method}" if service else method


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    return _lines(header, list(rows))


def _lines(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table; columns without any value are left out."""
    cells = [["" if value is None else _printable(str(value)) for value in row] for row in rows]
    shown = [column for column in range(len(header)) if not rows or any(row[column] for row in cells)]
    widths = [max([len(header[column]), *(len(row[column]) for row in cells)]) for column in shown]
    for row in (header, *cells):
        yield "  ".join(row[column].ljust(width) for column, width in zip(shown, widths, strict=True)).rstrip()


def _printable(text: str) -> str:
    """Return a text without characters that a terminal obeys: names of callers may come from elsewhere."""
    return "".join(character if character.isprintable() else "?" for character in text)
