"""Group commit: writers that wait for each other share a transaction.

A thread that has something to write queues it; the first one has the turn and, when the
store lets it, commits everything that has queued up by then, and passes the turn to whoever
queued up meanwhile. So nobody waits for more than two commits, and a busy store
is asked to commit less often, not more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from queues.errors import StoreUnavailable

C = TypeVar("C")
T = TypeVar("T")

#: So many waiting writers at most share one transaction.
GROUP = 64


class Job(Generic[C, T]):
    """One writer's step, to be run inside a transaction, and what became of it."""

    def __init__(self, step: Callable[[C], T]) -> None:
        self.step = step
        self.called = threading.Lock()  # held until the job is done, or its thread has the turn
        self.called.acquire()
        self._fate = threading.Lock()  # taken once, by whoever runs the step or withdraws it
        self._started = False
        self.done = False
        self.error: BaseException | None = None
        self.value: T | None = None

    def start(self) -> bool:
        """Tell whether to run the step, which from then on cannot be withdrawn; a step may be run again."""
        self._started = self._started or self._fate.acquire(blocking=False)
        return self._started

    def withdraw(self) -> bool:
        """See to it that the step is never run; false if it has begun."""
        return self._fate.acquire(blocking=False)

    def outcome(self) -> T:
        """Return what the step returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # set whenever there is no error


class GroupCommit(Generic[C]):
    """Lets threads commit together.

    `commit` takes the jobs of a group when it can begin, and whoever came meanwhile if it has to begin anew, runs the
    steps of those that `start` in one transaction and sets value or error of each; what it raises becomes the error of
    all that have none.
    `timeout` (seconds) bounds the wait for the turn, and as much again the wait for a
    commit that is under way.
    """

    def __init__(
        self, commit: Callable[[Callable[[], Sequence[Job[C, object]]]], None], *, timeout: float
    ) -> None:
        self._commit_jobs = commit
        self._timeout = timeout
        self._mutex = threading.Lock()  # guards what follows
        self._turn_taken = False  # whether some thread commits
        self._jobs: list[Job[C, object]] = []

    @property
    def waiting(self) -> int:
        """How many jobs wait to be committed."""
        return len(self._jobs)

    def run(self, step: Callable[[C], T]) -> T:
        """Run a step inside a transaction and return its value once it is committed.

        Raises what the step raises, and StoreUnavailable if the turn does not come.
        """
        job: Job[C, T] = Job(step)
        with self._mutex:
            self._jobs.append(job)  # type: ignore[arg-type]  # each job is asked by its own thread alone
            my_turn, self._turn_taken = not self._turn_taken, True
        if not my_turn and not job.called.acquire(timeout=self._timeout):
            self._withdraw(job)
        if not job.done:
            try:
                self._commit()
            finally:
                self._pass_the_turn()
        return job.outcome()

    def _withdraw(self, job: Job[C, T]) -> None:
        """Give up waiting: StoreUnavailable, and nothing done, unless it is too late for that."""
        with self._mutex:
            if job.called.acquire(blocking=False):
                return
            if job in self._jobs:
                self._jobs.remove(job)  # type: ignore[arg-type]
        if not job.withdraw() and job.called.acquire(timeout=self._timeout):
            return
        raise StoreUnavailable("Other writers of this process take too long.")

    def _next_group(self, most: int) -> list[Job[C, object]]:
        with self._mutex:
            group, self._jobs = self._jobs[:most], self._jobs[most:]
        return group

    def _pass_the_turn(self) -> None:
        with self._mutex:
            if self._jobs:
                self._jobs[0].called.release()
            else:
                self._turn_taken = False

    def _commit(self) -> None:
        group: list[Job[C, object]] = []

        def take() -> Sequence[Job[C, object]]:
            group.extend(self._next_group(GROUP - len(group)))
            return group

        try:
            self._commit_jobs(take)
        except BaseException as error:  # each writer raises it for itself
            for job in group or take():
                job.error = job.error or error
        for job in group:
            job.done = True
            job.called.release()
