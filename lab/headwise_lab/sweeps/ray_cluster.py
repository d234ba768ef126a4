"""The executor ``ray``: actors on the machines of a Ray cluster, each of which keeps its model (``headwise[ray]``).

It joins the cluster of RAY_ADDRESS or the one that runs on this machine, and starts one of its own where there is none.
Models and data must be found at the same paths on every machine; what is missing there is the failure of a trial.
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
from headwise_lab.sweeps.desk import Desk, Group
from headwise_lab.sweeps.executor import Outcome, Tell, at_least_one, needs
from headwise_lab.sweeps.ray_actor import Actor
from headwise_lab.sweeps.trials import Trial, Work, plain

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

PATIENCE = 600.0
"""Seconds that all workers may wait for room; machines that a cluster adds by itself take minutes to come."""


GRACE, PAUSE = 60.0, 1.0
"""Seconds for which workers may fail to begin, as Ray may still ask a machine that has died, and between tries."""


@attrs.frozen(kw_only=True)
class RayCluster:
    """Actors on a Ray cluster; an actor or a machine that dies costs one attempt of the trial it was running.

    ``workers``: None means one per GPU of the cluster, or per machine without GPUs. ``address``: of a cluster;
    ``cpus``: CPUs that each worker asks for, by default an even share, or 1 beside its GPU.
    """

    workers: int | None = attrs.field(default=None, validator=at_least_one)
    address: str | None = None
    cpus: int | None = attrs.field(default=None, converter=attrs.converters.optional(int))

    def __attrs_post_init__(self) -> None:
        needs("ray", "ray")

    def run(self, work: Work, trials: Sequence[Trial], tell: Tell) -> None:
        """Run trials, those of a model and benchmark together where there is a choice."""
        from headwise_lab.sweeps.ray_joining import joined

        with joined(self.address) as ray:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            count, asked = share(nodes, self.workers, work.terms.device, self.cpus)
            # Nothing is tried again behind the sweep's back; the second thread tells of progress.
            given = {**asked, "max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2}
            actor = ray.remote(Actor).options(**given, scheduling_strategy="SPREAD")
            told = json.dumps(plain(work))
            crew = Crew(ray, lambda: actor.remote(told), Desk(trials, tell), str(asked))
            try:
                crew.run(min(count, len(trials)))
            finally:
                crew.close()


def share(
    nodes: Sequence[Mapping[str, float]], workers: int | None, device: str, cpus: int | None
) -> tuple[int, dict[str, int]]:
    """How many workers, and what each asks Ray for; ``nodes``: the resources of each machine.

    Raises DataError where the cluster has no GPU and one is wanted.
    """
    if device.startswith("cuda"):
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        if device != "cuda":
            raise DataError(f"device {device} is one GPU of one machine, and Ray deals GPUs out; give device cuda")
        if not gpus:
            raise DataError("the Ray cluster has no GPU; give --device cpu, or join a cluster that has (RAY_ADDRESS)")
        return workers or gpus, {"num_gpus": 1, "num_cpus": cpus or 1}
    cores = [int(node["CPU"]) for node in nodes if node.get("CPU")]
    count = workers or len(cores) or 1
    fitting = (size for size in range(max(cores, default=1), 1, -1) if sum(core // size for core in cores) >= count)
    return count, {"num_cpus": cpus or next(fitting, 1)}


@attrs.define(eq=False)
class _Worker:
    """An actor, and how many answered questions of it have been told."""

    actor: ActorHandle
    told: int = 0


Heard = Callable[[_Worker, Any], None]
"""What is done with a worker's answer to a call."""


class Crew:
    """Workers that wait for room, or run one trial each. ``ray``: the module; ``hire`` asks for an actor."""

    def __init__(self, ray: ModuleType, hire: Callable[[], ActorHandle], desk: Desk, asked: str = "") -> None:
        self._ray, self._actor, self._desk, self._asked = ray, hire, desk, asked
        self._workers: list[_Worker] = []
        self._calls: dict[ObjectRef, tuple[_Worker, Heard]] = {}
        self._failing: float | None = None  # since when no worker that was hired has begun

    def run(self, count: int) -> None:
        """Keep so many workers busy until no trial waits and none runs."""
        for _ in range(count):
            self._hire()
        while self._desk.waiting or self._desk.running:
            done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=PATIENCE)
            if not done and not self._desk.running:
                raise DataError(f"no machine of the Ray cluster has room for a worker, which asks for {self._asked}")
            for call in done:
                self._hear(call)

    def close(self) -> None:
        """End every actor."""
        for worker in [*self._workers]:
            self._dismiss(worker)

    def _hire(self) -> None:
        worker = _Worker(self._actor())
        self._workers.append(worker)
        self._call(worker, "ready", self._arrive)

    def _call(self, worker: _Worker, method: str, heard: Heard, *arguments: object) -> None:
        self._calls[getattr(worker.actor, method).remote(*arguments)] = worker, heard

    def _hear(self, call: ObjectRef) -> None:
        worker, heard = self._calls.pop(call)
        try:
            told = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._bury(worker, error)
        else:
            heard(worker, told)

    def _arrive(self, worker: _Worker, _: None) -> None:
        """A worker has found room: only now is a trial its own, so that none waits with it."""
        self._failing = None
        self._give(worker, None)
        if self._desk.has(worker):
            self._call(worker, "answered", self._advance, 0)

    def _give(self, worker: _Worker, group: Group | None) -> None:
        trial = self._desk.start(worker, group)
        if trial is None:
            self._dismiss(worker)
        else:
            self._call(worker, "run", self._end, json.dumps(plain(trial)))

    def _advance(self, worker: _Worker, answered: int) -> None:
        self._count(worker, answered)
        self._call(worker, "answered", self._advance, answered)

    def _count(self, worker: _Worker, answered: int) -> None:
        if answered > worker.told:  # a count that was on its way when a trial ended comes late
            self._desk.advance(worker, answered - worker.told)
            worker.told = answered

    def _end(self, worker: _Worker, text: str) -> None:
        told = json.loads(text)
        self._count(worker, told["answered"])
        self._give(worker, self._desk.end(worker, Outcome(**told["ended"])))

    def _bury(self, worker: _Worker, error: Exception) -> None:
        """A worker has died: its trial has failed, and another takes its place.

        One that never began costs nothing, unless none has begun for a while: then the next trial fails with it, so
        that a cluster where nothing can begin comes to an end.
        """
        self._dismiss(worker)
        if not self._desk.has(worker) and self._in_vain():
            self._desk.start(worker)
        if self._desk.has(worker):
            self._desk.end(worker, Outcome(error=cause(error)))
        if self._desk.waiting:
            self._hire()

    def _in_vain(self) -> bool:
        """Whether workers have failed to begin for too long; waits a little before the next is tried where not."""
        now = time.monotonic()
        self._failing = now if self._failing is None else self._failing
        if now - self._failing >= GRACE:
            return True
        time.sleep(PAUSE)
        return False

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._calls = {call: told for call, told in self._calls.items() if told[0] is not worker}
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor)


def cause(error: Exception) -> str:
    """What Ray says about the end of an actor, in one line; what it lists before are its own names for the actor."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"WorkerDied: {shorten(lines[-1].partition(' Some common causes')[0], 300, placeholder=' ...')}"
