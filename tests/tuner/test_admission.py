"""No web page of another site writes to a tuner, and no header has its memory."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest
from api_support import TOKEN, Served
from tuner_support import overview

from tuner.host.plain import MAX_HEADER_BYTES
from tuner.http import answers

ORDER = {"who": "evil"}


def writes(client: httpx.Client) -> dict[str, dict[str, Any]]:
    """The content that each route that writes documents, by path."""
    paths = client.get("/openapi.json").json()["paths"]
    return {
        path.replace("{id}", "x"): item["post"]["requestBody"]["content"]
        for path, item in paths.items()
        if "post" in item
    }


def test_every_write_refuses_what_a_browser_sends_without_asking(client: httpx.Client) -> None:
    found = writes(client)
    assert len(found) >= 10
    for path, content in found.items():
        example = content["application/json"]["example"]
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            answer = client.post(path, json=example, headers={"Content-Type": kind})
            assert answer.status_code == 415, path
            assert "application/json" in answer.json()["error"] and repr(kind) in answer.text


def test_orders_are_json_only(client: httpx.Client) -> None:
    kind = {"Content-Type": "application/x-msgpack"}
    assert client.post("/v1/pause", content=b"\x80", headers=kind).status_code == 415
    kind = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post("/v1/pause", json=ORDER, headers=kind).status_code == 200


@pytest.mark.parametrize("served", ["", TOKEN], indirect=True)
def test_every_write_refuses_a_page_of_another_site(served: Served, client: httpx.Client) -> None:
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    other_port = "http://127.0.0.1:1"
    for path, content in writes(client).items():
        for origin in ("http://evil.example", other_port, "null", "", "http://["):
            body = content["application/json"]["example"]
            answer = client.post(path, json=body, headers={"Origin": origin})
            assert answer.status_code == 403, (path, origin)
            assert repr(origin) in answer.json()["error"]
    assert not overview(served.tuner)["decisions"]


def test_a_page_of_the_tuner_itself_may_write(served: Served, client: httpx.Client) -> None:
    answer = client.post("/v1/pause", json=ORDER, headers={"Origin": served.url})
    assert answer.status_code == 200
    port = served.url.rpartition(":")[2]
    for name, status in (("LocalHost", 200), ("[::1]", 200), ("evil.example", 403), ("[x", 403)):
        headers = {"Origin": f"http://{name}:{port}", "Host": f"{name}:{port}"}
        answer = client.post("/v1/pause", json=ORDER, headers=headers)
        # Paused twice is refused for that alone.
        assert answer.status_code in (status, 409 if status == 200 else status), name


@pytest.mark.parametrize("served", [TOKEN], indirect=True)
def test_with_a_token_any_name_of_the_tuner_is_its_own(client: httpx.Client) -> None:
    headers = {"Origin": "https://tuner.example", "Host": "tuner.example"}
    assert client.post("/v1/pause", json=ORDER, headers=headers).status_code == 401
    headers["Authorization"] = f"Bearer {TOKEN}"
    assert client.post("/v1/pause", json=ORDER, headers=headers).status_code == 200


def test_a_body_that_stalls_is_given_up(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BODY_SECONDS", 0.2)
    assert client.base_url.port is not None
    with socket.create_connection((client.base_url.host, client.base_url.port)) as stalled:
        stalled.settimeout(20)
        head = "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 99"
        stalled.sendall(f"POST /v1/traces HTTP/1.1\r\n{head}\r\n\r\n{{".encode())
        said = b""
        # To the end: the connection is closed too.
        while more := stalled.recv(4096):
            said += more
    assert said.startswith(b"HTTP/1.1 408 ") and b"not here whole within 0.2 s" in said


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/traces", "trace message is over 1048576 bytes; post more often"),
        ("/v1/pause", "pause order is over 1048576 bytes"),
        ("/v1/table", "table order is over 4259840 bytes; the table's file may have 4194304"),
        ("/v1/recheck", "re-check is over 1048576 bytes; send fewer pairs"),
        ("/v1/experiments", "question for an experiment is over 1048576 bytes"),
        ("/v1/experiments/x/report", "experiment report is over 1048576 bytes; report in parts"),
    ],
)
def test_what_is_too_large_is_named(client: httpx.Client, path: str, said: str) -> None:
    headers = {"Content-Type": "application/json"}
    most = int(said.split(" bytes")[0].rpartition(" ")[2])
    # One byte too many: the tuner has read all when it hangs up.
    answer = client.post(path, content=b" " * (most + 1), headers=headers)
    assert answer.status_code == 413 and answer.json()["error"].startswith(said)


def said_to_header(served: Served, size: int, end: bytes) -> bytes:
    """The answer to a GET that has one header of so many bytes; empty where it was cut off."""
    url = httpx.URL(served.url)
    answer = b""
    with socket.create_connection((url.host, url.port), timeout=10) as peer:
        try:
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: tuner\r\nConnection: close\r\nX-Long: ")
            peer.sendall(b"a" * size + end)
            while data := peer.recv(1 << 16):
                answer += data
        except (ConnectionResetError, BrokenPipeError):
            # The tuner does not read on: what was on its way to it is answered by a reset.
            pass
    return answer


@pytest.mark.parametrize("end", [b"\r\n\r\n", b""], ids=["ended", "without end"])
def test_a_header_without_measure_is_refused_and_the_tuner_goes_on(
    served: Served, client: httpx.Client, end: bytes
) -> None:
    for _ in range(3):
        answer = said_to_header(served, 1 << 20, end)
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")
        assert client.get("/healthz").status_code == 200
    fits = said_to_header(served, MAX_HEADER_BYTES // 2, b"\r\n\r\n")
    assert fits.startswith(b"HTTP/1.1 200 ")
