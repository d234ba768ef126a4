"""A search whose points are worth something at once and need no model; run as a program, it can be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import attrs

from headwise_lab.tuning.database import Memory, need_optuna, opened
from headwise_lab.tuning.searching import Task, Value, search

SECONDS = 0.01


@attrs.frozen
class FakePoint:
    kind: str
    x: float

    @property
    def label(self) -> str:
        return f"{self.kind} {self.x:.6f}"

    @property
    def as_data(self) -> dict[str, object]:
        return {"strategies": [self.kind], "tokens": self.x}


def propose(trial) -> FakePoint:
    kind = trial.suggest_categorical("kind", ["a", "b"])
    return FakePoint(kind, trial.suggest_float("only of b" if kind == "b" else "x", 0, 1))


def worth(point: FakePoint) -> Value:
    bonus = 0.3 if point.kind == "b" else 0.0
    return Value(100 * (point.x + bonus), 1 + point.x**2, (point.label,))


def results(memory: Memory) -> list[tuple]:
    return [(trial.number, trial.state.name, trial.params, trial.values) for trial in memory.trials]


def main(folder: Path, total: int, sampler: str, last: str = "") -> None:
    """Search; having measured ``last`` trials in all, wait to be killed, however late that is."""

    def measure(point: FakePoint) -> Value:
        with (folder / "measured.txt").open("a") as notes:
            notes.write(f"{point.label}\n")
        time.sleep(SECONDS)
        while last and (folder / "measured.txt").read_text().count("\n") >= int(last):
            time.sleep(SECONDS)
        return worth(point)

    need_optuna()
    folder.mkdir(exist_ok=True)
    with opened(folder, {"fake": True}) as memory:
        search(memory, Task(propose, measure), total, sampler, seed=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
