// Reads the data of the page from the API and its stream of events, with the token if one was entered. The tabs of a
// browser share one stream. If the stream fails, the page polls.

import { HISTORY_INTERVAL_MS, SILENCE_MAX_MS, apply, byEnding, known } from "./state.js";

/** The token, for as long as this tab is open. It is never stored. */
let token = "";

export const setToken = (text) => {
  // Only these characters are safe in a header. For a token with others, `?` is sent, which the process refuses.
  token = /^[\x20-\x7e]*$/.test(text) ? text : "?";
};

export const hasToken = () => token !== "";

/** An answer with a status of 400 or more. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Called after an answer whose reason may be that the process did not accept the token. */
let reportTokenDoubt = () => {};

export const onTokenDoubt = (listener) => {
  reportTokenDoubt = listener;
};

/** The path that is read to check the token: a read of this path needs the token even over loopback. */
const TOKEN_CHECK_PATH = "reload";

/** The statuses of answers if the token is missing or wrong (401), or if none is configured (403). */
const REFUSED = [401, 403];

/** These, and the status if the file of the token cannot be read (503). 403 and 503 may also have another reason. */
const DOUBTFUL = [...REFUSED, 503];

/** Whether the process refused the last read of this tab. Then the tab must take no events, even from another tab. */
let isRefused = false;

/**
 * The process closes a connection after 15 s if it is not a stream. The page needs this limit, too: a request may wait
 * in the browser before it is sent.
 */
const REQUEST_TIME_MAX_MS = 15_000;

async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const signal = options.signal ?? AbortSignal.timeout(REQUEST_TIME_MAX_MS);
  const response = await fetch(`/api/v1/${path}`, { ...options, headers, signal, cache: "no-store" });
  const isRead = !options.method;
  if (response.ok) {
    if (isRead) isRefused = false;
    return response;
  }
  const body = await response.json().catch(() => ({}));
  if (path !== TOKEN_CHECK_PATH) {
    if (token && DOUBTFUL.includes(response.status)) reportTokenDoubt();
    if (isRead && REFUSED.includes(response.status)) isRefused = true;
  }
  throw new ApiError(response.status, body.error ?? `status ${response.status}`);
}

export const get = async (path) => (await request(path)).json();

/** Checks the token, and forgets it if the process refuses it. Returns why it is not accepted, or null if it is. */
export async function checkToken() {
  const checked = token;
  try {
    await get(TOKEN_CHECK_PATH);
    return null;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (token !== checked) return null; // another one was entered meanwhile
    if (REFUSED.includes(error.status)) setToken("");
    return error.message;
  }
}

export async function send(method, path, body) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  return (await request(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) })).json();
}

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** In a browser without locks, how long a tab waits for events from another tab before it opens a stream itself. */
const ELECTION_MS = 500;

/** The page polls after this many failures of the stream in a row. */
const FAILURES_MAX = 3;

/** A stream that ends sooner than this counts as failed: over a slow connection, the process cuts every stream. */
const STREAM_MIN_MS = 20_000;

/** The page tries the stream again after this many polls. */
const POLLS_MAX = 5;

export async function readHistory() {
  known.history = byEnding(await get("history"));
  known.sampledAt = known.historyReadAt = Date.now();
}

/**
 * Follows the process for ever. Calls `report` with `live`, `polling`, `lost` or `token`. The second argument is the
 * reason: a text for `lost`, an `ApiError` for `token`. Calls `changed` when there is new data.
 */
