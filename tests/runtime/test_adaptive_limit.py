from service.runtime.adaptive_limit import AdaptiveLimit

# How long a call takes on a quiet server.
QUIET = 0.001
SAMPLES = 60


class Simulated:
    """A server whose calls take long in proportion to how many run, beyond those that it can run side by side."""

    def __init__(self, limit: AdaptiveLimit, capacity: int) -> None:
        self.limit = limit
        self.capacity = capacity
        self.quiet = QUIET
        self.now = 0.0

    def run(self, windows: int, demand: int) -> None:
        """Run as many calls as are wanted, and as the limit allows."""
        for _ in range(windows):
            running = min(demand, self.limit.value)
            self.limit.reached |= demand > running
            for _ in range(SAMPLES):
                self.now += 0.01
                self.limit.add(self.quiet * max(1, running / self.capacity), running, self.now)


def limit(start: int = 8, minimum: int = 4, maximum: int = 1000) -> AdaptiveLimit:
    return AdaptiveLimit(start, minimum=minimum, maximum=maximum)


def test_it_finds_how_many_calls_can_run_without_becoming_slow() -> None:
    server = Simulated(limit(), capacity=20)
    server.run(3, demand=4)
    server.run(200, demand=10_000)
    # Calls are late from 7 ms on, so from 140 running calls on.
    assert 110 <= server.limit.value <= 150


def test_it_shrinks_by_a_tenth_while_calls_are_late() -> None:
    server = Simulated(limit(start=100), capacity=2)
    server.run(1, demand=2)
    server.run(1, demand=10_000)
    assert server.limit.value == 90
    server.run(100, demand=10_000)
    # Calls are late from 7 ms on, so from 14 running calls on.
    assert 12 <= server.limit.value <= 15


def test_what_makes_calls_late_is_tried_more_and_more_rarely() -> None:
    server = Simulated(limit(start=2, minimum=2), capacity=2)
    # Calls are late from 45 ms on, so those of five that run.
    server.quiet = 0.02
    server.run(3, demand=2)

    def windows_with_late_calls(windows: int) -> int:
        late = 0
        for _ in range(windows):
            late += server.limit.value > 4
            server.run(1, demand=10_000)
        return late

    assert windows_with_late_calls(20) >= 3
    assert 4 <= windows_with_late_calls(100) <= 15
    assert server.limit.value >= 4


def test_it_grows_quickly_where_calls_are_no_longer_late() -> None:
    server = Simulated(limit(start=2, minimum=2, maximum=30), capacity=2)
    server.quiet = 0.02
    server.run(3, demand=2)
    server.run(100, demand=10_000)
    assert server.limit.value <= 5
    server.capacity = 1000
    # The longest time between two attempts, and a window for each step.
    server.run(16 + 25, demand=10_000)
    assert server.limit.value == 30


def test_it_does_not_change_while_few_calls_run() -> None:
    server = Simulated(limit(), capacity=20)
    server.run(100, demand=7)
    assert server.limit.value == 8


def test_it_does_not_grow_beyond_the_maximum() -> None:
    server = Simulated(limit(maximum=30), capacity=1000)
    server.run(100, demand=10_000)
    assert server.limit.value == 30


def test_a_long_overload_does_not_pass_for_the_normal_state() -> None:
    server = Simulated(limit(), capacity=20)
    server.run(3, demand=4)
    # Above the minimum, so that the calls of a quiet server are not seen any more.
    server.run(5000, demand=10_000)
    assert server.limit.value <= 150


def test_it_learns_that_calls_take_longer_than_before() -> None:
    server = Simulated(limit(), capacity=20)
    server.run(3, demand=4)
    server.quiet = 0.02
    server.run(10, demand=10_000)
    assert server.limit.value == 4
    server.run(500, demand=10_000)
    assert server.limit.value > 20


def test_single_slow_calls_do_not_matter() -> None:
    found = limit()
    now = 0.0
    for number in range(2000):
        now += 0.01
        found.reached = True
        found.add(5.0 if number % 3 == 0 else 0.001, 2, now)
    assert found.value > 20


def test_calls_are_not_late_before_any_was_seen_on_a_quiet_server() -> None:
    found = limit(start=100)
    for number in range(SAMPLES):
        found.add(1.0, 100, number * 0.01)
    assert found.value == 100


def test_for_calls_that_take_long_a_few_in_half_a_second_are_enough() -> None:
    slow = limit(start=20)
    now = 0.0
    for _ in range(20):
        now += 0.06
        slow.add(0.06, 1, now)
    for _ in range(10):
        now += 0.06
        slow.add(1.0, 20, now)
    assert slow.value == 18
