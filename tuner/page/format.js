// format.js: numbers and keys in words. null means unknown and reads "-".

export const DASH = "-";
const THIN = "\u202f";

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

export function count(value) {
  return known(value) ? value.toLocaleString("en-US") : DASH;
}

/** Microseconds with three significant digits or more: 8.21, 61.4, 1,240. */
export function micros(value) {
  if (!known(value)) return DASH;
  const digits = value < 10 ? 2 : value < 100 ? 1 : 0;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
}

/** A share in 0..1 as a percentage. */
export function percent(value, digits = 1) {
  return known(value) ? `${(value * 100).toFixed(digits)}${THIN}%` : DASH;
}

/** Confidence: 0.95 -> 95 %, 0.995 -> 99.5 %, and never rounded up to 100 %. */
export function confidence(value) {
  if (!known(value)) return DASH;
  if (value >= 0.9999 && value < 1) return `>${THIN}99.99${THIN}%`;
  return `${Number((Math.floor(value * 1e4) / 100).toFixed(2))}${THIN}%`;
}

export function speed(value, digits = 3) {
  return known(value) ? `${value.toFixed(digits)}×` : DASH;
}

export function bytes(value) {
  if (!known(value)) return DASH;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)}${THIN}${units[unit]}`;
}

/** A span of seconds in its largest fitting unit: 8 s, 4 min, 3 h, 12 d. */
export function span(seconds) {
  if (!known(seconds)) return DASH;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole}${THIN}s`;
  if (whole < 5400) return `${Math.round(whole / 60)}${THIN}min`;
  if (whole < 172800) return `${Math.round(whole / 3600)}${THIN}h`;
  return `${Math.round(whole / 86400)}${THIN}d`;
}

/** ISO text or Unix seconds -> Date, or null when it is neither. */
export function date(value) {
  if (!known(value)) return null;
  const parsed = typeof value === "number" ? new Date(value * 1000) : new Date(value);
  return Number.isNaN(parsed.getTime()) ? null : parsed;
}

export function clock(value) {
  const parsed = date(value);
  return parsed ? parsed.toLocaleTimeString("en-GB") : DASH;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

const SIDE = /^(?:p(\d+k?)@(\d+k?))?\+?(?:d(\d+k?)@(\d+k?))?$/;
const long = (text) => (text.endsWith("k") ? Number(text.slice(0, -1)) * 1024 : Number(text));

/** A bucket in words; every number is a power of two that stands for its neighbourhood. */
export function bucketWords(bucket) {
  const found = SIDE.exec(bucket);
  if (!found || bucket === "") return "No rows in the batch.";
  const [, tokens, context, decodes, decodeContext] = found;
  const prefill = tokens && `about ${count(long(tokens))} prompt tokens at mean context ${count(long(context))}`;
  const decode = decodes && `about ${plural(long(decodes), "decoding request")} at mean context ${count(long(decodeContext))}`;
  if (prefill && decode) return `Hybrid: ${prefill}, together with ${decode}.`;
  return prefill ? `Prefill only: ${prefill}.` : `Decode only: ${decode}.`;
}

const GEOMETRY = /^q(\d+)kv(\d+)d(\d+)-(\w+)-kv(\w+)-s(\d+)-w(-?\d+)-c([\d.]+)$/;

/** A geometry in words; text of another form is returned as it is. */
export function geometryWords(geometry) {
  const found = GEOMETRY.exec(geometry ?? "");
  if (!found) return geometry ?? DASH;
  const [, hq, hkv, dim, dtype, kv, page, window, cap] = found;
  const parts = [`${hq} query heads`, `${hkv} KV heads`, `head dim ${dim}`];
  parts.push(dtype === kv ? dtype : `${dtype} with ${kv} KV`, `page ${page}`);
  if (window !== "-1") parts.push(`window ${window}`);
  if (Number(cap) !== 0) parts.push(`logit cap ${cap}`);
  return parts.join(", ");
}
