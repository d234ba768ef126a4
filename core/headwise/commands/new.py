"""``headwise new``: a package with strategies of one's own, whose tests pass as it is written."""

from __future__ import annotations

import keyword
import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import attrs
import typer
from jinja2 import Environment, StrictUndefined

from headwise.errors import DataError
from headwise.hints import did_you_mean
from headwise.printing import say
from headwise.reading import local_path

SCAFFOLD = files("headwise.scaffold")
NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")


@attrs.frozen
class Example:
    """The strategy that is written for a hook: its name, which is that of its file, and its class."""

    name: str
    kind: str


EXAMPLES = {
    "query_selection": Example("first_text", "FirstText"),
    "head_scoring": Example("loudest", "Loudest"),
    "head_count": Example("above_mean", "AboveMean"),
    "token_pruning": Example("longest", "Longest"),
    "kv_eviction": Example("long_values", "LongValues"),
    "head_classification": Example("sink_heads", "SinkHeads"),
    "benchmark": Example("counting", "Counting"),
}
"""Hook -> what is written for it; a benchmark is no hook, and is found in the same way."""


def new(
    name: Annotated[str, typer.Argument(help="Name of the package, as in my-strategies.")],
    hook: Annotated[
        list[str] | None, typer.Option(help="A hook to write a strategy for, or benchmark; repeat.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write. [default: NAME, here]")] = None,
) -> None:
    """Write a package with a strategy of your own.

    It has a pyproject.toml with the entry points, a small strategy for each --hook (head_scoring without any), a test
    that holds them to every law, a README and a CI file. Its tests pass as it is written.
    """
    hooks = list(dict.fromkeys(hook or ["head_scoring"]))
    texts = package(name, hooks)
    folder = _empty(local_path(out or name))
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    strategy = EXAMPLES[hooks[0]].name
    say(f"{len(texts)} files are written to {folder}. Go on with")
    say(f'    cd {folder} && pip install -e ".[testing]" && headwise check {hooks[0]}={strategy} && pytest')


def package(name: str, hooks: list[str]) -> dict[str, str]:
    """Path -> text of every file of a package; raises DataError for a name or a hook that there cannot be."""
    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module) or module.startswith("headwise"):
        raise DataError(
            f"{name!r} is no name for the package; give small letters, digits and single hyphens that begin with a"
            " letter, no word of Python, and nothing that begins with headwise"
        )
    for hook in hooks:
        if hook not in EXAMPLES:
            raise DataError(
                f"there is no hook {hook!r}{did_you_mean(hook, EXAMPLES) or ';'} give {', '.join(EXAMPLES)}"
            )
    strategies = [(hook, EXAMPLES[hook]) for hook in hooks]
    oldest = version("headwise").rpartition(".")[0]
    made = {
        path: _filled(template, name=name, module=module, strategies=strategies, oldest=oldest)
        for path, template in (
            ("pyproject.toml", "pyproject.toml.j2"),
            ("README.md", "README.md.j2"),
            ("tests/test_conformance.py", "test_conformance.py.j2"),
            (".github/workflows/tests.yml", "tests.yml.j2"),
        )
    }
    code = {f"{module}/{example.name}.py": _code(example.name) for _, example in strategies}
    return {**made, f"{module}/__init__.py": '"""Strategies for headwise."""\n', **code}


def _code(name: str) -> str:
    """What imports the lab is kept as a text, because nothing in core does."""
    return _read(f"{name}.py" if (SCAFFOLD / f"{name}.py").is_file() else f"{name}.py.j2")


def _read(name: str) -> str:
    return (SCAFFOLD / name).read_text(encoding="utf-8")


def _filled(template: str, **values: object) -> str:
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    return environment.from_string(_read(template)).render(**values)


def _empty(folder: Path) -> Path:
    """The folder, made where it is not there; raises DataError where something is in the way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty; give --out a new folder")
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}); give --out another place") from error
    return folder
