// welcome.js: what to do when no server reports yet.

import { byId, h } from "./dom.js";

const command = () =>
  `POD_ATTN_TUNER_URL=${location.origin} sglang serve --model-path MODEL --attention-backend pod --enable-mixed-chunk`;

export function showWelcome({ servers }) {
  const section = byId("welcome");
  section.hidden = servers.length > 0;
  document.body.classList.toggle("no-servers", servers.length === 0);
  if (section.hidden || section.childElementCount) return;
  const note = h("span", { class: "copied", role: "status" });
  const code = h("code", { id: "command" }, command());
  section.append(
    h("h2", { id: "welcome-title" }, "No server reports yet"),
    h("p", {}, "Start SGLang with the tuner's address; nothing else changes:"),
    h("div", { class: "command" }, h("pre", { tabindex: 0 }, code),
      h("button", { type: "button", onclick: () => copy(code, note) }, "Copy"), note),
    h("ol", {},
      h("li", {}, "The server appears here within seconds of its first steps."),
      h("li", {}, h("code", {}, "--enable-mixed-chunk"), " lets SGLang put prompt chunks and running requests into one step: the hybrid batches that are tuned."),
      h("li", {}, "Where this tuner asks for a token, set ", h("code", {}, "POD_ATTN_TUNER_TOKEN"), " on the server, too."),
      h("li", {}, "Nothing here after a minute of traffic? ", h("code", {}, "pod-attn doctor"), " on the server's machine names the reason.")));
}

async function copy(code, note) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    note.textContent = "Copied";
  } catch {
    // No clipboard outside of https and localhost: leave it selected for Ctrl+C.
    getSelection().selectAllChildren(code);
    note.textContent = "Selected: press Ctrl+C";
  }
}
