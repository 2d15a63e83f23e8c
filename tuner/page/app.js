// app.js: wires the live overview to the sections of the page.

import { keyOf, showBuckets } from "./buckets.js";
import { Detail } from "./detail.js";
import { byId, setText } from "./dom.js";
import { clock, span } from "./format.js";
import { Live } from "./live.js";
import { showAbout, showDecisions, showHistory, showSaved, showServers, showWorkers } from "./overview.js";
import { hideTip, installTips } from "./tip.js";
import { showWelcome } from "./welcome.js";

const view = { open: null, all: false };
const detail = new Detail();
let overview = null;
let receivedAt = 0;
let state = { kind: "connecting" };

function showTable() {
  const open = overview.buckets.find((b) => keyOf(b) === view.open);
  if (view.open && open) detail.update(open);
  showBuckets(overview, open ? view : { ...view, open: null }, {
    detail: () => detail.node,
    onToggle: (bucket) => {
      view.open = view.open === keyOf(bucket) ? null : keyOf(bucket);
      rememberOpen();
      hideTip();
      showTable();
    },
    onAll: () => {
      view.all = true;
      showTable();
    },
  });
}

// The open bucket lives in the address, so that it can be sent to a colleague.
function rememberOpen() {
  const hash = view.open ? `#bucket=${encodeURIComponent(view.open)}` : " ";
  history.replaceState(null, "", hash.trim() ? hash : location.pathname);
}

function readOpen() {
  const found = /^#bucket=(.+)$/.exec(location.hash);
  if (!found) return;
  try {
    view.open = decodeURIComponent(found[1]);
  } catch {
    view.open = null; // A mangled link opens nothing.
  }
}

function onOverview(fresh) {
  overview = fresh;
  receivedAt = Date.now();
  showAbout(fresh);
  showWelcome(fresh);
  showServers(fresh);
  showWorkers(fresh);
  showSaved(fresh);
  showHistory(fresh);
  showTable();
  showDecisions(fresh);
}

function onState(next) {
  state = next;
  document.body.dataset.state = next.kind;
  showState();
}

function showState() {
  const node = byId("state");
  node.dataset.state = state.kind;
  const age = span((Date.now() - receivedAt) / 1000);
  if (state.kind === "live") {
    setText("state", "Live");
    node.title = `Last update ${age} ago`;
  } else {
    setText("state", state.kind === "lost" ? "Disconnected" : "Connecting");
  }
  const banner = byId("banner");
  banner.hidden = state.kind !== "lost";
  if (state.kind === "lost") {
    const old = overview ? ` What you see is from ${clock(receivedAt / 1000)}.` : "";
    setText("banner", `Connection lost: ${state.reason}.${old} Trying again by itself.`);
  }
}

readOpen();
installTips();
addEventListener("hashchange", () => {
  readOpen();
  if (overview) showTable();
});
setInterval(showState, 1000);
new Live({ onOverview, onState }).start();
