"""Which worker runs which trial: gives trials to workers, reports how they end, and queues those to be repeated."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence

from headwise_lab.sweeps.executor import Advanced, AttemptResult, Ended, Started, Tell
from headwise_lab.sweeps.trials import Trial

Group = tuple[str, str, int]
"""Model, benchmark and seed: trials of a group share the model and its inputs."""


def choose(mine: Group | None, waiting: Mapping[Group, int], others: Sequence[Group]) -> Group:
    """The group of a worker's next trial. ``waiting``: group -> number of waiting trials, at least one.

    ``mine`` is the group of the worker's last trial, ``others`` are the groups that other workers run. The worker stays
    with its own group while trials of it wait, so that inputs are rarely built twice. Next it takes a group that no
    other worker runs: one with its own model if there is one, else one whose model the fewest others run. If every
    group is being run, it joins the one with the most waiting trials for each worker.
    """
    if mine is not None and mine in waiting:
        return mine
    taken, models = Counter(others), Counter(model for model, _, _ in others)
    free = [group for group in waiting if group not in taken]
    if free:
        return min(free, key=lambda group: (mine is None or group[0] != mine[0], models[group[0]]))
    return max(waiting, key=lambda group: waiting[group] / (1 + taken[group]))


class Queue:
    """Waiting trials by group; groups and trials keep the order in which they were added."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._groups: dict[Group, deque[Trial]] = {}
        for trial in trials:
            self.put(trial)

    def __bool__(self) -> bool:
        return any(self._groups.values())

    def put(self, trial: Trial) -> None:
        """Add a trial behind the others of its group."""
        self._groups.setdefault(trial.group, deque()).append(trial)

    def take(self, mine: Group | None, others: Sequence[Group]) -> Trial:
        """Remove and return the next trial for a worker; ``mine`` and ``others`` as in ``choose``."""
        waiting = {group: len(trials) for group, trials in self._groups.items() if trials}
        return self._groups[choose(mine, waiting, others)].popleft()


class Scheduler:
    """The waiting trials of one run of an executor, and which worker runs which; reports all events by ``tell``.

    A worker may be any hashable object.
    """

    def __init__(self, trials: Iterable[Trial], tell: Tell) -> None:
        self._queue, self._tell = Queue(trials), tell
        self._running: dict[Hashable, Trial] = {}

    @property
    def waiting(self) -> bool:
        """Whether a trial waits for a worker."""
        return bool(self._queue)

    @property
    def running(self) -> bool:
        """Whether a worker has a trial."""
        return bool(self._running)

    def has(self, worker: Hashable) -> bool:
        """Whether this worker has a trial."""
        return worker in self._running

    def start(self, worker: Hashable, mine: Group | None = None) -> Trial | None:
        """Start the next trial for a worker whose last trial was of group ``mine``; None where none waits."""
        if not self._queue:
            return None
        others = [trial.group for trial in self._running.values()]
        trial = self._running[worker] = self._queue.take(mine, others)
        self._tell(Started(trial.id))
        return trial

    def advance(self, worker: Hashable, questions: int) -> None:
        """Report that ``questions`` more questions of a worker's trial are answered."""
        self._tell(Advanced(self._running[worker].id, questions))

    def end(self, worker: Hashable, outcome: AttemptResult) -> Group:
        """Report that a worker's trial has ended; it waits again if it is to be repeated. Returns its group."""
        trial = self._running.pop(worker)
        if self._tell(Ended(trial.id, outcome)):
            self._queue.put(trial)
        return trial.group
