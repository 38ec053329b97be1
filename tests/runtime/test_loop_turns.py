import asyncio
import time

from service.runtime.loop_turns import LoopTurns, in_turns


async def test_one_piece_of_work_begins_in_a_turn_in_the_order_of_arrival() -> None:
    turns, turn = LoopTurns(), 0
    begun: list[tuple[int, int]] = []

    async def work(number: int) -> None:
        await turns.take()
        begun.append((turn, number))

    working = asyncio.gather(*(work(number) for number in range(5)))
    while not working.done():
        turn += 1
        await asyncio.sleep(0)
    assert [number for _, number in begun] == [0, 1, 2, 3, 4]
    assert len({turn for turn, _ in begun}) == 5


async def test_one_that_waits_can_be_cancelled() -> None:
    turns = LoopTurns()
    await turns.take()
    waiting = [asyncio.ensure_future(turns.take()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait(waiting, timeout=10)
    assert [task.cancelled() for task in waiting] == [False, True, False]


async def began(turns: LoopTurns, seconds: float = 0.0, rest: float = 0.0) -> float:
    """Work for some seconds when it is its turn; returns when that was."""
    await turns.take(rest)
    now = time.monotonic()
    time.sleep(seconds)  # noqa: ASYNC251 - keeps the event loop busy
    return now


async def test_between_pieces_that_wait_it_rests_so_that_they_have_their_share_of_the_time() -> None:
    turns = LoopTurns(share=0.25)
    first, second, third = await asyncio.gather(*(began(turns, 0.02) for _ in range(3)))
    # Each works for 20 ms, which is a quarter of the time.
    assert second - first >= 0.075
    assert third - second >= 0.075


async def test_a_piece_that_does_not_wait_is_not_followed_by_a_rest() -> None:
    turns = LoopTurns(share=0.000_1)
    await began(turns, 0.01)
    # It would rest for a hundred seconds.
    await asyncio.wait_for(began(turns), 50)


async def test_no_other_piece_begins_during_the_rest_that_one_asks_for() -> None:
    turns = LoopTurns()
    first, second = await asyncio.gather(began(turns, rest=0.1), began(turns))
    assert second - first >= 0.09


async def test_items_come_a_few_at_a_time_each_time_in_another_turn() -> None:
    turn = 0

    async def read() -> list[tuple[int, list[int]]]:
        return [(turn, list(items)) async for items in in_turns(range(5), 2)]

    reading = asyncio.ensure_future(read())
    while not reading.done():
        turn += 1
        await asyncio.sleep(0)
    seen = reading.result()
    assert [items for _, items in seen] == [[0, 1], [2, 3], [4]]
    assert len({turn for turn, _ in seen}) == 3
    nothing: list[int] = []
    assert [items async for items in in_turns(nothing, 2)] == []
