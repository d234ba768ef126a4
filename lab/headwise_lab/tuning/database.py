"""The database of a search: a study of optuna in an SQLite file.

Committed trials survive a crash, and half-written ones are rolled back when the file is next opened.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from headwise.errors import DataError

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

DATABASE = "search.db"
NAME = "headwise"
GOALS: Final = ("maximize", "minimize")  # accuracy and cost
SEARCH = "search"


def need_optuna() -> None:
    """Raise DataError where optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise DataError('headwise tune searches with optuna; install it: pip install "headwise[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # otherwise it prints every trial, as our display does


@attrs.frozen(eq=False)
class Memory:
    """An open study and its storage."""

    study: Study
    storage: RDBStorage

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials in their present state, in the order of their numbers."""
        return self.study.get_trials(deepcopy=False)

    def taken_up(self, left: FrozenTrial) -> Trial:
        """A trial that was running when its process died, to be continued with the parameters that it has already."""
        from optuna import Trial

        study = self.storage.get_study_id_from_name(NAME)
        return Trial(self.study, self.storage.get_trial_id_from_study_id_trial_number(study, left.number))


@contextmanager
def opened(folder: Path, search: Mapping[str, object]) -> Iterator[Memory]:
    """The study in a folder. ``search``: everything that has to be the same in all runs of one search.

    Raises DataError in one sentence where the folder holds another search, or its file is not the database of one.
    """
    storage = _storage(folder)
    try:
        yield Memory(_study(storage, search, folder), storage)
    finally:
        storage.scoped_session.remove()
        storage.engine.dispose()


def _storage(folder: Path) -> RDBStorage:
    from optuna.storages import RDBStorage

    def connect() -> sqlite3.Connection:  # by path, because "?" and "%" have a meaning in a URL
        return sqlite3.connect(folder / DATABASE, check_same_thread=False)

    try:
        return RDBStorage(f"sqlite:///{DATABASE}", engine_kwargs={"creator": connect})
    except Exception as error:  # SQLAlchemy, Alembic and optuna each have their own exceptions
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise DataError(f"{folder / DATABASE} cannot be opened ({reason}); give --out a new folder") from error


def _study(storage: RDBStorage, search: Mapping[str, object], folder: Path) -> Study:
    import optuna

    study = optuna.create_study(study_name=NAME, storage=storage, load_if_exists=True, directions=GOALS)
    asked: dict[str, object] = json.loads(json.dumps(dict(search)))
    stored = study.user_attrs.get(SEARCH)
    if stored is None:  # new, or killed before this was written
        study.set_user_attr(SEARCH, asked)
    elif stored != asked:
        key = next(key for key in {**stored, **asked} if stored.get(key) != asked.get(key))
        raise DataError(
            f"{folder} holds another search, whose {key} is {_short(stored.get(key))} and not {_short(asked.get(key))};"
            " give --out a folder of its own, or the same line as before"
        )
    return study


def _short(value: object) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
