import asyncio
from collections.abc import Awaitable, Callable

import pytest

from notifiers.room import Gate, Shares, Turns


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await story()

    asyncio.run(bounded())


async def admitted(*entries: Awaitable[object]) -> list[asyncio.Task[None]]:
    """Let all of them try to enter; return the tasks, of which some are done."""

    async def enter(entry: Awaitable[object]) -> None:
        await entry

    tasks = [asyncio.create_task(enter(entry)) for entry in entries]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


def inside(tasks: list[asyncio.Task[None]]) -> int:
    return sum(task.done() and not task.cancelled() for task in tasks)


async def give_up(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class TestGate:
    def test_it_opens_wider_for_who_is_quick(self):
        async def story() -> None:
            gate = Gate(6)
            tasks = await admitted(*(gate.enter() for _ in range(20)))
            seen = [inside(tasks)]
            for _ in range(4):
                gate.leave(quick=True)
                await asyncio.sleep(0)
                seen.append(inside(tasks))
            assert seen == [4, 6, 8, 9, 10]  # six at a time at most
            await give_up(tasks)

        run(story)

    def test_it_lets_one_at_a_time_through_to_who_is_not(self):
        async def story() -> None:
            gate = Gate(6)
            tasks = await admitted(*(gate.enter() for _ in range(20)))
            for _ in range(4):
                gate.leave(quick=False)
            await asyncio.sleep(0)
            assert inside(tasks) == 5
            await give_up(tasks)

        run(story)

    def test_who_leaves_without_having_tried_says_nothing(self):
        async def story() -> None:
            gate = Gate(6)
            tasks = await admitted(*(gate.enter() for _ in range(6)))
            gate.leave()
            await asyncio.sleep(0)
            assert inside(tasks) == 5
            await give_up(tasks)

        run(story)

    def test_it_is_stuck_while_who_is_slow_takes_all_the_room(self):
        async def story() -> None:
            gate = Gate(6)
            await gate.enter()
            await gate.enter()
            assert not gate.is_stuck()
            gate.slow()
            assert gate.is_stuck()
            gate.leave(quick=False)
            assert gate.is_stuck()
            gate.leave(quick=False)
            assert not gate.is_stuck()
            await gate.enter()
            assert gate.is_stuck()  # it was slow before
            gate.leave(quick=True)
            await gate.enter()
            await gate.enter()
            assert not gate.is_stuck()

        run(story)

    def test_who_gives_up_leaves_no_hole(self):
        async def story() -> None:
            gate = Gate(4)
            tasks = await admitted(*(gate.enter() for _ in range(12)))
            await give_up(tasks[4:8])
            gate.leave(quick=True)
            tasks[8].cancel()  # whose turn it is just now
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert inside(tasks) == 5
            assert tasks[9].done()
            await give_up(tasks)

        run(story)


class TestShares:
    @pytest.mark.parametrize(("most", "share"), [(1, 1), (2, 1), (7, 4), (20, 10), (1000, 500)])
    def test_who_is_alone_has_half_of_the_room(self, most, share):
        async def story() -> None:
            shares = Shares(most)
            tasks = await admitted(*(shares.enter("a") for _ in range(most + 1)))
            assert inside(tasks) == share
            await give_up(tasks)

        run(story)

    def test_there_is_room_for_one_more_whatever_the_others_do(self):
        async def story() -> None:
            shares = Shares(100)
            crowds = [await admitted(*(shares.enter(name) for _ in range(100))) for name in "abcde"]
            assert [inside(tasks) for tasks in crowds] == [50, 25, 13, 6, 3]
            for tasks in crowds:
                await give_up(tasks)

        run(story)

    def test_in_time_all_have_the_same(self):
        async def story() -> None:
            shares = Shares(30)
            crowds = {name: await admitted(*(shares.enter(name) for _ in range(200))) for name in "ab"}
            left = dict.fromkeys("ab", 0)
            for number in range(100):
                name = "ab"[number % 2]
                if inside(crowds[name]) > left[name]:
                    shares.leave(name)
                    left[name] += 1
                    await asyncio.sleep(0)
            assert all(9 <= inside(crowds[name]) - left[name] <= 11 for name in "ab")
            for tasks in crowds.values():
                await give_up(tasks)

        run(story)

    def test_who_waits_is_let_in_in_order_and_all_are_in_the_end(self):
        async def story() -> None:
            shares, order = Shares(4), []

            async def work(name: str, number: int) -> None:
                await shares.enter(name)
                order.append((name, number))
                await asyncio.sleep(0)
                shares.leave(name)

            await asyncio.gather(*(work(name, number) for number in range(50) for name in "abc"))
            for name in "abc":
                assert [number for each, number in order if each == name] == list(range(50))

        run(story)

    def test_who_gives_up_leaves_no_hole(self):
        async def story() -> None:
            shares = Shares(2)
            tasks = await admitted(*(shares.enter("a") for _ in range(4)))
            await give_up(tasks[1:2])
            shares.leave("a")
            tasks[2].cancel()  # whose turn it is just now
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert tasks[3].done()
            shares.leave("a")
            tasks = await admitted(shares.enter("a"), shares.enter("b"))
            assert inside(tasks) == 2

        run(story)

    def test_a_project_is_stuck_while_slow_attempts_take_its_share(self):
        async def story() -> None:
            shares = Shares(8)
            for _ in range(4):
                await shares.enter("a")
            assert not shares.is_stuck("a")
            shares.slow("a")
            assert not shares.is_stuck("a")
            shares.slow("a")
            assert shares.is_stuck("a")
            assert not shares.is_stuck("b")
            shares.leave("a", slow=True)
            assert not shares.is_stuck("a")
            await shares.enter("a")
            assert not shares.is_stuck("a")  # three of the four are quick

        run(story)


class TestTurns:
    def test_the_quick_come_one_after_the_other(self):
        async def story() -> None:
            turns, under_way, most = Turns(3, quick=20), 0, 0

            async def work() -> None:
                nonlocal under_way, most
                end = await turns.take("a")
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0)
                under_way -= 1
                end()
                end()  # which changes nothing

            await asyncio.gather(*(work() for _ in range(20)))
            assert most == 3

        run(story)

    def test_who_takes_his_time_holds_nobody_up(self):
        async def story() -> None:
            turns = Turns(2, quick=0.01)
            ends = [await turns.take("a") for _ in range(7)]
            for end in ends:
                end()
            tasks = await admitted(*(turns.take("a") for _ in range(3)))
            assert inside(tasks) == 2
            await give_up(tasks)

        run(story)

    def test_each_has_its_own(self):
        async def story() -> None:
            turns = Turns(1, quick=20)
            end, other = await turns.take("a"), await turns.take("b")
            tasks = await admitted(turns.take("a"))
            assert inside(tasks) == 0
            other()
            assert inside(tasks) == 0
            end()
            await tasks[0]

        run(story)
