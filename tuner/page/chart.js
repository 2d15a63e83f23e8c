// chart.js: the two charts, drawn as plain SVG.
//
// plotly.js writes inline styles and warns on every one of them under a content security policy
// without 'unsafe-inline'; two charts do not justify 5 MB and a weaker policy.

import { svg } from "./dom.js";
import { clock, count, date, micros, speed } from "./format.js";
import { hideTip, showTip } from "./tip.js";

// Room for labels in the root's font size, so that a 4K wall gets larger ones.
function padding() {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  return { left: 4 * rem, right: 1.2 * rem, top: 1.1 * rem, bottom: 2.1 * rem, rem };
}

/** About `wanted` round numbers that cover low..high. */
export function ticks(low, high, wanted = 5) {
  const raw = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const result = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    result.push(Number((i * step).toPrecision(12)));
  }
  return result;
}

function linear(low, high, from, to) {
  const size = high - low || 1;
  return (value) => from + ((value - low) / size) * (to - from);
}

/** Redraw `draw(width, height)` into `host` whenever its size changes; returns the redraw function. */
export function responsive(host, draw) {
  let drawn = "";
  const redraw = (force) => {
    const { clientWidth: width, clientHeight: height } = host;
    const size = `${width}x${height}`;
    if (width > 0 && (force || size !== drawn)) {
      drawn = size;
      host.replaceChildren(...draw(width, height));
    }
  };
  new ResizeObserver(() => redraw(false)).observe(host);
  return () => redraw(true);
}

function axes(pad, width, y, yTicks, label) {
  const lines = yTicks.map((tick) => [
    svg("line", { class: "grid", x1: pad.left, x2: width - pad.right, y1: y(tick), y2: y(tick) }),
    svg("text", { class: "tick", x: pad.left - 8, y: y(tick) + 4, "text-anchor": "end" }, label(tick)),
  ]);
  return svg("g", {}, lines);
}

/** Whether a trial's speed-up has a range: without one it is a number that nothing holds. */
export const spanned = (t) => [t.speedup, t.low, t.high].every((value) => typeof value === "number");

export function trialText(trial) {
  const lines = [`Trial ${trial.number}, ${trial.state}`];
  if (trial.config_short) lines.push(trial.config_short);
  if (spanned(trial)) {
    const bound = typeof trial.lower_bound === "number" ? `, at least ${speed(trial.lower_bound)}` : "";
    lines.push(`${speed(trial.speedup)}${bound}; steps from ${speed(trial.low)} to ${speed(trial.high)}, ${count(trial.pairs)} pairs`);
  }
  if (trial.reason) lines.push(trial.reason);
  return lines.join("\n");
}

/**
 * Speed-up over default by trial number, with a bar from the slowest to the fastest of its steps.
 * Trials without both stand in a lane of their own at the bottom.
 *
 * onPick(trial) is called on click and on Enter; arrow keys walk through the trials.
 */