export async function follow(report, changed) {
  const channel = "BroadcastChannel" in window ? new BroadcastChannel("acequia") : null;
  const readAgain = () => readHistory().catch(() => {}); // errors are reported below
  setInterval(() => document.hidden || readAgain(), HISTORY_INTERVAL_MS);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && Date.now() - known.historyReadAt > HISTORY_INTERVAL_MS) readAgain().then(changed);
  });
  known.heardAt = Date.now();
  // A timer reports silence, because a request may wait for long before it fails.
  setInterval(() => {
    if (Date.now() - known.heardAt > SILENCE_MAX_MS && !tokenWaiter) report("lost", `nothing has come for ${SILENCE_MAX_MS / 1000} s`);
  }, 1000);
  let [failures, polls] = [0, 0];
  for (;;) {
    // If the page polls and then tries the stream again, a failure of the stream is not reported: polls succeed.
    let isStreamRetry = false;
    try {
      known.endings = Object.fromEntries((await get("endings")).map((one) => [one.ending, one]));
      // While the page polls, the history is read only once a minute, because it is large.
      if (failures < FAILURES_MAX || !known.history) await readHistory();
      if (failures >= FAILURES_MAX && polls < POLLS_MAX) {
        polls += 1;
        apply("state", await get("state"));
        report("polling");
        changed();
        await sleep(2000);
        continue;
      }
      isStreamRetry = failures >= FAILURES_MAX;
      polls = 0;
      failures += 1; // set to 0 once the stream has lasted for `STREAM_MIN_MS`
      const began = Date.now();
      await followShared(channel, (name, data) => {
        // After a wrong token was entered in this tab, the stream goes on with the right one: changes come only once.
        apply(name, data);
        if (isRefused) return;
        if (Date.now() - began > STREAM_MIN_MS) failures = 0;
        report("live");
        changed();
      });
    } catch (error) {
      if (needsToken(error)) {
        report("token", error);
        await tokenEntered();
        continue;
      }
      if (!isStreamRetry) report("lost", error.message);
    }
    await sleep(1000);
  }
}

const needsToken = (error) => error instanceof ApiError && REFUSED.includes(error.status);

let tokenWaiter = null;

const tokenEntered = () => new Promise((resolve) => {
  tokenWaiter = () => {
    tokenWaiter = null;
    known.heardAt = Date.now();
    resolve();
  };
});

/** To be called when a token was entered: `follow` then goes on, if it waits for a token. */
export const endTokenWait = () => tokenWaiter?.();

/**
 * Reads the stream, or the events that another tab passes on, until they end. Tabs share a stream because a browser has
 * few connections to one host. To be called after a successful read: the process lets this tab read, so the tab may
 * take events even from a tab that has a token.
 */
async function followShared(channel, take) {
  if (!channel) return stream(take);
  // Locks exist in secure contexts only: on localhost, and over TLS.
  if (!navigator.locks) return followWithoutLocks(channel, take);
  return navigator.locks.request("acequia-events", { ifAvailable: true }, (lock) => (
    lock ? passOn(channel, take) : listen(channel, take, SILENCE_MAX_MS)
  ));
}

/** The reason for which a tab ends its stream when another tab has one. */
const GAVE_WAY = new Error("another tab has a stream");

/** Without locks, a tab opens a stream if no other tab passes events on. */
async function followWithoutLocks(channel, take) {
  if (await listen(channel, take, ELECTION_MS)) return;
  await passOn(channel, take, Math.random());
}

/** Reads the stream for all tabs. If two tabs read it, the one with the higher number ends its stream. */
async function passOn(channel, take, number = 0) {
  const abort = new AbortController();
  channel.onmessage = ({ data: message }) => {
    if (message === "state?" && known.state) channel.postMessage({ number, name: "state", data: known.state });
    else if (message.number < number) abort.abort(GAVE_WAY);
  };
  try {
    await stream((name, data) => {
      take(name, data);
      channel.postMessage({ number, name, data });
    }, abort);
  } catch (error) {
    if (abort.signal.reason !== GAVE_WAY) throw error;
  } finally {
    channel.onmessage = null;
  }
}

/**
 * Takes the events that another tab passes on, until that tab is silent. Waits `firstWaitMs` for the first event.
 * Returns whether there were any.
 */
async function listen(channel, take, firstWaitMs) {
  let heard = false;
  channel.onmessage = ({ data: message }) => {
    if (message === "state?" || isRefused) return;
    heard = true;
    take(message.name, message.data);
  };
  const began = Date.now();
  channel.postMessage("state?");
  const isSilent = () => (heard ? Date.now() - known.heardAt >= SILENCE_MAX_MS : Date.now() - began >= firstWaitMs);
  while (!isRefused && !isSilent()) await sleep(500);
  channel.onmessage = null;
  return heard;
}

/** Reads the stream of events until it ends (WHATWG HTML, section 9.2.6; each event here has one line of data). */
async function stream(take, abort = new AbortController()) {
  let streamHeardAt = Date.now(); // `known.heardAt` also changes with other data
  const watch = setInterval(() => {
    if (Date.now() - streamHeardAt > SILENCE_MAX_MS) abort.abort(new Error(`nothing has come for ${SILENCE_MAX_MS / 1000} s`));
  }, 1000);
  try {
    const response = await request("events", { signal: abort.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      // A part of an event counts, too: a large event takes long on a slow connection.
      streamHeardAt = known.heardAt = Date.now();
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
