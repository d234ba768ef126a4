"""What the executor ``ray`` uses of Ray, with threads for actors; the trial ``ends-actor`` ends its actor once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from types import SimpleNamespace


class RayError(Exception):
    """As Ray's."""


class FakeRay:
    """A cluster with room for so many actors; the others wait until one is killed.

    ``stillborn``: numbers of actors, in the order they are asked for, that die before they begin.
    """

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, room: int, stillborn: tuple[int, ...] = ()) -> None:
        self.room, self.stillborn, self.actors, self.died = room, stillborn, [], set()

    @contextmanager
    def joined(self, _address) -> Iterator[FakeRay]:
        yield self
        assert not any(actor.alive for actor in self.actors)

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 1}}] * 2 + [{"Alive": False, "Resources": {"CPU": 8}}]

    def remote(self, kind):
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda work: self._hire(kind(work))))

    def wait(self, calls, num_returns, timeout):
        done = wait(calls, timeout, FIRST_COMPLETED).done
        return [call for call in calls if call in done][:num_returns], None

    def get(self, call):
        return call.result()

    def kill(self, actor):
        actor.die()
        self._seat()

    def _hire(self, served):
        actor = _Actor(served, self.died)
        self.actors.append(actor)
        if len(self.actors) in self.stillborn:
            actor.die()
        self._seat()
        return actor

    def _seat(self):
        seated = [actor for actor in self.actors if actor.alive and actor.seated.is_set()]
        waiting = [actor for actor in self.actors if actor.alive and not actor.seated.is_set()]
        for actor in waiting[: self.room - len(seated)]:
            actor.seated.set()


class _Actor:
    def __init__(self, served, died) -> None:
        self.alive, self.seated, self._served, self._died, self._calls = True, threading.Event(), served, died, []

    def __getattr__(self, method):
        return SimpleNamespace(remote=lambda *arguments: self._call(method, arguments))

    def _call(self, method, arguments):
        call = Future()
        self._calls.append(call)
        if not self.alive:
            self.die()
            return call
        threading.Thread(target=self._run, args=(call, method, arguments), daemon=True).start()
        return call

    def _run(self, call, method, arguments):
        self.seated.wait()
        trial = json.loads(arguments[0]) if method == "run" else {}
        if trial.get("recipe") == "ends-actor" and trial["id"] not in self._died:
            self._died.add(trial["id"])
            self.die()
            return
        told = getattr(self._served, method)(*arguments)
        if not call.done():
            call.set_result(told)

    def die(self):
        self.alive = False
        for call in self._calls:
            if not call.done():
                call.set_exception(RayError("The actor died.\n\tpid: 1\nIts process has ended."))
