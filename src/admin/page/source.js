// Where the page's data comes from: the API, with the token if one is entered, and its stream of events. Tabs of one
// browser share one stream. Without a stream the page polls.

import { apply, byEnding, known } from "./state.js";

/** The token, for as long as this tab is open. It is never stored. */
let token = "";

export const setToken = (text) => {
  token = text;
};

export const hasToken = () => token !== "";

/** An answer with a status of 400 or more. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(`/api/v1/${path}`, { ...options, headers, cache: "no-store" });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new ApiError(response.status, body.error ?? `status ${response.status}`);
}

export const get = async (path) => (await request(path)).json();

export async function send(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return (await request(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })).json();
}

export const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

/** How long nothing may come before a connection counts as lost. */
const SILENCE_MAX_MS = 5000;

/** After so many failures of the stream in a row the page polls. */
const FAILURES_MAX = 3;

/** After so many polls the page tries the stream again. */
const POLLS_MAX = 5;

/** How often the history is read again: samples do not tell what the last hour has lost, nor which pools are no longer in it. */
const HISTORY_INTERVAL_MS = 60_000;

async function readHistory() {
  known.history = byEnding(await get("history"));
}

/** Follows the process for ever. `report` is told `live`, `polling`, `lost` or `token` with a reason; `changed` that there is news. */
export async function follow(report, changed) {
  const channel = "BroadcastChannel" in window ? new BroadcastChannel("acequia") : null;
  setInterval(() => document.hidden || readHistory().catch(() => {}), HISTORY_INTERVAL_MS); // an error is told below
  let [failures, polls] = [0, 0];
  for (;;) {
    let isTrying = false;
    try {
      known.endings = Object.fromEntries((await get("endings")).map((one) => [one.ending, one]));
      // While it polls, the history is read every minute only: it is large.
      if (failures < FAILURES_MAX || !known.history) await readHistory();
      if (failures >= FAILURES_MAX && polls < POLLS_MAX) {
        polls += 1;
        apply("state", await get("state"));
        report("polling");
        changed();
        await pause(2000);
        continue;
      }
      [isTrying, polls] = [failures >= FAILURES_MAX, 0];
      failures += 1; // until it tells something
      await shared(channel, (name, data) => {
        failures = 0;
        apply(name, data);
        report("live");
        changed();
      });
    } catch (error) {
      if (error instanceof ApiError && (error.status === 401 || error.status === 403)) {
        report("token", error.message);
        await tokenEntered();
        continue;
      }
      if (!isTrying) report("lost", error.message);
    }
    await pause(1000);
  }
}

let tokenWaiter = null;

const tokenEntered = () => new Promise((resume) => {
  tokenWaiter = resume;
});

/** To be called when a token was entered. */
export const resume = () => tokenWaiter?.();

/** Reads the stream, or what the tab that reads it passes on. Returns when either ends. */
async function shared(channel, take) {
  // Locks exist in secure contexts only: on localhost, and over TLS. Where reading needs a token, each tab has its own stream:
  // what a token gives one tab is not for another without.
  if (!channel || !navigator.locks || token) return stream(take);
  return navigator.locks.request("acequia-events", { ifAvailable: true }, (lock) => {
    if (!lock) return listen(channel, take);
    channel.onmessage = ({ data }) => {
      if (data === "state?" && known.state) channel.postMessage(["state", known.state]);
    };
    return stream((name, data) => {
      take(name, data);
      channel.postMessage([name, data]);
    });
  });
}

/** Takes the events that another tab passes on, until it is silent. */
async function listen(channel, take) {
  channel.onmessage = ({ data }) => {
    if (Array.isArray(data)) take(...data);
  };
  known.heardAt = Date.now();
  channel.postMessage("state?");
  while (Date.now() - known.heardAt < SILENCE_MAX_MS) await pause(500);
}

/** Reads the stream of events until it ends (WHATWG HTML, section 9.2.6; each event here is one line of data). */
async function stream(take) {
  const abort = new AbortController();
  const response = await request("events", { signal: abort.signal });
  known.heardAt = Date.now();
  const watch = setInterval(() => {
    if (Date.now() - known.heardAt > SILENCE_MAX_MS) abort.abort();
  }, 1000);
  try {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      known.heardAt = Date.now(); // a part of a large event on a slow connection is a sign of life, too
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const [name, data] = event.split("\n", 2).map((line) => line.slice(line.indexOf(":") + 2));
        take(name, JSON.parse(data));
      }
    }
  } finally {
    clearInterval(watch);
    abort.abort();
  }
}
