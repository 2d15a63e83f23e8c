// detail.js: one bucket opened: its trials as a chart and a table, and what the config changes.

import { spanned, trialChart } from "./chart.js";
import { h } from "./dom.js";
import { DASH, bucketWords, clock, count, micros, speed } from "./format.js";
import { idOf, keyOf } from "./buckets.js";
import { getJson } from "./live.js";

const FIELDS = {
  "prefill.q_rows": "query rows of a prefill tile",
  "prefill.kv_rows": "KV rows of a prefill stage",
  "prefill.stages": "KV stages in flight for prefill",
  "prefill.warps": "warps of a prefill CTA",
  "decode.q_rows": "query rows of a decode tile",
  "decode.kv_rows": "KV rows of a decode stage",
  "decode.stages": "KV stages in flight for decode",
  "decode.warps": "warps of a decode CTA",
  ctas_per_sm: "CTAs resident on one SM",
  prefill_ctas: "prefill side of the CTA ratio; 0:0 follows the work",
  decode_ctas: "decode side of the CTA ratio; 0:0 follows the work",
  max_prefill_waves: "limit on prefill splits, in waves; 0 never splits",
  decode_split_tokens: "most KV tokens of a decode item; 0 never splits",
  virtual_decode: "decode items that one CTA takes at once",
  strategy: "one launch, one side after the other, or side by side",
};

/** Nested config -> ["prefill.q_rows", 64] pairs; fields of newer tuners are kept. */
export function flatten(config, prefix = "") {
  return Object.entries(config ?? {}).flatMap(([name, value]) =>
    value !== null && typeof value === "object" ? flatten(value, `${prefix}${name}.`) : [[prefix + name, value]],
  );
}

/** Shows one bucket at a time in `node`; update() takes a newer overview of it. */
export class Detail {
  constructor() {
    this.node = h("div", { class: "detail-body" });
    this.bucket = null;
    this.trials = null;
    this.picked = null;
    this.error = null;
  }

  update(bucket) {
    const other = this.bucket === null || keyOf(this.bucket) !== keyOf(bucket);
    const sign = JSON.stringify([bucket.trials, bucket.pruned, bucket.pairs, bucket.status, bucket.best_config]);
    if (!other && sign === this.sign && this.error === null) return;
    if (other) {
      this.trials = this.picked = this.error = null;
    }
    this.bucket = bucket;
    this.sign = sign;
    if (other) this.#render();
    this.#load();
  }

  async #load() {
    const { geometry, device, build, bucket } = this.bucket;
    const asked = this.bucket;
    try {
      const answer = await getJson(`/v1/trials?${new URLSearchParams({ geometry, device, build, bucket })}`);
      if (asked !== this.bucket) return;
      this.trials = answer.trials;
      this.promoted = answer.promoted;
      this.error = null;
    } catch (error) {
      if (asked !== this.bucket) return;
      this.error = error.message;
    }
    this.#render();
  }

  #render() {
    const b = this.bucket;
    this.node.id = `${idOf(keyOf(b))}-detail`;
    const open = this.node.querySelector("details")?.open ?? false;
    const focused = this.node.querySelector("svg") === document.activeElement;
    this.node.replaceChildren(
      h("p", { class: "words" }, bucketWords(b.bucket)),
      h("div", { class: "columns" },
        h("div", {}, h("h3", {}, "Trials"), this.#chart(), this.#table(open)),
        h("div", {}, this.#difference())),
    );
    this.redraw?.();
    if (focused) this.node.querySelector("svg")?.focus();
  }

  #chart() {
    this.redraw = null;
    if (this.error !== null) return h("p", { class: "bad" }, `The trials cannot be shown: ${this.error}.`);
    if (this.trials === null) return h("p", { class: "empty" }, "Loading the trials.");
    if (this.trials.length === 0) return h("p", { class: "empty" }, "No trial yet.");
    const host = h("div", { class: "chart" });
    this.redraw = trialChart(host, {
      trials: this.trials,
      promoted: this.promoted,
      picked: this.picked?.number ?? null,
      onPick: (trial) => {
        this.picked = this.picked?.number === trial.number ? null : trial;
        this.#render();
      },
    });
    return [
      h("p", { class: "legend" },
        h("span", { class: "key-tuned" }, "median over steps (the bar goes from the slowest to the fastest)"),
        h("span", { class: "key-promoted" }, "promoted"),
        h("span", { class: "key-pruned" }, "pruned")),
      host,
    ];
  }

  #table(open) {
    if (!this.trials?.length) return null;
    const heads = ["Trial", "State", "Speed-up", "Slowest step", "Fastest step", "At least", "Default µs", "µs", "Pairs", "Config", "Reason", "Time"];
    const words = ["State", "Config", "Reason", "Time"];
    const number = heads.map((text) => !words.includes(text));
    const row = (t) => {
      const known = spanned(t);
      return [
        t.number, t.number === this.promoted ? `${t.state}, promoted` : t.state, speed(known ? t.speedup : null),
        speed(t.low), speed(t.high), speed(t.lower_bound), micros(known ? t.default_us : null), micros(known ? t.median_us : null),
        count(t.pairs), t.config_short ?? DASH, t.reason || DASH, clock(t.time),
      ];
    };
    return h("details", { open },
      h("summary", {}, `All ${this.trials.length} trials as a table`),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Trials" },
        h("table", { class: "trials" },
          h("thead", {}, h("tr", {}, heads.map((text, i) => h("th", { scope: "col", class: number[i] ? "n" : null }, text)))),
          h("tbody", {}, [...this.trials].reverse().map((t) =>
            h("tr", {}, row(t).map((text, i) => h("td", { class: number[i] ? "n" : null }, text))))))));
  }

  #difference() {
    const { default_config: base, best_config: best } = this.bucket;
    const other = this.picked?.config ?? best;
    const title = this.picked ? `Trial ${this.picked.number} against default` : "Promoted against default";
    if (!other || !base) return [h("h3", {}, title), h("p", { class: "empty" }, "No config is proven better.")];
    const before = new Map(flatten(base));
    const after = new Map(flatten(other));
    const names = [...new Set([...before.keys(), ...after.keys()])];
    const changed = names.filter((name) => before.get(name) !== after.get(name));
    const text = (map, name) => (map.has(name) ? String(map.get(name)) : DASH);
    return [
      h("h3", {}, title),
      h("p", { class: "note" }, changed.length ? `${changed.length} of ${names.length} fields differ.` : "The two are the same."),
      h("table", { class: "diff" },
        h("thead", {}, h("tr", {}, ["Field", "Default", this.picked ? `Trial ${this.picked.number}` : "Promoted"].map((head, i) =>
          h("th", { scope: "col", class: i ? "n" : null }, head)))),
        h("tbody", {}, [...changed, ...names.filter((name) => !changed.includes(name))].map((name) =>
          h("tr", { class: changed.includes(name) ? "changed" : null },
            h("th", { scope: "row", "data-tip": FIELDS[name] ?? null }, name),
            h("td", { class: "n" }, text(before, name)),
            h("td", { class: "n" }, text(after, name)))))),
    ];
  }
}
