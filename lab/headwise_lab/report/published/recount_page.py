"""The recount of score tables in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from headwise_lab.report.published.recount import Recount


def recount_lines(counted: Recount) -> list[str]:
    """The recount, line by line."""
    return [
        *_size(counted),
        "",
        "Wins, ties counted for each (alone; as marked in bold):",
        *(
            f"  {name}: {wins} ({counted.sole.get(name, 0)}; {counted.bold.get(name, 0)})"
            for name, wins in counted.wins.items()
        ),
        *_ties(counted),
        *_groups("token budget", counted.by_token, counted.rows_by_token),
        *_groups("head count", counted.by_head, counted.rows_by_head),
        "",
        "Best configurations:",
        *(f"  {peak}" for peak in counted.peaks),
        *_noise(counted),
        "",
        *_differences(counted),
        *_baseline(counted),
    ]


def _size(counted: Recount) -> list[str]:
    lines = [
        f"{len(counted.tables)} tables ({', '.join(counted.tables)}): {counted.cells} cells of benchmark x token x"
        f" head, {counted.filled} filled values, {counted.missing} missing."
    ]
    if counted.missing_rows:
        lines.append(f"Rows other tables have and these lack: {', '.join(counted.missing_rows)}.")
    return lines


def _ties(counted: Recount) -> list[str]:
    return [f"Ties: {'; '.join(counted.ties)}."] if counted.ties else ["There is no tie for the best."]


def _groups(what: str, groups: Mapping[str, Mapping[str, int]], rows: Mapping[str, int]) -> list[str]:
    told = [
        f"  {key}: " + ", ".join(f"{name} {wins}/{rows[key]}" for name, wins in group.items())
        for key, group in groups.items()
    ]
    return ["", f"Wins by {what}:", *told]


def _noise(counted: Recount) -> list[str]:
    if not counted.noise:
        return []
    told = [
        f"  {noise.table} (n={noise.n}): {noise.below}/{noise.rows} rows have a gap from best to second under one"
        " binomial standard error"
        for noise in counted.noise
    ]
    return ["", "Noise:", *told]


def _differences(counted: Recount) -> list[str]:
    if not counted.differences:
        return ["The document's own counts agree with its figures."]
    return [
        "Where the document's own counts differ from its figures:",
        *(f"  {difference}" for difference in counted.differences),
    ]


def _baseline(counted: Recount) -> list[str]:
    missing = []
    if not counted.has_baseline:
        missing.append("an all-heads `sum` baseline")
    if not counted.has_control:
        missing.append("a random-heads control")
    if not missing:
        return []
    lacking = f"The tables have no {' and no '.join(name.split(' ', 1)[1] for name in missing)}"
    what = "no gain over FastV is established" if not counted.has_baseline else "no gain over chance is established"
    return ["", f"{lacking}, so {what}."]
