"""The device and the data type that a model runs with, where the user leaves them to the machine (``auto``)."""

from __future__ import annotations

import torch

AUTO = "auto"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def device_of(asked: str) -> str:
    """The device asked for; for ``auto``, ``cuda`` where torch finds a GPU, else ``cpu``.

    ``auto`` never becomes ``mps``: nothing of headwise has been tested there, and it lacks the float64 in which angles
    of rotary embeddings are computed. Who names it is given it.
    """
    if asked != AUTO:
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype_of(asked: str, device: str) -> str:
    """The data type asked for; for ``auto``, bfloat16 on a GPU that computes in it, else float32.

    GPUs that only emulate bfloat16 are slower with it, and the results of CPUs are published in float32.
    """
    if asked != AUTO:
        return asked
    place = torch.device(device)
    if place.type != "cuda" or not torch.cuda.is_available():
        return "float32"
    with torch.cuda.device(place):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def settled(dtype: str, device: str) -> tuple[str, str]:
    """The data type and the device that are asked for, neither of them ``auto`` any more."""
    place = device_of(device)
    return dtype_of(dtype, place), place
