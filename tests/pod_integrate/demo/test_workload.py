"""Built-in lengths follow their source; every trace format is read, fitted and rejected well."""

from pathlib import Path

import numpy as np
import pytest

from pod_integrate.demo.workload import Fit, built_in, from_file, prompt_ids
from pod_integrate.errors import TraceError
from pod_integrate.replay.requests import Request

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
FIT = Fit(rate=2.0, scale=0.5, max_prompt=1000, max_answer=64)


def test_built_in_lengths_keep_the_published_median_and_rate() -> None:
    requests = built_in(4000, Fit(rate=5.0, max_prompt=1 << 20, max_answer=1 << 20), seed=1)
    assert np.median([r.prompt_tokens for r in requests]) == pytest.approx(1020, rel=0.1)
    assert np.median([r.answer_tokens for r in requests]) == pytest.approx(129, rel=0.15)
    assert len(requests) / requests[-1].at == pytest.approx(5.0, rel=0.1)


def test_same_seed_gives_same_requests_and_another_seed_does_not() -> None:
    assert built_in(50, FIT, seed=3) == built_in(50, FIT, seed=3)
    assert built_in(50, FIT, seed=3) != built_in(50, FIT, seed=4)


def test_lengths_stay_within_the_fit() -> None:
    requests = built_in(500, FIT)
    assert all(1 <= r.prompt_tokens <= 1000 and 1 <= r.answer_tokens <= 64 for r in requests)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "azure.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n"
            "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:48.6805900,100,10\n",
        ),
        ("arxiv.csv", "num_prefill_tokens,num_decode_tokens\n374.0,44.0\n100.0,10.0\n"),
        (
            "mooncake.jsonl",
            '{"timestamp": 0, "input_length": 374, "output_length": 44, "hash_ids": [7]}\n'
            '{"timestamp": 900, "input_length": 100, "output_length": 10, "hash_ids": [7]}\n',
        ),
    ],
)
def test_each_trace_format_is_read_and_scaled(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    requests = from_file(path, 10, FIT)
    assert [(r.prompt_tokens, r.answer_tokens) for r in requests] == [(187, 22), (50, 5)]
    assert requests[0].at == 0.0 and requests[1].at > 0.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "unknown columns"),
        ("num_prefill_tokens,num_decode_tokens\nx,2\n", ":2:"),
        ('{"timestamp": 0}\n', ":1: not a Mooncake record"),
        ("", "holds no request"),
    ],
)
def test_malformed_trace_names_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(TraceError, match=message):
        from_file(path, 10, FIT)


def test_equal_blocks_give_equal_prefixes_and_other_text_differs() -> None:
    one, two = Request(0.0, 300, 1, blocks=(7, 8)), Request(0.0, 400, 1, blocks=(7, 9))
    a = prompt_ids(one, 0, vocab=256, scale=0.25, seed=0)
    b = prompt_ids(two, 1, vocab=256, scale=0.25, seed=0)
    assert len(a) == 300 and len(b) == 400
    assert a[:128] == b[:128] and a[128:256] != b[128:256]


@pytest.mark.parametrize(
    "name",
    ["azure_llm_2023_conv.csv", "arxiv_summarization_pod.csv", "mooncake_conversation.jsonl"],
)
def test_real_traces_are_read(name: str) -> None:
    path = DATA / name
    if not path.exists():
        pytest.skip("the published traces are not on this machine")
    requests = from_file(path, 200, Fit(rate=1.0))
    assert len(requests) == 200
    assert all(r.prompt_tokens >= 1 for r in requests)
