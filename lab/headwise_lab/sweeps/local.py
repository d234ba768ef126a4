"""The executor ``local``: worker processes on this machine, one for each GPU, or several that share the CPU's cores."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import attrs

from headwise.errors import DataError
from headwise_lab.sweeps.executor import AttemptResult, LateRunner, Tell, attempt
from headwise_lab.sweeps.scheduler import Group, Scheduler
from headwise_lab.sweeps.trials import Trial, Work, plain
from headwise_lab.sweeps.worker import serve

PATIENCE = 5.0
"""Seconds that a process gets to end by itself."""

Place = Mapping[str, str]
"""Environment variables that give a worker its part of the machine: a GPU, or a number of cores."""


@attrs.frozen
class Local:
    """A pool of spawned processes; when a worker dies, the trial it was running has used up one attempt.

    ``workers=0`` runs trials in this process; None means one worker for each GPU, or a single one without GPUs.
    """

    workers: int | None = None

    def run(self, work: Work, trials: Sequence[Trial], tell: Tell) -> None:
        """Run trials; a worker prefers trials with the model and benchmark that it has loaded."""
        if self.workers is not None and self.workers < 0:
            raise DataError(f"{self.workers} workers cannot run anything; give 1 or more, or 0 to use no other process")
        scheduler = Scheduler(trials, tell)
        if self.workers == 0:
            _here(work, scheduler)
            return
        pool = Pool(work, scheduler)
        try:
            pool.run(places(self.workers, work.terms.device)[: len(trials)])
        finally:
            pool.close()


def _here(work: Work, scheduler: Scheduler) -> None:
    runner, group = LateRunner(work), None
    while trial := scheduler.start(runner, group):
        group = scheduler.end(runner, attempt(runner, trial, partial(scheduler.advance, runner)))


def places(workers: int | None, device: str, environment: Mapping[str, str] = os.environ) -> list[Place]:
    """A place for each worker: a share of the cores, and for device ``cuda``, which means all GPUs, one GPU in turn."""
    gpus = _gpus(environment) if device == "cuda" else []
    count = workers or len(gpus) or 1
    share = {} if "OMP_NUM_THREADS" in environment else {"OMP_NUM_THREADS": str(max(1, cores() // count))}
    pins = [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(count)]
    return [{**share, **pin} for pin in pins]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus(environment: Mapping[str, str]) -> list[str]:
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@attrs.define(eq=False)
class _ProcessWorker:
    process: BaseProcess
    pipe: Connection
    place: Place


class Pool:
    """Worker processes, each of which runs one trial at a time."""

    def __init__(self, work: Work, scheduler: Scheduler) -> None:
        self._work, self._scheduler = json.dumps(plain(work)), scheduler
        self._workers: list[_ProcessWorker] = []
        self._ended: list[BaseProcess] = []

    def run(self, given: Sequence[Place]) -> None:
        """Run one worker in every place until no trial waits and none runs."""
        for place in given:
            self._hire(place)
        while self._workers:
            pipes = {worker.pipe: worker for worker in self._workers}
            for pipe in wait(list(pipes)):
                self._hear(pipes[pipe])  # type: ignore[index]

    def close(self) -> None:
        """End every process that was started, and wait until it has ended."""
        for worker in [*self._workers]:
            self._dismiss(worker)
        for process in self._ended:
            process.terminate()
        for process in self._ended:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
            process.close()
        self._ended.clear()

    def _hire(self, place: Place) -> None:
        if not self._scheduler.waiting:
            return
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._work, dict(place)), daemon=True)
        with deaf_to_ctrl_c():
            process.start()
        theirs.close()
        worker = _ProcessWorker(process, mine, place)
        self._workers.append(worker)
        self._give(worker, None)

    def _give(self, worker: _ProcessWorker, group: Group | None) -> None:
        """Send a worker whose last trial was of ``group`` its next trial; end the worker where none waits."""
        trial = self._scheduler.start(worker, group)
        if trial is None:
            self._dismiss(worker)
            return
        with suppress(OSError):  # the worker has died between two trials; the closed pipe is noticed next
            worker.pipe.send_bytes(json.dumps(plain(trial)).encode())

    def _hear(self, worker: _ProcessWorker) -> None:
        try:
            message = json.loads(worker.pipe.recv_bytes())
        except (EOFError, OSError, ValueError):
            self._bury(worker)
            return
        if "advanced" in message:
            self._scheduler.advance(worker, message["advanced"])
        else:
            self._give(worker, self._scheduler.end(worker, AttemptResult(**message["ended"])))

    def _bury(self, worker: _ProcessWorker) -> None:
        """A worker has died: its trial has failed, and another worker is started in its place."""
        self._dismiss(worker)
        worker.process.join(PATIENCE)
        self._scheduler.end(worker, AttemptResult(error=_cause(worker.process.exitcode)))
        self._hire(worker.place)

    def _dismiss(self, worker: _ProcessWorker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        self._ended.append(worker.process)


def _cause(status: int | None) -> str:
    if status is None or status >= 0:
        return f"WorkerDied: the worker process ended with status {status} in the middle of the trial"
    name = signal.Signals(-status).name
    hint = "; if nobody killed it, the machine was out of memory" if name == "SIGKILL" else ""
    return f"WorkerDied: the worker process was ended by {name}{hint}"


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Inside, Ctrl-C is ignored; a process that is started inside ignores it from its beginning."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
