// live.js: one overview after another, over SSE, with a state that never claims more than is known.

const RETRY_MS = [1000, 2000, 4000, 8000];
const QUIET_MS = 15000; // A tuner with nothing new may be silent: ask before calling it lost.
const FETCH_MS = 6000;

/** GET JSON from our own origin; throws an Error with a readable message. */
export async function getJson(path) {
  let response;
  try {
    response = await fetch(path, {
      headers: { accept: "application/json" },
      signal: AbortSignal.timeout(FETCH_MS),
    });
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "the tuner does not answer" : "the tuner cannot be reached");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Error(body?.error ?? `the tuner answers with status ${response.status}`);
  if (body === null) throw new Error("the tuner answers with something that is not JSON");
  return body;
}

/**
 * Keep calling onOverview(overview) and onState({kind, reason}).
 * kind: "connecting" before the first overview, "live", or "lost".
 */
export class Live {
  constructor({ onOverview, onState }) {
    this.onOverview = onOverview;
    this.onState = onState;
    this.failures = 0;
    this.lastHeard = 0;
    this.source = null;
    this.timer = null;
    setInterval(() => this.#watch(), 5000);
  }

  /** Connect now, dropping what is under way. */
  start() {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource("/v1/events");
    this.source = source;
    source.addEventListener("overview", (event) => {
      try {
        this.failures = 0;
        this.#heard(JSON.parse(event.data));
      } catch (error) {
        this.#lost(`an update could not be shown (${error.message})`);
        console.error(error);
      }
    });
    // EventSource gives no reason and stops for good on an HTTP error; a GET tells more.
    source.addEventListener("error", () => this.#probe(source));
  }

  #heard(overview) {
    this.lastHeard = Date.now();
    this.onOverview(overview);
    this.onState({ kind: "live" });
  }

  async #probe(source) {
    if (source !== this.source) return;
    source.close();
    try {
      const overview = await getJson("/v1/overview");
      if (source !== this.source) return;
      // The stream is refused or broke off, the tuner answers: each retry polls.
      this.#heard(overview);
      this.#retry();
    } catch (error) {
      if (source === this.source) this.#lost(error.message);
    }
  }

  #lost(reason) {
    this.source?.close();
    this.#retry();
    this.onState({ kind: "lost", reason });
  }

  #retry() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.start(), RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)]);
    this.failures += 1;
  }

  async #watch() {
    if (this.source?.readyState !== EventSource.OPEN) return;
    if (Date.now() - this.lastHeard < QUIET_MS) return;
    const source = this.source;
    try {
      const overview = await getJson("/v1/overview");
      if (source === this.source) this.#heard(overview);
    } catch (error) {
      if (source === this.source) this.#lost(error.message);
    }
  }
}
