// tip.js: one tooltip for everything with data-tip, on hover and on keyboard focus alike.

import { byId } from "./dom.js";

export function hideTip() {
  byId("tip").hidden = true;
}

/** Show `text` near a client rectangle, kept inside of the window. */
export function showTip(text, rect) {
  const tip = byId("tip");
  tip.textContent = text;
  tip.hidden = false;
  const gap = 8;
  const width = tip.offsetWidth;
  const left = Math.min(
    Math.max(gap, rect.left + rect.width / 2 - width / 2),
    document.documentElement.clientWidth - width - gap,
  );
  const above = rect.top - tip.offsetHeight - gap;
  tip.style.setProperty("left", `${Math.max(gap, left)}px`);
  tip.style.setProperty("top", `${above > gap ? above : rect.bottom + gap}px`);
}

export function installTips() {
  const enter = (event) => {
    const anchor = event.target.closest?.("[data-tip]");
    if (anchor) showTip(anchor.dataset.tip, anchor.getBoundingClientRect());
    else hideTip();
  };
  document.addEventListener("pointerover", enter);
  document.addEventListener("focusin", (event) => {
    if (event.target.matches(":focus-visible")) enter(event);
  });
  document.addEventListener("focusout", hideTip);
  document.addEventListener("scroll", hideTip, true);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
  });
}
