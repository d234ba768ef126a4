"""``headwise doctor``: what is installed here, what works, and what is missing."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated

import attrs
import typer
from packaging.requirements import Requirement

from headwise.hookspecs import CONTRACT
from headwise.output import answer, end_with
from headwise.plugins_at_hand import Distribution, distributions
from headwise.printing import say

SHOWN = ("torch", "transformers", "numpy", "pluggy", "attrs", "safetensors", "pillow", "typer")
"""Packages whose versions decide how headwise behaves."""


@attrs.frozen
class Finding:
    """All that ``doctor`` found, as plain data; ``extras``: name -> what is missing for it."""

    python: str
    platform: str
    packages: dict[str, str]
    devices: dict[str, str]
    attention: dict[str, bool]
    extras: dict[str, list[str]]
    distributions: list[Distribution]

    @property
    def failures(self) -> int:
        """Plugins that cannot be loaded."""
        return sum(len(one.failures) for one in self.distributions)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one object.")] = False) -> None:
    """Say what headwise finds on this machine.

    Versions, devices, attention implementations, what each extra lacks, and every plugin by the distribution that
    ships it, with the time its import takes and why it cannot be loaded. Ends with status 1 where one cannot.
    """
    found = _found()
    if as_json:
        answer(json.dumps(attrs.asdict(found), indent=2))
    else:
        say("\n".join(_lines(found)))
    end_with(whole=not found.failures)


def _found() -> Finding:
    import torch
    from transformers.utils import is_flash_attn_2_available, is_torch_flex_attn_available

    return Finding(
        python=platform.python_version(),
        platform=platform.platform(),
        packages={"headwise": version("headwise"), **{name: _version(name) or "missing" for name in SHOWN}},
        devices=_devices(torch.get_num_threads()),
        attention={
            "eager": True,
            "sdpa": True,
            "flash_attention_2": bool(is_flash_attn_2_available()),
            "flex_attention": bool(is_torch_flex_attn_available()),
        },
        extras=_extras(),
        distributions=distributions(),
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices(threads: int) -> dict[str, str]:
    import torch

    found = {"cpu": f"{threads} threads"}
    for index in range(torch.cuda.device_count()):
        size = torch.cuda.get_device_properties(index).total_memory
        found[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {size / 2**30:.0f} GiB"
    return found | ({"mps": "Apple GPU"} if torch.backends.mps.is_available() else {})


def _extras() -> dict[str, list[str]]:
    """Extra -> requirements that are not met here, as the installed distribution of headwise lists them."""
    missing: dict[str, list[str]] = {}
    for line in requires("headwise") or ():
        requirement = Requirement(line)
        for extra in _extras_of(requirement):
            lacking = missing.setdefault(extra, [])
            have = _version(requirement.name)
            if have is None or not requirement.specifier.contains(have, prereleases=True):
                lacking.append(f"{requirement.name}{requirement.specifier}" + (f" (here {have})" if have else ""))
    return missing


def _extras_of(requirement: Requirement) -> list[str]:
    """The extras that a requirement belongs to; those of development are nobody else's business."""
    marker = str(requirement.marker or "")
    return [name for name in _names() if f'extra == "{name}"' in marker and name != "dev"]


def _names() -> list[str]:
    from importlib.metadata import metadata

    return metadata("headwise").get_all("Provides-Extra") or []


def _lines(found: Finding) -> list[str]:
    contract = ".".join(map(str, CONTRACT))
    about = f"headwise {found.packages['headwise']} (hook contract {contract}), Python {found.python}, {found.platform}"
    lines = [about, "", "packages"]
    lines += [f"  {name} {number}" for name, number in found.packages.items() if name != "headwise"]
    lines += ["", "devices", *(f"  {name}: {told}" for name, told in found.devices.items())]
    lines += ["", "attention"]
    lines += [f"  {name}: {'available' if there else 'not available here'}" for name, there in found.attention.items()]
    lines += ["", "extras", *(_extra(name, lacking) for name, lacking in found.extras.items())]
    for one in found.distributions:
        lines += ["", f"plugins of {one.name} {one.version} ({one.seconds:.1f} s to import)"]
        lines += [f"  {kind}: {', '.join(names)}" for kind, names in one.plugins.items()]
        lines += [f"  FAILED  {failure}" for failure in one.failures]
    return lines


def _extra(name: str, lacking: list[str]) -> str:
    return f'  {name}: lacks {", ".join(lacking)}; pip install "headwise[{name}]"' if lacking else f"  {name}: complete"
