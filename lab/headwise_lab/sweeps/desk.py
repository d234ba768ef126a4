"""Who runs which trial: hands trials out to workers, tells what becomes of them, and takes some back."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence

from headwise_lab.sweeps.executor import Advanced, Ended, Outcome, Started, Tell
from headwise_lab.sweeps.trials import Trial

Group = tuple[str, str, int]
"""Model, benchmark and seed: trials of a group share what the model sees."""


def choose(mine: Group | None, waiting: Mapping[Group, int], others: Sequence[Group]) -> Group:
    """The group a worker takes its next trial from; ``waiting``: how many wait in each, one at least.

    Its own group while trials of it wait, so that inputs are rarely built twice. Then one that no other worker has, of
    its own model, or of one that few have. Only when all are taken does it help where most wait for each worker, so
    that no worker is idle while a trial waits.
    """
    if mine is not None and mine in waiting:
        return mine
    taken, models = Counter(others), Counter(model for model, _, _ in others)
    free = [group for group in waiting if group not in taken]
    if free:
        return min(free, key=lambda group: (mine is None or group[0] != mine[0], models[group[0]]))
    return max(waiting, key=lambda group: waiting[group] / (1 + taken[group]))


class Queue:
    """Trials that wait, by group; groups and trials stay in the order they came in."""

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._groups: dict[Group, deque[Trial]] = {}
        for trial in trials:
            self.put(trial)

    def __bool__(self) -> bool:
        return any(self._groups.values())

    def put(self, trial: Trial) -> None:
        """A trial waits, behind the others of its group."""
        self._groups.setdefault(trial.group, deque()).append(trial)

    def take(self, mine: Group | None, others: Sequence[Group]) -> Trial:
        """The next trial for a worker that has the inputs of ``mine``, where the others have those of ``others``."""
        waiting = {group: len(trials) for group, trials in self._groups.items() if trials}
        return self._groups[choose(mine, waiting, others)].popleft()


class Desk:
    """What one run of an executor knows: which trials wait, and who has which; every event is told from here.

    A worker is whatever its executor knows it by.
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
        """The next trial of a worker that has the inputs of ``mine``; None where none waits."""
        if not self._queue:
            return None
        others = [trial.group for trial in self._running.values()]
        trial = self._running[worker] = self._queue.take(mine, others)
        self._tell(Started(trial.id))
        return trial

    def advance(self, worker: Hashable, questions: int) -> None:
        """So many more questions of a worker's trial are answered."""
        self._tell(Advanced(self._running[worker].id, questions))

    def end(self, worker: Hashable, outcome: Outcome) -> Group:
        """A worker's trial is over; if it is to be run once more, it waits again. Returns its group."""
        trial = self._running.pop(worker)
        if self._tell(Ended(trial.id, outcome)):
            self._queue.put(trial)
        return trial.group
