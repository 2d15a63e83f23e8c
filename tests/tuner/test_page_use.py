"""Using the page: keyboard, tooltips, addresses, widths, contrast."""

from __future__ import annotations

from typing import Any

import pytest
from page_fixtures import FakeTuner, Watched, opened, recorded_overview
from playwright.sync_api import expect

from pod_integrate.terms import wire

pytestmark = pytest.mark.browser
HOT = "p1k@8k+d64@4k"


def test_keyboard_opens_a_bucket_walks_its_trials_and_compares_one(
    watched: Watched, fake_tuner: FakeTuner
) -> None:
    page = opened(watched, fake_tuner)
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


def test_pruned_trial_tells_its_reason_on_hover(watched: Watched, fake_tuner: FakeTuner) -> None:
    page = opened(watched, fake_tuner)
    page.get_by_role("button", name=HOT).click()
    page.locator(".detail-body svg .trial.pruned .dot").first.hover()
    expect(page.locator("#tip")).to_contain_text("pruned")
    expect(page.locator("#tip")).to_contain_text("stopped early")


def test_address_of_an_open_bucket_opens_it_again(watched: Watched, fake_tuner: FakeTuner) -> None:
    page = opened(watched, fake_tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body")
    page.goto(page.url)
    page.reload()
    page.wait_for_selector(".detail-body svg .trial")


@pytest.mark.parametrize("width", [380, 768, 1024, 1440, 2560])
def test_page_never_scrolls_sideways(watched: Watched, fake_tuner: FakeTuner, width: int) -> None:
    watched.page.set_viewport_size({"width": width, "height": 900})
    page = opened(watched, fake_tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body svg .trial")
    root: Any = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")


@pytest.mark.parametrize("width", [320, 1024])
def test_longest_names_that_a_server_may_have_break_and_never_scroll_the_page(
    watched: Watched, fake_tuner: FakeTuner, width: int
) -> None:
    name, device = "W" * wire.MAX_KEY, f"{'x' * 80}:{'y' * 16}:9999"
    told = recorded_overview()
    for row in [*told["servers"], *told["buckets"], *told["tuner"]["workers"], *told["tables"]]:
        row |= {"device": device, "build": name}
    for row in told["servers"]:
        row["server"] = name
    for row in told["tuner"]["workers"]:
        row |= {"id": name, "task": name}
    for row in told["decisions"]:
        row |= {"who": name, "reason": 4 * name}
    told["tuner"]["storage_error"] = told["tuner"]["archive_error"] = 4 * name
    fake_tuner.publish(told)
    watched.page.set_viewport_size({"width": width, "height": 900})
    page = opened(watched, fake_tuner)
    expect(page.locator("#workers")).to_contain_text(name)
    root: Any = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")


# Every element with text of its own, against the nearest opaque background behind it.
POOR_CONTRAST = """() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = rgba(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const own = (node) => [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
  return [...document.querySelectorAll("body *")]
    .filter((node) => node.checkVisibility() && own(node))
    .map((node) => {
      const style = getComputedStyle(node);
      const ink = light(rgba(node.ownerSVGElement ? style.fill : style.color));
      const paper = light(behind(node));
      const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      return [ratio.toFixed(2), node.textContent.slice(0, 30)];
    })
    .filter(([ratio]) => ratio < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(watched: Watched, fake_tuner: FakeTuner, scheme: Any) -> None:
    watched.page.emulate_media(color_scheme=scheme)
    page = opened(watched, fake_tuner)
    page.get_by_role("button", name=HOT).click()
    page.wait_for_selector(".detail-body svg .trial")
    assert page.evaluate(POOR_CONTRAST) == []
