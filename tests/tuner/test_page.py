"""The page in a real browser, against a stand-in that keeps the service's HTTP contract."""

from __future__ import annotations

import re

import pytest
from page_fixtures import (
    LIVE,
    FakeTuner,
    Watched,
    empty_overview,
    opened,
    recorded_overview,
    recorded_trials,
)
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
HOT = "p1k@8k+d64@4k"
NASTY = '<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>'


def test_page_shows_servers_workers_buckets_and_decisions(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    page = opened(watched, fake_tuner)
    expect(page.get_by_role("rowheader", name="sglang-h100-0")).to_be_visible()
    expect(page.locator("#workers-note")).to_have_text("1 of 2 measuring")
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name=HOT))
    for text in ("promoted", "1.184×", "1.151×", "413", "348"):
        expect(row).to_contain_text(text)
    expect(page.locator("#decisions li").first).to_contain_text("stopped early")
    assert watched.complaints == []


@pytest.mark.parametrize(
    ("known", "note"), [(9, "9 buckets, "), (517, "9 of 517 buckets, ")], ids=str
)
def test_page_says_of_how_many_buckets_it_shows_the_heaviest(
    watched: Watched, fake_tuner: FakeTuner, known: int, note: str
) -> None:
    fake_tuner.publish(recorded_overview() | {"bucket_count": known})
    page = opened(watched, fake_tuner)
    expect(page.locator("#buckets-note")).to_have_text(re.compile(f"^{note}"))


