"""The executor ``ray``: actors on the machines of a Ray cluster, each of which keeps its model (``headwise[ray]``).

It joins the cluster that RAY_ADDRESS names, or the one that runs on this machine; without either it starts its own.
Models and data must be at the same paths on every machine; a trial that does not find them there fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from textwrap import shorten
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

from headwise.errors import DataError
from headwise_lab.sweeps.executor import AttemptResult, Tell, at_least_one, needs
from headwise_lab.sweeps.ray_actor import Actor
from headwise_lab.sweeps.scheduler import Group, Scheduler
from headwise_lab.sweeps.trials import Trial, Work, plain

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

PATIENCE = 600.0
"""Seconds without any free machine before the sweep gives up; a cluster that scales up needs minutes for that."""


GRACE, PAUSE = 60.0, 1.0
"""Seconds for which workers may fail to start (Ray may still use a dead machine), and between two tries."""


@attrs.frozen(kw_only=True)
class RayCluster:
    """Actors on a Ray cluster; when an actor or a machine dies, the trial it was running has used up one attempt.

    ``workers``: None means one per GPU of the cluster, or one per machine where it has no GPUs. ``address``: of the
    cluster. ``cpus``: CPUs that each worker reserves; by default an even share of them, or 1 beside its GPU.
    """

    workers: int | None = attrs.field(default=None, validator=at_least_one)
    address: str | None = None
    cpus: int | None = attrs.field(default=None, converter=attrs.converters.optional(int))

    def __attrs_post_init__(self) -> None:
        needs("ray", "ray")

    def run(self, work: Work, trials: Sequence[Trial], tell: Tell) -> None:
        """Run trials; a worker prefers trials with the model and benchmark that it has loaded."""
        from headwise_lab.sweeps.ray_joining import joined

        with joined(self.address) as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            count, asked = share(nodes, self.workers, work.terms.device, self.cpus)
            # Ray retries nothing by itself: the sweep counts attempts. The second thread reports progress.
            given = {**asked, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}
            actor = ray.remote(Actor).options(**given, scheduling_strategy="SPREAD")
            message = json.dumps(plain(work))
            crew = Crew(ray, lambda: actor.remote(message), Scheduler(trials, tell), str(asked))
            try:
                crew.run(min(count, len(trials)))
            finally:
                crew.close()


def share(
    nodes: Sequence[Mapping[str, float]], workers: int | None, device: str, cpus: int | None
) -> tuple[int, dict[str, int]]:
    """The number of workers, and the resources that each reserves; ``nodes``: the resources of each machine.

    Raises DataError where a GPU is asked for and the cluster has none, or where one certain GPU is asked for.
    """
    if device.startswith("cuda"):
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if device != "cuda":
            raise DataError(f"device {device} is one GPU of one machine, but Ray assigns the GPUs; give device cuda")
        if not gpus:
            raise DataError("the Ray cluster has no GPU; give --device cpu, or join a cluster that has (RAY_ADDRESS)")
        return workers or gpus, {"num_gpus": 1, "num_cpus": cpus or 1}
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU")]
    count = workers or len(cores) or 1
    fitting = (size for size in range(max(cores, default=1), 1, -1) if sum(core // size for core in cores) >= count)
    return count, {"num_cpus": cpus or next(fitting, 1)}


@attrs.define(eq=False)
class _ActorWorker:
    """An actor, and the number of its answered questions that have been reported."""

    actor: ActorHandle
    reported: int = 0


Callback = Callable[[_ActorWorker, Any], None]
"""Called with a worker and its answer to a call."""


class Crew:
    """Workers that wait for a free machine, or run one trial each. ``ray``: the module; ``hire`` starts an actor."""

    def __init__(self, ray: ModuleType, hire: Callable[[], ActorHandle], scheduler: Scheduler, asked: str = "") -> None:
        self._ray, self._actor, self._scheduler, self._asked = ray, hire, scheduler, asked
        self._workers: list[_ActorWorker] = []
        self._calls: dict[ObjectRef, tuple[_ActorWorker, Callback]] = {}
        self._failing: float | None = None  # when workers began to fail at their start; None once one has started

    def run(self, count: int) -> None:
        """Keep ``count`` workers busy until no trial waits and none runs."""
        for _ in range(count):
            self._hire()
        while self._scheduler.waiting or self._scheduler.running:
            done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=PATIENCE)
            if not done and not self._scheduler.running:
                raise DataError(f"no machine of the Ray cluster has room for a worker, which asks for {self._asked}")
            for call in done:
                self._hear(call)

    def close(self) -> None:
        """End every actor."""
        for worker in [*self._workers]:
            self._dismiss(worker)

    def _hire(self) -> None:
        worker = _ActorWorker(self._actor())
        self._workers.append(worker)
        self._call(worker, "ready", self._arrive)

    def _call(self, worker: _ActorWorker, method: str, callback: Callback, *arguments: object) -> None:
        self._calls[getattr(worker.actor, method).remote(*arguments)] = worker, callback

    def _hear(self, call: ObjectRef) -> None:
        worker, callback = self._calls.pop(call)
        try:
            message = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._bury(worker, error)
        else:
            callback(worker, message)

    def _arrive(self, worker: _ActorWorker, _: None) -> None:
        """A worker has a machine: only now it gets a trial, so that no trial waits together with its worker."""
        self._failing = None
        self._give(worker, None)
        if self._scheduler.has(worker):
            self._call(worker, "answered", self._advance, 0)

    def _give(self, worker: _ActorWorker, group: Group | None) -> None:
        trial = self._scheduler.start(worker, group)
        if trial is None:
            self._dismiss(worker)
        else:
            self._call(worker, "run", self._end, json.dumps(plain(trial)))

    def _advance(self, worker: _ActorWorker, answered: int) -> None:
        self._count(worker, answered)
        self._call(worker, "answered", self._advance, answered)

    def _count(self, worker: _ActorWorker, answered: int) -> None:
        if answered > worker.reported:  # a count that was sent before a trial ended may arrive after its end
            self._scheduler.advance(worker, answered - worker.reported)
            worker.reported = answered

    def _end(self, worker: _ActorWorker, text: str) -> None:
        message = json.loads(text)
        self._count(worker, message["answered"])
        self._give(worker, self._scheduler.end(worker, AttemptResult(**message["ended"])))

    def _bury(self, worker: _ActorWorker, error: Exception) -> None:
        """A worker has died: its trial has failed, and another worker is started.

        A worker that died before it started costs no attempt. But where no worker could start for GRACE seconds, the
        next trial fails with it, so that a sweep ends on a cluster where no worker can ever start.
        """
        self._dismiss(worker)
        if not self._scheduler.has(worker) and self._in_vain():
            self._scheduler.start(worker)
        if self._scheduler.has(worker):
            self._scheduler.end(worker, AttemptResult(error=cause(error)))
        if self._scheduler.waiting:
            self._hire()

    def _in_vain(self) -> bool:
        """Whether workers have failed to start for GRACE seconds; where not, waits a moment before the next try."""
        now = time.monotonic()
        self._failing = now if self._failing is None else self._failing
        if now - self._failing >= GRACE:
            return True
        time.sleep(PAUSE)
        return False

    def _dismiss(self, worker: _ActorWorker) -> None:
        self._workers.remove(worker)
        self._calls = {call: pair for call, pair in self._calls.items() if pair[0] is not worker}
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor)


def cause(error: Exception) -> str:
    """Why an actor died, in one line: the last of Ray's message, whose other lines only name the actor."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"WorkerDied: {shorten(lines[-1].partition(' Some common causes')[0], 300, placeholder=' ...')}"
