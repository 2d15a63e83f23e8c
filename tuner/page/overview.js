// overview.js: servers, workers, savings, totals, history and decisions.

import { bounded } from "./buckets.js";
import { historyChart } from "./chart.js";
import { byId, h, mirror, setText, svg } from "./dom.js";
import {
  DASH, bucketWords, bytes, clock, confidence, count, date, geometryWords, percent, plural, span, speed,
} from "./format.js";

// A server posts every few seconds; silence this long means that it is gone or cut off.
const SILENT_S = 120;
const FEED = 12;

const groupOf = (item) => [item.geometry, item.device, item.build].join("|");

export function tableVersions(overview) {
  return new Map(overview.tables.map((table) => [groupOf(table), table.version]));
}

export function showAbout({ tuner }) {
  const host = tuner.host_mode === "ray" ? "Ray" : tuner.host_mode === "plain" ? "one process" : tuner.host_mode;
  setText("about", [
    `v${tuner.version}`,
    `up ${span(tuner.uptime_s)}`,
    host,
    `stored in ${tuner.storage}`,
    `traces ${bytes(tuner.archive_bytes)}`,
    tuner.storage_error && `NOTHING IS STORED: ${tuner.storage_error}`,
    tuner.archive_error,
    tuner.paused.length && `PAUSED: ${tuner.paused.includes("*") ? "every server and worker" : tuner.paused.join(", ")}`,
  ].filter(Boolean).join(" · "));
}

export function showServers(overview) {
  const versions = tableVersions(overview);
  const rows = overview.servers.map((server) => ({ ...server, ...health(server, versions) }));
  rows.sort((a, b) => b.rank - a.rank || a.server.localeCompare(b.server));
  const lagging = rows.filter((row) => row.lags).length;
  const silent = rows.filter((row) => row.silent).length;
  const words = [plural(rows.length - silent, "live server")];
  if (silent) words.push(`${silent} silent`);
  if (lagging) words.push(`${lagging} behind the published table`);
  setText("servers-note", rows.length ? words.join(", ") : "");
  mirror(byId("servers"), rows, {
    keyOf: (row) => `${row.server}|${groupOf(row)}`,
    build: serverRow,
  });
}

function health(server, versions) {
  const published = versions.get(groupOf(server)) ?? null;
  const silent = typeof server.last_seen_s === "number" && server.last_seen_s > SILENT_S;
  const lags = !silent && published !== null && (server.table_version ?? 0) < published;
  return { published, silent, lags, rank: (silent ? 2 : 0) + (lags ? 1 : 0) };
}

function serverRow(row) {
  const used = row.table_version ? `v${row.table_version}` : "defaults";
  const table = row.lags ? [used, h("span", { class: "warn" }, ` → v${row.published}`)] : [used];
  const seen = row.last_seen_s === null ? DASH : `${span(row.last_seen_s)} ago${row.silent ? ", silent" : ""}`;
  const cell = (label, content, kind = null) => h("td", { role: "cell", "data-label": label, class: kind }, content);
  return h(
    "tr",
    { role: "row" },
    h("th", { scope: "row", role: "rowheader", class: "name" }, row.server),
    cell("Last seen", seen, row.silent ? "bad" : null),
    h("td", { role: "cell", "data-label": "Table in use" }, h("span", { "data-tip": row.lags ? `v${row.published} is published, this server still uses ${used}` : null }, table)),
    cell("Steps", count(row.seen), "n"),
    cell("Dropped", count(row.dropped), row.dropped ? "n warn" : "n"),
    cell("Hybrid", percent(row.hybrid_share), "n"),
    cell("Runs", [
      h("span", { "data-tip": geometryWords(row.geometry), tabindex: 0 }, row.geometry),
      h("span", {}, `${row.device} · ${row.build}`),
    ], "keys"),
  );
}

export function showWorkers({ tuner }) {
  const workers = tuner.workers;
  const busy = workers.filter((worker) => worker.state === "measuring").length;
  setText("workers-note", workers.length ? `${busy} of ${workers.length} measuring` : "");
  const items = workers.length ? workers : [{ id: "", state: "none" }];
  mirror(byId("workers"), items, { keyOf: (worker) => worker.id, build: workerItem });
}

function workerItem(worker) {
  if (worker.state === "none") {
    return h("li", { class: "empty" }, "No worker runs: traces are kept, nothing is measured.");
  }
  const busy = worker.state === "measuring";
  const since = typeof worker.since_s === "number" ? ` for ${span(worker.since_s)}` : "";
  return h(
    "li",
    { class: busy ? "busy" : "idle" },
    h("strong", {}, worker.id),
    h("span", { class: "doing" }, `${worker.state}${since}`),
    busy && worker.task ? h("code", { class: "task" }, worker.task) : null,
    h("small", {}, [worker.device, worker.build].filter(Boolean).join(" · ") || DASH),
  );
}

/**
 * What the promoted configs save, as a share of traced attention time: the sum over buckets of
 * time_share x (1 - 1 / speed-up), and the same with every bucket only at its lower bound.
 */
export function savings(buckets) {
  const promoted = buckets.filter((b) => b.status === "promoted" && bounded(b));
  const gain = (share, ratio) => (typeof ratio === "number" && ratio > 0 ? (share ?? 0) * (1 - 1 / ratio) : 0);
  return {
    buckets: promoted.length,
    pairs: promoted.reduce((sum, b) => sum + (b.pairs ?? 0), 0),
    share: promoted.reduce((sum, b) => sum + (b.time_share ?? 0), 0),
    expected: promoted.reduce((sum, b) => sum + (b.expected_saving_share ?? gain(b.time_share, b.speedup)), 0),
    least: promoted.reduce((sum, b) => sum + gain(b.time_share, b.lower_bound), 0),
    confidence: promoted.reduce((low, b) => Math.min(low, b.confidence ?? 0), 1),
  };
}

