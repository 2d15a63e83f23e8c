"""`pod-attn transformers serve`: the stock server, asked in-process instead of over a socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pod_integrate import hf
from pod_integrate.cli.app import app
from pod_integrate.demo.llama import make_demo_model
from pod_integrate.engines.transformers import patches
from pod_integrate.errors import UnsupportedFeatureError

PROMPTS = ("the quick brown fox", "to be or not to be, that is the question" * 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_model(tmp_path_factory.mktemp("serve") / "model", layers=2)


def texts(
    monkeypatch: pytest.MonkeyPatch, model: Path, implementation: str, *flags: str
) -> list[str]:
    """Greedy completions of a server that the command line starts."""
    import uvicorn
    from starlette.testclient import TestClient

    answers: list[str] = []

    def run(server: Any) -> None:
        with TestClient(server.config.app) as client:
            for prompt in PROMPTS:
                asked = {"model": str(model), "prompt": prompt, "max_tokens": 8, "temperature": 0}
                answer = client.post("/v1/completions", json=asked)
                assert answer.status_code == 200, answer.text
                answers.append(answer.json()["choices"][0]["text"])

    monkeypatch.setattr(uvicorn.Server, "run", run)
    arguments = ["transformers", "serve", str(model), "--attn-implementation", implementation]
    done = CliRunner().invoke(app, [*arguments, "--device", "cpu", "--dtype", "float32", *flags])
    assert done.exit_code == 0, (done.output, done.exception)
    return answers


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("flags", [(), ("--continuous-batching", "--cb-num-blocks", "64")])
def test_served_texts_equal_those_of_stock_attention(
    flags: tuple[str, ...], model: Path, op_calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = texts(monkeypatch, model, "sdpa", *flags)
    assert not op_calls
    assert texts(monkeypatch, model, "pod", *flags) == want
    assert op_calls and len(want) == len(PROMPTS)


def test_stock_command_refuses_pod_and_ours_does_not() -> None:
    from transformers.cli.serving.model_manager import ModelManager

    hf.disable()
    with pytest.raises(ValueError, match="Unsupported attention implementation"):
        ModelManager(attn_implementation="pod")
    hf.enable()
    patches.apply(patches.SERVE_PATCHES)
    assert ModelManager(attn_implementation="pod").attn_implementation == "pod"
    with pytest.raises(ValueError, match="Unsupported attention implementation"):
        ModelManager(attn_implementation="no_such")


def test_help_is_that_of_the_stock_command() -> None:
    done = CliRunner().invoke(app, ["transformers", "serve", "--help"])
    assert done.exit_code == 0 and "--continuous-batching" in done.output


def test_unsupported_version_stops_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(transformers, "__version__", "5.11.0")
    done = CliRunner().invoke(app, ["transformers", "version"])
    assert isinstance(done.exception, UnsupportedFeatureError)
