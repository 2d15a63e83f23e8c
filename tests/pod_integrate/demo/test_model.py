"""The demo model is a normal HuggingFace folder, made once, and refuses to overwrite."""

from pathlib import Path

import pytest

from pod_integrate.demo.llama import make_demo_model
from pod_integrate.errors import ShapeError

SMALL = {"layers": 1, "q_heads": 2, "kv_heads": 1, "head_dim": 32}


def test_model_loads_and_its_tokenizer_is_byte_level(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    path = make_demo_model(tmp_path / "model", **SMALL)
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (2, 1)
    text = "héllo\nwörld ✓"
    ids = tokenizer(text).input_ids
    assert len(ids) == len(text.encode()) and max(ids) < 256
    assert tokenizer.decode(ids) == text
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert "hi" in chat


def test_same_arguments_keep_the_folder_and_others_refuse(tmp_path: Path) -> None:
    path = make_demo_model(tmp_path / "model", **SMALL)
    before = (path / "config.json").stat().st_mtime_ns
    make_demo_model(path, **SMALL)
    assert (path / "config.json").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="not this demo model"):
        make_demo_model(path, **(SMALL | {"layers": 2}))


def test_heads_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="multiple of KV heads"):
        make_demo_model(tmp_path / "model", q_heads=3, kv_heads=2)