export function showSaved(overview) {
  const { buckets, totals } = overview;
  const sum = savings(buckets);
  const none = sum.buckets === 0;
  const lines = none
    ? [buckets.length ? "Nothing is promoted yet: servers run the defaults." : "No traces yet."]
    : [
        `Median estimate; at least ${percent(sum.least)}, were every bucket only at its lower bound (each holds with ${confidence(sum.confidence)} confidence).`,
        `${plural(sum.buckets, "promoted bucket")} with ${percent(sum.share, 0)} of traced attention time; ${plural(sum.pairs, "interleaved pair")} measured there.`,
        behind(overview),
      ].filter(Boolean);
  mirror(byId("saved"), [{ sum, lines, none }], {
    keyOf: () => "saved",
    build: () => h("div", {},
      h("p", { class: "hero" }, none ? DASH : percent(sum.expected)),
      none ? null : savedBar(sum),
      lines.map((line) => h("p", {}, line))),
  });
  showTotals(totals);
}

// A published config saves nothing on a server that does not run it yet.
function behind({ servers, tables }) {
  const versions = tableVersions({ tables });
  const live = servers.map((server) => health(server, versions)).filter((state) => !state.silent);
  const lagging = live.filter((state) => state.lags).length;
  return lagging ? `Not saved yet where ${lagging} of ${plural(live.length, "live server")} run an older table.` : null;
}

function savedBar({ least, expected }) {
  const full = Math.max(0.1, Math.ceil(expected * 10) / 10);
  const at = (share) => Math.max(0, (share / full) * 100);
  return h("div", { class: "range" },
    svg("svg", { viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "rail", x: 0, y: 0, width: 100, height: 6 }),
      svg("rect", { class: "maybe", x: 0, y: 0, width: at(expected), height: 6 }),
      svg("rect", { class: "sure", x: 0, y: 0, width: at(least), height: 6 })),
    h("p", { class: "scale", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, percent(full, 0))));
}

function showTotals(totals) {
  const items = [
    ["Steps seen", totals.steps_seen, `${count(totals.steps_dropped)} dropped`],
    ["Steps sampled", totals.records, `in ${plural(totals.messages, "message")}`],
    ["Hybrid, of sampled", totals.hybrid_steps, percent(totals.hybrid_share)],
    ["Trials", totals.trials, `${count(totals.pruned)} pruned`],
    ["Promotions", totals.promotions, `${count(totals.rollbacks)} rolled back`],
    ["Alerts", totals.alerts, totals.alerts ? "see the decisions" : "none"],
  ];
  mirror(byId("totals"), items, {
    keyOf: (item) => item[0],
    build: ([name, value, note]) => h("div", { class: name === "Alerts" && value > 0 ? "bad" : null },
      h("dt", {}, name), h("dd", {}, count(value)), h("dd", {}, note)),
  });
}

let historySeen = "";

export function showHistory({ history }) {
  const sign = JSON.stringify(history);
  if (sign === historySeen) return;
  historySeen = sign;
  const host = byId("history");
  if (!history.some((point) => typeof point.attention_us_default === "number")) {
    host.replaceChildren(h("p", { class: "empty" }, "Shown after the first traced steps."));
    return;
  }
  const fresh = h("div", { class: "chart" });
  host.replaceChildren(
    h("p", { class: "legend" },
      h("span", { class: "key-default" }, "default configs"),
      h("span", { class: "key-tuned" }, "published configs, at most"),
      h("span", { class: "key-jump" }, "promotion"),
      h("span", { class: "unit" }, "mean µs over the current traffic")),
    fresh,
  );
  historyChart(fresh, history);
}

let wholeFeed = false;

export function showDecisions({ decisions }) {
  const sorted = [...decisions].sort((a, b) => (date(b.time) ?? 0) - (date(a.time) ?? 0));
  const shown = wholeFeed ? sorted : sorted.slice(0, FEED);
  const items = shown.length ? shown : [{ id: "none", kind: "none" }];
  mirror(byId("decisions"), items, { keyOf: (item) => String(item.id), build: decisionItem });
  const more = byId("decisions-more");
  more.hidden = sorted.length <= FEED;
  more.textContent = wholeFeed ? "Show the latest" : `Show all ${sorted.length}`;
  more.onclick = () => {
    wholeFeed = !wholeFeed;
    showDecisions({ decisions });
  };
}

/** What a decision rests on; older ones know their pairs only. */
function taken(item) {
  return item.steps ? plural(item.steps, "distinct step") : plural(item.pairs ?? 0, "pair");
}

function decisionItem(item) {
  if (item.kind === "none") return h("li", { class: "empty" }, "No decision yet.");
  const measured = bounded(item)
    ? `${speed(item.speedup)}, at least ${speed(item.lower_bound)}, ${taken(item)}`
    : null;
  const when = date(item.time);
  return h("li", { class: `decision ${item.kind}` },
    h("p", { class: "what" },
      h("time", { datetime: when?.toISOString(), title: when?.toLocaleString() }, clock(item.time)),
      h("strong", {}, item.kind),
      item.who ? h("span", { class: "who" }, `by ${item.who}`) : null,
      item.bucket ? h("code", { "data-tip": bucketWords(item.bucket), tabindex: 0 }, item.bucket) : null),
    h("div", { class: "why" },
      h("p", {}, measured ? [h("span", { class: "numbers" }, measured), " "] : null, item.reason ?? null),
      item.config_short ? h("p", { class: "config" }, h("code", {}, item.config_short)) : null));
}