export function trialChart(host, { trials, promoted, picked, onPick }) {
  const values = trials.filter(spanned).flatMap((t) => [t.low, t.high]);
  const low = Math.min(1, ...values);
  const high = Math.max(1, ...values);
  const slack = Math.max(0.02, (high - low) * 0.08);
  const last = Math.max(1, ...trials.map((t) => t.number));
  return responsive(host, (width) => {
    const pad = padding();
    const height = 23 * pad.rem;
    const lane = height - pad.bottom - pad.rem;
    const x = linear(0, last, pad.left + pad.rem, width - pad.right);
    const y = linear(low - slack, high + slack, lane - 1.6 * pad.rem, pad.top);
    const marks = trials.map((trial) => trialMark(trial, { x, y, lane, promoted, picked, onPick }));
    const root = svg(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`,
        width,
        height,
        role: "img",
        tabindex: 0,
        "aria-label": `Speed-up of ${trials.length} trials over the default config. Arrow keys walk through them, Enter compares one; the table below has the same numbers.`,
      },
      axes(pad, width, y, ticks(low - slack, high + slack, 5), (tick) => speed(tick, 2)),
      svg("line", { class: "base", x1: pad.left, x2: width - pad.right, y1: y(1), y2: y(1) }),
      svg("text", { class: "tick strong", x: width - pad.right, y: y(1) - 5, "text-anchor": "end" }, "default"),
      svg("text", { class: "tick", x: pad.left - 8, y: lane + 4, "text-anchor": "end" }, "no time"),
      ticks(0, last, Math.min(last, width / 90))
        .filter(Number.isInteger)
        .map((n) => svg("text", { class: "tick", x: x(n), y: height - 0.5 * pad.rem, "text-anchor": "middle" }, n)),
      marks,
    );
    walk(root, trials, marks, onPick);
    return [root];
  });
}

function trialMark(trial, { x, y, lane, promoted, picked, onPick }) {
  const cx = x(trial.number);
  const measured = spanned(trial);
  const cy = measured ? y(trial.speedup) : lane;
  const end = (value) => svg("line", { class: "bound", x1: cx - 4, x2: cx + 4, y1: y(value), y2: y(value) });
  const classes = ["trial", trial.state];
  if (trial.number === promoted) classes.push("promoted");
  if (trial.number === picked) classes.push("picked");
  return svg(
    "g",
    { class: classes.join(" "), "data-tip": trialText(trial), onclick: () => onPick(trial) },
    measured && svg("line", { class: "bound", x1: cx, x2: cx, y1: y(trial.high), y2: y(trial.low) }),
    measured && [end(trial.low), end(trial.high)],
    svg("circle", { class: "hit", cx, cy, r: 12 }),
    measured || trial.state !== "pruned"
      ? svg("circle", { class: "dot", cx, cy, r: trial.number === promoted ? 6 : 4.5 })
      : svg("path", { class: "dot", d: `M${cx - 4} ${cy - 4}l8 8m0 -8l-8 8` }),
  );
}

function walk(root, trials, marks, onPick) {
  let at = -1;
  root.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) {
      event.preventDefault();
      marks[at]?.classList.remove("active");
      at = Math.min(Math.max(at + step, 0), trials.length - 1);
      marks[at].classList.add("active");
      showTip(trialText(trials[at]), marks[at].getBoundingClientRect());
    } else if (event.key === "Enter" && at >= 0) {
      hideTip();
      onPick(trials[at]);
    }
  });
}

/** Attention time of a step over time, with default configs and at most with published ones. */
export function historyChart(host, points) {
  const series = ["attention_us_default", "attention_us_tuned"];
  const rows = points.map((p) => ({ ...p, at: date(p.time)?.getTime() ?? null })).filter((p) => p.at !== null);
  const values = rows.flatMap((p) => series.map((name) => p[name])).filter((v) => typeof v === "number");
  const top = Math.max(...values);
  const [first, last] = [rows[0].at, rows[rows.length - 1].at];
  responsive(host, (width, height) => {
    const pad = padding();
    const x = linear(first, last, pad.left, width - pad.right);
    const y = linear(0, top * 1.08, height - pad.bottom, pad.top);
    const jumps = rows.filter((p, i) => i > 0 && p.promotions > rows[i - 1].promotions);
    return [
      svg(
        "svg",
        { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": historyWords(rows) },
        axes(pad, width, y, ticks(0, top * 1.08, 4), (tick) => micros(tick).replace(/\.0+$/, "")),
        jumps.map((p) => svg("path", { class: "jump", d: `M${x(p.at)} ${height - pad.bottom}v-7` })),
        area(rows, x, y),
        series.map((name) => svg("path", { class: `line ${name}`, d: path(rows, name, x, y) })),
        timeTicks(first, last, width).map((at) =>
          svg("text", { class: "tick", x: x(at), y: height - 0.5 * pad.rem, "text-anchor": "middle" }, clock(at / 1000).slice(0, 5)),
        ),
      ),
    ];
  });
}

function historyWords(rows) {
  const end = rows[rows.length - 1];
  return `From ${clock(rows[0].time)} to ${clock(end.time)}; now ${micros(end.attention_us_default)} microseconds with default configs, at most ${micros(end.attention_us_tuned)} with published ones.`;
}

// An unknown value breaks the line: it is never drawn as if it were measured.
function path(rows, name, x, y) {
  let pen = "M";
  return rows
    .map((row) => {
      if (typeof row[name] !== "number") {
        pen = "M";
        return "";
      }
      const part = `${pen}${x(row.at).toFixed(1)} ${y(row[name]).toFixed(1)}`;
      pen = "L";
      return part;
    })
    .join("");
}

function area(rows, x, y) {
  const known = (row) => typeof row.attention_us_default === "number" && typeof row.attention_us_tuned === "number";
  const runs = [];
  rows.forEach((row, i) => {
    if (!known(row)) return;
    if (i === 0 || !known(rows[i - 1])) runs.push([]);
    runs[runs.length - 1].push(row);
  });
  const point = (row, name) => `${x(row.at).toFixed(1)},${y(row[name]).toFixed(1)}`;
  return runs.map((run) => {
    const there = run.map((row) => point(row, "attention_us_default"));
    const back = run.map((row) => point(row, "attention_us_tuned")).reverse();
    return svg("polygon", { class: "gain", points: [...there, ...back].join(" ") });
  });
}

function timeTicks(first, last, width) {
  const steps = [60, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400].map((s) => s * 1000);
  const raw = (last - first) / Math.max(2, width / 110);
  const step = steps.find((s) => s >= raw) ?? steps[steps.length - 1] * Math.ceil(raw / steps[steps.length - 1]);
  const result = [];
  for (let at = Math.ceil(first / step) * step; at <= last; at += step) result.push(at);
  return result.length ? result : [first];
}

