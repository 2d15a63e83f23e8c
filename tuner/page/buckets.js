// buckets.js: the bucket table, grouped by geometry, device and kernel build.

import { byId, h, mirror, setText, svg } from "./dom.js";
import { DASH, bucketWords, confidence, count, geometryWords, micros, percent, plural, speed } from "./format.js";

const HEADINGS = [
  ["Bucket", ""], ["Status", ""], ["Share of time", "n"], ["Default µs", "n"], ["Tuned µs", "n"],
  ["Speed-up", "n"], ["At least", "n"], ["", "interval"], ["Confidence", "n"], ["Pairs", "n"], ["Trials", "n"],
  ["Pruned", "n"],
];
const COLUMNS = HEADINGS.length;
const FIRST = 25;

export const keyOf = (b) => [b.geometry, b.device, b.build, b.bucket].join("|");

/** An element id that is safe for any key. */
export const idOf = (key) => `b-${[...new TextEncoder().encode(key)].map((n) => n.toString(16)).join("")}`;

/** view = {open: key | null, all: bool}; onToggle(bucket), onAll() change it and render again. */
export function showBuckets({ bucket_count: known, buckets, tables }, view, { onToggle, onAll, detail }) {
  const groups = grouped(buckets, tables);
  const promoted = buckets.filter((b) => b.status === "promoted").length;
  const heaviest = known > buckets.length ? `${buckets.length} of ` : "";
  setText("buckets-note", buckets.length ? `${heaviest}${plural(known, "bucket")}, ${promoted} promoted, most attention time first` : "");
  const scale = speedScale(buckets);
  const rows = groups.flatMap((group) => groupRows(group, view, groups.length, scale));
  const host = byId("bucket-table");
  if (rows.length === 0) {
    mirror(host, ["empty"], { keyOf: (x) => x, build: () => h("p", { class: "empty" }, "Buckets appear with the first traced steps.") });
    return;
  }
  if (!host.querySelector("table")) host.replaceChildren(skeleton());
  mirror(host.querySelector("tbody"), rows, {
    keyOf: (row) => row.key,
    // What is displayed, not the raw numbers: those move with every step.
    signature: ({ bucket, open, kind, group, scale: s }) => [bucket ? texts(bucket) : null, open, kind, group, s],
    build: (row) => buildRow(row, { onToggle, onAll, detail }),
  });
}

function skeleton() {
  return h("table", { class: "buckets", role: "table", "aria-labelledby": "buckets-title" },
    h("thead", { role: "rowgroup" },
      h("tr", { role: "row" }, HEADINGS.map(([text, kind]) =>
        h("th", { scope: "col", role: "columnheader", class: kind || null },
          text || h("span", { class: "hidden" }, "Interval from lower bound to median"))))),
    h("tbody", { role: "rowgroup" }));
}

function grouped(buckets, tables) {
  const groups = new Map();
  for (const b of buckets) {
    const key = [b.geometry, b.device, b.build].join("|");
    if (!groups.has(key)) {
      const table = tables.find((t) => t.geometry === b.geometry && t.device === b.device && t.build === b.build);
      groups.set(key, { key, geometry: b.geometry, device: b.device, build: b.build, version: table?.version ?? null, buckets: [] });
    }
    groups.get(key).buckets.push(b);
  }
  const weight = (group) => group.buckets.reduce((sum, b) => sum + (b.time_share ?? 0), 0);
  for (const group of groups.values()) group.buckets.sort((a, b) => (b.time_share ?? 0) - (a.time_share ?? 0) || a.bucket.localeCompare(b.bucket));
  return [...groups.values()].sort((a, b) => weight(b) - weight(a) || a.key.localeCompare(b.key));
}

function groupRows(group, view, groupCount, scale) {
  const { buckets, ...head } = group;
  const limit = view.all ? buckets.length : Math.max(5, Math.ceil(FIRST / groupCount));
  // The open bucket stays visible whatever its rank.
  const shown = buckets.filter((b, i) => i < limit || keyOf(b) === view.open);
  const rows = [{ kind: "group", key: `group|${group.key}`, group: head }];
  for (const bucket of shown) {
    const open = keyOf(bucket) === view.open;
    rows.push({ kind: "bucket", key: keyOf(bucket), bucket, open, scale });
    // Its own updates come from detail(); the row itself stays in place.
    if (open) rows.push({ kind: "detail", key: `detail|${keyOf(bucket)}`, open: true });
  }
  if (shown.length < buckets.length) {
    rows.push({ kind: "more", key: `more|${group.key}`, group: { total: buckets.length } });
  }
  return rows;
}

function buildRow(row, { onToggle, onAll, detail }) {
  const wide = { role: "cell", colspan: COLUMNS };
  if (row.kind === "group") return groupRow(row.group);
  if (row.kind === "bucket") return bucketRow(row, onToggle);
  if (row.kind === "detail") return h("tr", { class: "detail", role: "row" }, h("td", wide, detail()));
  return h("tr", { role: "row", class: "rest" }, h("td", wide,
    h("button", { type: "button", class: "more", onclick: onAll }, `Show all ${row.group.total} buckets`)));
}

