"""Reading a damaged folder as far as it goes: every line that is whole, and a warning for every one that is not."""

from __future__ import annotations

from pathlib import Path

from headwise.errors import DataError
from headwise_lab.store.outcomes import decode
from headwise_lab.store.record_schema import as_far_as_it_goes
from headwise_lab.store.record_types import Record
from headwise_lab.store.records import RECORDS, outcomes_path, whole_lines


def whole_records(folder: Path) -> tuple[dict[str, Record], list[str]]:
    """Id -> record, the last of each, and warnings; raises DataError where there is nothing at all."""
    path = folder / RECORDS
    lines, warnings = whole_lines(path)
    found: dict[str, Record] = {}
    for number, told in lines:
        record = as_far_as_it_goes(told)
        if record is None:
            warnings.append(f"{path}:{number} has no id of letters and digits and was left out.")
        else:
            found.pop(record.id, None)
            found[record.id] = record
    if not found:
        raise DataError(f"{path} holds no whole record; there is nothing to export")
    return found, warnings


def whole_outcomes(folder: Path, identity: str) -> tuple[list[dict[str, object]], list[str]]:
    """Outcomes of a trial and warnings; none of either where it has no file, as trials that failed have none."""
    path = outcomes_path(folder, identity)
    try:
        return decode(path.read_bytes(), str(path)), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [f"The outcomes of record {identity} cannot be read ({error.strerror}) and were left out."]
    except DataError:
        return [], [f"The outcomes of record {identity} are torn and were left out."]
