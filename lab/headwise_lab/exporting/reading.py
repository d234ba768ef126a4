"""Reads what can be read of a damaged folder: every whole line, and a warning for every other line."""

from __future__ import annotations

from pathlib import Path

from headwise.errors import DataError
from headwise_lab.store.outcomes import decode
from headwise_lab.store.record_schema import as_far_as_it_goes, last_of_each
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import RECORDS, outcomes_path, whole_lines


def whole_records(folder: Path) -> tuple[dict[str, Record], list[str]]:
    """Id -> its last record, and warnings; raises DataError where there is no record at all."""
    path = folder / RECORDS
    lines, warnings = whole_lines(path)
    records = {number: as_far_as_it_goes(data) for number, data in lines}
    for number in [number for number, record in records.items() if record is None]:
        warnings.append(f"{path}:{number} has no id of letters and digits and was left out.")
    found = last_of_each(filter(None, records.values()))
    if not found:
        raise DataError(f"{path} holds no whole record; there is nothing to export")
    return found, warnings


def whole_outcomes(folder: Path, identity: str) -> tuple[list[dict[str, object]], list[str]]:
    """The outcomes of a trial, and warnings; both empty where there is no file, as for trials that failed."""
    path = outcomes_path(folder, identity)
    try:
        return decode(path.read_bytes(), str(path)), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"The outcomes of record {identity} cannot be read ({error.strerror}) and were left out."]
    except DataError:
        return [], [f"The outcomes of record {identity} are torn and were left out."]