function groupRow(group) {
  return h("tr", { class: "group", role: "row" },
    h("th", { scope: "rowgroup", role: "rowheader", colspan: COLUMNS },
      h("span", {}, geometryWords(group.geometry)),
      h("span", {}, group.device),
      h("span", {}, group.build),
      h("span", {}, group.version ? `table v${group.version}` : "no table yet")));
}

/** Whether a bucket's speed-up has a bound: one without is from screening and says nothing yet. */
export const bounded = (b) => typeof b.speedup === "number" && typeof b.lower_bound === "number";

/** Cells of a row by heading, as text. */
function texts(b) {
  const proven = bounded(b);
  return {
    status: b.pinned && b.status !== "pinned" ? `${b.status}, pinned` : b.status ?? DASH,
    "Share of time": percent(b.time_share),
    "Default µs": micros(b.default_us),
    "Tuned µs": micros(proven ? b.best_us : null),
    "Speed-up": speed(proven ? b.speedup : null),
    "At least": speed(proven ? b.lower_bound : null),
    Confidence: confidence(b.confidence),
    Pairs: count(b.pairs),
    Trials: count(b.trials),
    Pruned: count(b.pruned),
  };
}

const PAIR = "Both times are of one pair, side by side on one traced step: the pair whose ratio is nearest to the speed-up.";

function bucketRow({ bucket: b, open, scale }, onToggle) {
  const id = idOf(keyOf(b));
  const text = texts(b);
  const cell = (label, kind = "n", tip = null) =>
    h("td", { role: "cell", class: kind, "data-label": label }, tip ? h("span", { "data-tip": tip }, text[label]) : text[label]);
  return h("tr", { class: open ? "bucket open" : "bucket", role: "row", onclick: (event) => event.target.closest("button") || onToggle(b) },
    h("th", { scope: "row", role: "rowheader" },
      h("button", { id, type: "button", class: "bucket-name", "aria-expanded": open ? "true" : "false", "aria-controls": open ? `${id}-detail` : null,
        "data-tip": open ? null : bucketWords(b.bucket), "aria-description": bucketWords(b.bucket), onclick: () => onToggle(b) }, bucketName(b.bucket))),
    h("td", { role: "cell", "data-label": "Status" }, h("span", { class: `status ${statusClass(b.status)}` }, text.status)),
    h("td", { role: "cell", class: "n share", "data-label": "Share of time", vars: { "--share": b.time_share ?? 0 } }, h("span", {}, text["Share of time"])),
    cell("Default µs", "n", bounded(b) ? PAIR : null),
    cell("Tuned µs", "n", bounded(b) ? PAIR : null),
    cell("Speed-up", "n strong"),
    cell("At least"),
    h("td", { role: "cell", class: "interval", "data-label": "Interval" }, interval(b, scale)),
    cell("Confidence"),
    cell("Pairs"),
    cell("Trials"),
    cell("Pruned"));
}

/** The two sides of a bucket in the colours of prefill and decode. */
export function bucketName(bucket) {
  const sides = bucket.split("+");
  return sides.map((side, i) => [
    i ? h("span", { class: "plus" }, "+") : null,
    h("span", { class: side.startsWith("p") ? "prefill" : side.startsWith("d") ? "decode" : null }, side),
  ]);
}

const STATUS = { promoted: "good", "default is best": "settled", tuning: "busy", waiting: "idle", "no worker": "warned", parked: "warned", pinned: "settled" };
const statusClass = (status) => STATUS[status] ?? "idle";

function speedScale(buckets) {
  const values = buckets.filter(bounded).flatMap((b) => [b.speedup, b.lower_bound]);
  // Rounded outwards, so that small changes of one row do not redraw all.
  return [Math.floor(Math.min(0.95, ...values) * 20) / 20, Math.ceil(Math.max(1.1, ...values) * 20 + 0.4) / 20];
}

function interval(b, [low, high]) {
  if (!bounded(b)) return null;
  const x = (value) => ((value - low) / (high - low)) * 120;
  const words = `Median ${speed(b.speedup)}, at least ${speed(b.lower_bound)} with ${confidence(b.confidence)} confidence; the vertical line is the default.`;
  const good = b.lower_bound > 1;
  return svg("svg", { viewBox: "0 0 120 16", width: 120, height: 16, role: "img", "aria-label": words, "data-tip": words, class: good ? "good" : null },
    svg("line", { class: "rail", x1: 0, x2: 120, y1: 8, y2: 8 }),
    svg("line", { class: "base", x1: x(1), x2: x(1), y1: 1, y2: 15 }),
    svg("line", { class: "bound", x1: x(b.lower_bound), x2: x(b.speedup), y1: 8, y2: 8 }),
    svg("line", { class: "bound", x1: x(b.lower_bound), x2: x(b.lower_bound), y1: 4, y2: 12 }),
    svg("circle", { class: "dot", cx: x(b.speedup), cy: 8, r: 4 }));
}
