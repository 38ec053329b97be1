import asyncio

from service.runtime.loop_turns import LoopTurns


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
