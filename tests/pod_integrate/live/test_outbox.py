"""What becomes of a message that the tuner refuses, cannot take or loses the answer to."""

from __future__ import annotations

import logging

import httpx
import pytest
from support.exchange import Handler, Tuner, record_steps

from pod_integrate.live.exchange import GIVEN_UP, POSTED, Channel, Exchange
from pod_integrate.live.outbox import MAX_ATTEMPTS
from pod_integrate.terms.trace import decode


def test_lost_answer_repeats_the_same_message_with_the_same_sequence(
    tuner: Tuner, channel: Channel, exchange: Exchange
) -> None:
    bodies = []

    def lose(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        raise httpx.ReadError("gone")

    assert channel.recorder is not None
    record_steps(channel.recorder, 2)
    tuner.handlers["/v1/traces"] = lose
    exchange.run_round()
    record_steps(channel.recorder, 1)
    del tuner.handlers["/v1/traces"]
    exchange.run_round()
    assert tuner.messages[0] == decode(bodies[0])
    assert [(m.sequence, len(m.records)) for m in tuner.messages] == [(0, 2), (1, 1)]


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 405, 409, 411, 413, 415, 422, 431])
def test_refused_message_is_given_up_and_told_as_dropped(
    status: int, tuner: Tuner, channel: Channel, exchange: Exchange
) -> None:
    assert channel.recorder is not None
    tuner.handlers["/v1/traces"] = lambda request: httpx.Response(status)
    record_steps(channel.recorder, 4)
    exchange.run_round()
    del tuner.handlers["/v1/traces"]
    record_steps(channel.recorder, 1)
    exchange.run_round()
    (message,) = tuner.messages
    assert (message.seen, message.dropped, len(message.records)) == (5, 4, 1)
    assert exchange.counts[f"post_http_{status}"] == 1
    assert (exchange.counts[GIVEN_UP], exchange.counts[POSTED]) == (4, 1)


def unreachable(_request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def slow(_request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("slow")


def broken(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(500)


def busy(_request: httpx.Request) -> httpx.Response:
    return httpx.Response(429)


@pytest.mark.parametrize("fail", [unreachable, slow, broken, busy])
def test_a_message_that_never_gets_through_is_given_up_after_some_rounds(
    fail: Handler,
    tuner: Tuner,
    channel: Channel,
    exchange: Exchange,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert channel.recorder is not None
    tuner.handlers["/v1/traces"] = fail
    record_steps(channel.recorder, 4)
    with caplog.at_level(logging.WARNING):
        for _ in range(MAX_ATTEMPTS - 1):
            exchange.run_round()
        assert GIVEN_UP not in exchange.counts
        assert exchange.pause_seconds == 60.0
        for _ in range(5):
            exchange.run_round()
    posts = [r.read() for r in tuner.requests if r.url.path == "/v1/traces"]
    assert len(posts) == MAX_ATTEMPTS and len(set(posts)) == 1
    assert exchange.counts[GIVEN_UP] == 4 and len(caplog.records) == 1
    del tuner.handlers["/v1/traces"]
    record_steps(channel.recorder, 1)
    exchange.run_round()
    (message,) = tuner.messages
    assert (message.seen, message.dropped, len(message.records)) == (5, 4, 1)
