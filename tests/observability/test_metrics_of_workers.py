"""What several workers report becomes one page, and what ended workers have counted stays in it."""

from service.observability.metrics import catalogue
from service.observability.metrics.histogram import Histogram
from service.observability.metrics.snapshot import Buckets, Exemplar, Snapshot, snapshot_of
from service.observability.metrics.workers import WorkersMetrics

METHOD = ("unary", "users", "GetUser")


def report(*, calls: int, in_use: int = 0, seconds: tuple[float, ...] = (), time: float = 0) -> bytes:
    snapshot = Snapshot()
    snapshot.add(catalogue.STARTED, calls, *METHOD)
    snapshot.add(catalogue.POOL_IN_USE, in_use, "calls")
    snapshot.add(catalogue.FEED_LAG, in_use)
    snapshot.add(catalogue.REPLICA_IN_USE, in_use)
    snapshot.add(catalogue.READY, 1)
    durations = Histogram([1, 2])
    for value in seconds:
        durations.observe(value)
    exemplars = [Exemplar(0, f"trace-{time}", 0.5, time)]
    snapshot.add(catalogue.HANDLING_SECONDS, Buckets(durations.counts, durations.total, exemplars), *METHOD)
    return snapshot.to_json()


def test_a_snapshot_survives_the_way_to_another_process() -> None:
    samples = snapshot_of(report(calls=3, seconds=(0.5, 3))).samples
    assert samples["grpc_server_started"] == {METHOD: 3}
    assert samples["grpc_server_handling_seconds"] == {
        METHOD: Buckets([1, 0, 1], 3.5, [Exemplar(0, "trace-0", 0.5, 0)])
    }


def test_values_are_merged_as_their_metrics_say() -> None:
    workers = WorkersMetrics()
    for pid, number in ((11, 1), (12, 2)):
        workers.started(pid, number)
        workers.received(pid, report(calls=number, in_use=number, seconds=(0.5, number), time=number))
    samples = workers.snapshot().samples
    assert samples["grpc_server_started"] == {METHOD: 3}
    assert samples["commerce_db_pool_in_use"] == {("calls",): 3}
    assert samples["commerce_event_feed_lag_seconds"] == {(): 2}
    assert samples["commerce_db_replica_in_use"] == {(): 1}
    assert samples["commerce_ready"] == {("1",): 1, ("2",): 1}
    duration = samples["grpc_server_handling_seconds"][METHOD]
    assert duration == Buckets([3, 1, 0], 4.0, [Exemplar(0, "trace-2", 0.5, 2)])
    assert samples["commerce_workers"] == {(): 2}


def test_only_counts_of_ended_workers_stay() -> None:
    workers = WorkersMetrics()
    workers.started(11, 1)
    workers.received(11, report(calls=5, in_use=2, seconds=(0.5,)))
    workers.ended(11)
    workers.started(12, 1)
    workers.received(12, report(calls=1, in_use=1, seconds=(0.5,)))
    samples = workers.snapshot().samples
    assert samples["grpc_server_started"] == {METHOD: 6}
    assert samples["commerce_db_pool_in_use"] == {("calls",): 1}
    duration = samples["grpc_server_handling_seconds"][METHOD]
    assert isinstance(duration, Buckets)
    assert list(duration.counts) == [2, 0, 0]
    assert samples["commerce_worker_starts"] == {(): 2}
    # A snapshot does not change what is kept.
    assert workers.snapshot().samples["grpc_server_started"] == {METHOD: 6}


def test_reports_that_cannot_be_read_and_metrics_of_another_release_are_passed_over() -> None:
    workers = WorkersMetrics()
    workers.started(11, 1)
    for data in (b"", b"[]", b'{"a": 1}', b'{"unknown": [[[], 1]]}'):
        workers.received(11, data)
    assert "unknown" not in workers.snapshot().samples
