"""The page in a real browser, against a stand-in that keeps the service's HTTP contract."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from page_fixtures import CHROMIUM_ARGS, FakeTuner, empty_overview, recorded_overview
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium")
HOT = "p1k@8k+d64@4k"
LIVE = "#state[data-state=live]"
NASTY = '<img src=x onerror="window.stolen=1"><script>window.stolen=1</script>'


class Watched:
    """A page that remembers console errors, page errors and every request."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no `chromium` on PATH: the page cannot be opened")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def server() -> Iterator[FakeTuner]:
    fake = FakeTuner(recorded_overview())
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def tuner(server: FakeTuner) -> FakeTuner:
    server.publish(recorded_overview())
    return server


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(10_000)
    yield Watched(context.new_page())
    context.close()


def opened(watched: Watched, tuner: FakeTuner, fragment: str = "") -> Page:
    """The page, once it has shown its first overview."""
    watched.page.goto(tuner.url + "/" + fragment)
    watched.page.wait_for_selector(LIVE)
    return watched.page


def test_page_shows_servers_workers_buckets_and_decisions(
    watched: Watched, tuner: FakeTuner
) -> None:
    page = opened(watched, tuner)
    expect(page.get_by_role("rowheader", name="sglang-h100-0")).to_be_visible()
    expect(page.locator("#workers-note")).to_have_text("1 of 2 measuring")
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name=HOT))
    for text in ("promoted", "1.184×", "1.151×", "413", "348"):
        expect(row).to_contain_text(text)
    expect(page.locator("#decisions li").first).to_contain_text("stopped early")
    assert watched.complaints == []


def test_server_behind_the_published_table_is_shown_with_both_versions(
    watched: Watched, tuner: FakeTuner
) -> None:
    page = opened(watched, tuner)
    expect(page.locator("#servers-note")).to_contain_text("1 behind the published table")
    row = page.get_by_role("row").filter(
        has=page.get_by_role("rowheader", name="sglang-h100-1", exact=True)
    )
    expect(row).to_contain_text("v6 → v7")


def test_saving_is_the_sum_over_promoted_buckets_with_its_lower_bound(
    watched: Watched, tuner: FakeTuner
) -> None:
    promoted = [b for b in recorded_overview()["buckets"] if b["status"] == "promoted"]
    expected = sum(b["expected_saving_share"] for b in promoted)
    least = sum(b["time_share"] * (1 - 1 / b["lower_bound"]) for b in promoted)
    saved = opened(watched, tuner).locator("#saved")
    expect(saved.locator(".hero")).to_have_text(f"{expected * 100:.1f}\u202f%")
    expect(saved).to_contain_text(f"At least {least * 100:.1f}\u202f%")


def test_update_arrives_without_reload_and_keeps_the_open_bucket(
    watched: Watched, tuner: FakeTuner
) -> None:
    page = opened(watched, tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body svg .trial")
    page.evaluate("window.sameDocument = true")
    changed = recorded_overview()
    changed["servers"][0]["server"] = "sglang-renamed"
    changed["buckets"][0]["pairs"] = 777
    tuner.publish(changed)
    expect(page.get_by_role("rowheader", name="sglang-renamed")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="777")).to_be_visible()
    expect(page.locator(".detail-body svg .trial").first).to_be_visible()
    assert page.evaluate("window.sameDocument") is True


def test_lost_tuner_is_called_stale_and_its_return_live(watched: Watched, browser: Browser) -> None:
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


def test_untrusted_strings_are_text_and_never_run(watched: Watched, tuner: FakeTuner) -> None:
    hostile = recorded_overview()
    hostile["servers"][0]["server"] = NASTY
    hostile["tuner"]["workers"][0]["task"] = NASTY
    for bucket in hostile["buckets"][:1]:
        bucket["status"] = NASTY
    hostile["decisions"][0] |= {"reason": NASTY, "kind": NASTY, "bucket": NASTY}
    tuner.publish(hostile)
    page = opened(watched, tuner)
    expect(page.get_by_role("rowheader", name=NASTY)).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.stolen") is None
    assert watched.complaints == []


def test_no_request_leaves_the_origin_and_the_console_stays_silent(
    watched: Watched, tuner: FakeTuner
) -> None:
    page = opened(watched, tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body svg .trial")
    page.get_by_role("button", name="Theme: auto").click()
    assert len(watched.requests) > 10
    assert [url for url in watched.requests if not url.startswith(tuner.url + "/")] == []
    assert watched.complaints == []


def test_unknown_numbers_are_dashes(watched: Watched, tuner: FakeTuner) -> None:
    page = opened(watched, tuner)
    row = page.get_by_role("row").filter(has=page.get_by_role("button", name="p1k@2k", exact=True))
    for label in ("Default µs", "Best µs", "Speed-up", "At least", "Confidence"):
        expect(row.locator(f'[data-label="{label}"]')).to_have_text("-")
    unknown = recorded_overview()
    nulls = ("speedup", "lower_bound", "confidence", "time_share", "pairs", "best_us", "trials")
    for bucket in unknown["buckets"]:
        bucket |= dict.fromkeys(nulls)
    for server in unknown["servers"]:
        server |= dict.fromkeys(("last_seen_s", "table_version", "hybrid_share", "seen"))
    tuner.publish(unknown)
    expect(page.locator("#saved .hero")).to_have_text("-")
    text = page.locator("main").inner_text()
    assert not [word for word in ("NaN", "null", "undefined", "Infinity") if word in text]
    assert watched.complaints == []


def test_keyboard_opens_a_bucket_walks_its_trials_and_compares_one(
    watched: Watched, tuner: FakeTuner
) -> None:
    page = opened(watched, tuner)
    button = page.get_by_role("button", name=HOT)
    button.focus()
    page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(button).to_be_focused()
    expect(page.locator(".detail-body")).to_contain_text("8 of 15 fields differ")
    page.locator(".detail-body svg").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tip")).to_contain_text("Trial 1,")
    page.keyboard.press("Enter")
    expect(page.locator(".detail-body h3").nth(1)).to_have_text("Trial 1 against default")


def test_pruned_trial_tells_its_reason_on_hover(watched: Watched, tuner: FakeTuner) -> None:
    page = opened(watched, tuner)
    page.get_by_role("button", name=HOT).click()
    page.locator(".detail-body svg .trial.pruned .dot").first.hover()
    expect(page.locator("#tip")).to_contain_text("pruned")
    expect(page.locator("#tip")).to_contain_text("stopped early")


def test_address_of_an_open_bucket_opens_it_again(watched: Watched, tuner: FakeTuner) -> None:
    page = opened(watched, tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body")
    page.goto(page.url)
    page.reload()
    page.wait_for_selector(".detail-body svg .trial")


def test_empty_tuner_teaches_how_to_connect_a_server(watched: Watched, tuner: FakeTuner) -> None:
    tuner.publish(empty_overview())
    page = opened(watched, tuner)
    expect(page.locator("#command")).to_have_text(
        f"POD_ATTN_TUNER_URL={tuner.url} sglang serve --model-path MODEL "
        "--attention-backend pod --enable-mixed-chunk"
    )
    tuner.publish(recorded_overview())
    expect(page.locator("#welcome")).to_be_hidden()
    assert watched.complaints == []


@pytest.mark.parametrize("width", [380, 768, 1024, 1440, 2560])
def test_page_never_scrolls_sideways(watched: Watched, tuner: FakeTuner, width: int) -> None:
    watched.page.set_viewport_size({"width": width, "height": 900})
    page = opened(watched, tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body svg .trial")
    root: Any = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