def test_server_behind_the_published_table_is_shown_with_both_versions(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    page = opened(watched, fake_tuner)
    expect(page.locator("#servers-note")).to_contain_text("1 behind the published table")
    row = page.get_by_role("row").filter(
        has=page.get_by_role("rowheader", name="sglang-h100-1", exact=True)
    )
    expect(row).to_contain_text("v6 → v7")


def test_saving_is_the_sum_over_promoted_buckets_with_its_lower_bound(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    promoted = [b for b in recorded_overview()["buckets"] if b["status"] == "promoted"]
    expected = sum(b["expected_saving_share"] for b in promoted)
    least = sum(b["time_share"] * (1 - 1 / b["lower_bound"]) for b in promoted)
    saved = opened(watched, fake_tuner).locator("#saved")
    expect(saved.locator(".hero")).to_have_text(f"{expected * 100:.1f}\u202f%")
    expect(saved).to_contain_text(f"at least {least * 100:.1f}\u202f%")


def test_update_arrives_without_reload_and_keeps_the_open_bucket(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    page = opened(watched, fake_tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body svg .trial")
    page.evaluate("window.sameDocument = true")
    changed = recorded_overview()
    changed["servers"][0]["server"] = "sglang-renamed"
    changed["buckets"][0]["pairs"] = 777
    fake_tuner.publish(changed)
    expect(page.get_by_role("rowheader", name="sglang-renamed")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="777")).to_be_visible()
    expect(page.locator(".detail-body svg .trial").first).to_be_visible()
    assert page.evaluate("window.sameDocument") is True


def test_lost_tuner_is_called_stale_and_its_return_live(watched: Watched) -> None:
    own = FakeTuner(recorded_overview())
    own.start()
    try:
        page = opened(watched, own)
        own.stop()
        expect(page.locator("#state")).to_have_text("Disconnected")
        expect(page.locator("#banner")).to_contain_text("the tuner cannot be reached")
        expect(page.locator("#banner")).to_contain_text("What you see is from")
        expect(page.get_by_role("rowheader", name="sglang-h100-0")).to_be_visible()
        own.start()
        page.wait_for_selector(LIVE)
        expect(page.locator("#banner")).to_be_hidden()
    finally:
        own.stop()


def test_page_polls_where_the_event_stream_is_refused(watched: Watched) -> None:
    own = FakeTuner(recorded_overview())
    own.streams = False
    own.start()
    try:
        page = opened(watched, own)
        changed = recorded_overview()
        changed["servers"][0]["server"] = "sglang-polled"
        own.publish(changed)
        expect(page.get_by_role("rowheader", name="sglang-polled")).to_be_visible()
    finally:
        own.stop()


def test_untrusted_strings_are_text_and_never_run(watched: Watched, fake_tuner: FakeTuner) -> None:
    hostile = recorded_overview()
    hostile["servers"][0]["server"] = NASTY
    hostile["tuner"]["workers"][0]["task"] = NASTY
    for bucket in hostile["buckets"][:1]:
        bucket["status"] = NASTY
    hostile["decisions"][0] |= {"reason": NASTY, "kind": NASTY, "bucket": NASTY}
    fake_tuner.publish(hostile)
    page = opened(watched, fake_tuner)
    expect(page.get_by_role("rowheader", name=NASTY)).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.stolen") is None
    assert watched.complaints == []


def test_no_request_leaves_the_origin_and_the_console_stays_silent(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    page = opened(watched, fake_tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body svg .trial")
    page.get_by_role("button", name="Theme: auto").click()
    assert len(watched.requests) > 10
    assert [url for url in watched.requests if not url.startswith(fake_tuner.url + "/")] == []
    assert watched.complaints == []


def test_unknown_numbers_are_dashes(watched: Watched, fake_tuner: FakeTuner) -> None:
    page = opened(watched, fake_tuner)
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="p1k@2k", exact=True))
    for label in ("Default µs", "Tuned µs", "Speed-up", "At least", "Confidence"):
        expect(row.locator(f'[data-label="{label}"]')).to_have_text("-")
    unknown = recorded_overview()
    nulls = ("speedup", "lower_bound", "confidence", "time_share", "pairs", "best_us", "trials")
    for bucket in unknown["buckets"]:
        bucket |= dict.fromkeys(nulls)
    for server in unknown["servers"]:
        server |= dict.fromkeys(("last_seen_s", "table_version", "hybrid_share", "seen"))
    fake_tuner.publish(unknown)
    expect(page.locator("#saved .hero")).to_have_text("-")
    text = page.locator("main").inner_text()
    assert not [word for word in ("NaN", "null", "undefined", "Infinity") if word in text]
    assert watched.complaints == []


def test_no_ratio_is_shown_without_a_bound_whatever_the_tuner_says(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    loose = recorded_overview()
    planted = {"speedup": 61.317, "default_us": 202_388.0, "best_us": 74_822.0}
    loose["buckets"][0] |= planted | {"lower_bound": None, "confidence": None, "status": "tuning"}
    loose["decisions"][0] |= {"speedup": 61.317, "lower_bound": None}
    fake_tuner.publish(loose)
    own = {"trials": [{**fake_tuner.trials[HOT]["trials"][1], "speedup": 61.317, "low": None}]}
    fake_tuner.trials = {HOT: own | {"promoted": None}}
    try:
        page = opened(watched, fake_tuner)
        row = page.get_by_role("row").filter(has=page.get_by_role("button", name=HOT))
        for label in ("Tuned µs", "Speed-up", "At least"):
            expect(row.locator(f'[data-label="{label}"]')).to_have_text("-")
        expect(row.locator("svg")).to_have_count(0)
        page.get_by_role("button", name=HOT).click()
        page.locator(".detail-body summary").click()
        expect(page.locator(".detail-body table.trials")).to_be_visible()
        text = page.content()
        assert "61.317" not in text and "74,822" not in text
        assert watched.complaints == []
    finally:
        fake_tuner.trials = recorded_trials()


def test_both_times_of_a_bucket_have_the_ratio_beside_them(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    page = opened(watched, fake_tuner)
    rows = page.locator("tr.bucket").filter(has_text="promoted")
    assert rows.count() >= 3
    for row in rows.all():
        shown = [
            row.locator(f'[data-label="{label}"]').inner_text()
            for label in ("Default µs", "Tuned µs", "Speed-up")
        ]
        default, tuned, ratio = (float(re.sub(r"[^0-9.]", "", text)) for text in shown)
        assert default / tuned == pytest.approx(ratio, rel=0.01)


def test_empty_tuner_teaches_how_to_connect_a_server(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    fake_tuner.publish(empty_overview())
    page = opened(watched, fake_tuner)
    expect(page.locator("#command")).to_have_text(
        f"POD_ATTN_TUNER_URL={fake_tuner.url} sglang serve --model-path MODEL "
        "--attention-backend pod --enable-mixed-chunk"
    )
    fake_tuner.publish(recorded_overview())
    expect(page.locator("#welcome")).to_be_hidden()
    assert watched.complaints == []
