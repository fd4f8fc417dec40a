// The data of the page: the state of the process, to which changes are applied, and the samples of the last 15 minutes.

import { clock, counted } from "./dom.js";

/** The number of samples that are kept; the process keeps as many. */
const SAMPLES_MAX = 900;

/** After this time without data, a connection counts as lost. */
export const SILENCE_MAX_MS = 5000;

export const known = {
  state: null,
  history: null,
  /** By ending: its description, and whether it is a failure. */
  endings: {},
  /** When data last came (by the stream, by a poll, or from another tab), or the wait for data began. */
  heardAt: 0,
  /** When the last sample came, or the history was last read. */
  sampledAt: 0,
  /** The time of the last sample of the stream, by the clock of the process. */
  sampleTime: 0,
  /** When the history was read as a whole. */
  historyReadAt: 0,
};

/**
 * How often the history is read again while the page is visible. Samples do not say which endings are more than an hour
 * old by now, nor which pools have left the history.
 */
export const HISTORY_INTERVAL_MS = 60_000;

/** Whether the history was read again in time. */
export const isHistoryCurrent = () => Date.now() - known.historyReadAt < 1.5 * HISTORY_INTERVAL_MS;

/** Replaces the lists of endings in a history by objects with the endings as keys. */
export function byEnding(history) {
  const span = (name) => Object.fromEntries(history.endings.map((one) => [one.ending, one[name]]));
  history.totals.endings = Object.fromEntries(history.totals.endings.map(({ ending, counts }) => [ending, counts]));
  history.endings = { minute: span("minute"), hour: span("hour"), start: span("start") };
  return history;
}

/** Applies an event of the stream. */
export function apply(name, data) {
  known.heardAt = Date.now();
  if (name === "sample") followClock(data.at);
  if (name === "state") known.state = data;
  else if (name === "changes" && known.state) applyChanges(known.state, data);
  else if (name === "sample" && known.history) applySample(known.history, data);
}

/**
 * A smaller difference between the clock of this machine and that of the process is ignored: it may be the time that a
 * sample needed to get here.
 */
const CLOCK_DIFFERENCE_MIN_MS = 5000;

function followClock(at) {
  const ahead = Date.now() - Date.parse(at);
  clock.ahead = Math.abs(ahead) < CLOCK_DIFFERENCE_MIN_MS ? 0 : ahead;
}

function applyChanges(state, changes) {
  const { uptime, draining, in_force_since, last_reload, unsaved, totals } = changes;
  Object.assign(state, { uptime, draining, in_force_since, last_reload, unsaved, totals });
  for (const key of ["guards", "remote", "announced", "absent"]) {
    if (changes[key]) state[key] = changes[key];
  }
  for (const listener of state.listeners) {
    if (Object.hasOwn(changes.listeners, listener.name)) listener.sessions = changes.listeners[listener.name];
    const counts = Object.hasOwn(changes.routes, listener.name) ? changes.routes[listener.name] : {};
    for (const route of listener.routes) {
      if (Object.hasOwn(counts, route.name)) [route.sessions, route.sessions_so_far] = counts[route.name];
    }
  }
  const pools = new Map(changes.pools.map((pool) => [pool.name, pool]));
  state.pools = state.pools.map((pool) => pools.get(pool.name) ?? pool);
  for (const pool of state.pools) {
    const servers = Object.hasOwn(changes.servers, pool.name) ? changes.servers[pool.name] : [];
    const changed = new Map(servers.map((server) => [server.name, server]));
    if (changed.size > 0) pool.servers = pool.servers.map((server) => changed.get(server.name) ?? server);
    if (!Object.hasOwn(changes.sessions, pool.name)) continue;
    const sessions = changes.sessions[pool.name];
    for (const server of pool.servers) {
      if (Object.hasOwn(sessions, server.name)) [server.sessions, server.sessions_so_far] = sessions[server.name];
    }
  }
}

/**
 * Adds a sample to the history. If it covers several seconds, its counts are spread over them, as the process does it.
 */
function applySample(history, sample) {
  const time = Date.parse(sample.at);
  const isSetBack = time < known.sampleTime; // the clock of the process was set back
  known.sampleTime = time;
  if (history.at && time <= Date.parse(history.at) && !isSetBack) return; // the history has it already
  history.at = sample.at;
  known.sampledAt = Date.now();
  for (const [ending, added] of Object.entries(sample.totals.endings)) {
    history.totals.endings[ending] ??= new Array(history.totals.sessions.length).fill(0);
    for (const span of ["hour", "start"]) history.endings[span][ending] = (history.endings[span][ending] ?? 0) + added;
  }
  const sessionsBefore = lastSessions(history.totals);
  const ofPools = Object.entries(sample.pools).map(([name, pool]) => {
    let past = history.pools.find((one) => one.name === name);
    if (!past) {
      past = { name, endings: {} }; // a sample has no endings of pools
      for (const key of Object.keys(pool)) past[key] = [];
      history.pools.push(past);
    }
    return [past, pool, lastSessions(past)];
  });
  for (let number = Math.max(1, sample.seconds - SAMPLES_MAX + 1); number <= sample.seconds; number += 1) {
    const second = { number, of: sample.seconds };
    const { endings, ...totals } = sample.totals;
    append(history.totals, totals, sessionsBefore, second);
    for (const [ending, list] of Object.entries(history.totals.endings)) {
      push(list, share(endings[ending] ?? 0, second));
      // The last minute moves on by a second.
      const { minute } = history.endings;
      minute[ending] = Math.max(0, (minute[ending] ?? 0) + list.at(-1) - (list.at(-61) ?? 0));
    }
    for (const [past, pool, poolSessionsBefore] of ofPools) append(past, pool, poolSessionsBefore, second);
  }
}

const lastSessions = (lists) => lists.sessions.at(-1) ?? 0;

/** The part of a count of several seconds (`of`) that belongs to the seconds up to this `number`. */
const until = (count, { number, of }) => Math.trunc(count * number / of);

/** The share of a second in a count of several. The shares together are the count. */
const share = (count, { number, of }) => until(count, { number, of }) - until(count, { number: number - 1, of });

/** Adds a second of a sample to lists. */
function append(lists, sample, sessionsBefore, second) {
  for (const [key, value] of Object.entries(sample)) {
    if (key === "sessions") push(lists[key], sessionsBefore + until(value - sessionsBefore, second));
    else if (key === "connect_p99_ms") push(lists[key], second.number === second.of ? value : null);
    else push(lists[key], share(value, second));
  }
}

function push(list, value) {
  list.push(value);
  if (list.length > SAMPLES_MAX) list.shift();
}

/** The greatest age of a sample that counts as current. While the page polls, samples come only once a minute. */
const SAMPLE_AGE_MAX_MS = 5000;

/** A p99 is shown for this many seconds after the last connect. */
const P99_SECONDS = 60;

/** The newest value other than null in the last minute of a list; undefined if there is none. */
export const newest = (values) => values.slice(-P99_SECONDS).findLast((value) => value !== null);

/** Whether the newest sample is current. */
export const isSampleCurrent = () => Date.now() - known.sampledAt < SAMPLE_AGE_MAX_MS;

/** The newest value of a list of the totals; null if it is not current. */
export const latest = (key) => (isSampleCurrent() ? known.history?.totals[key].at(-1) ?? 0 : null);

/**
 * The word, the sign and the kind of the state of a server, and since when it has been in that state, if known. The
 * kind decides the colour. The words are those of `acequia servers`, and `full`.
 */
export function serverState(server) {
  if (server.use === "disabled") return { word: "disabled", sign: "–", kind: "unknown", since: server.set_at };
  if (server.use === "draining") return { word: "draining", sign: "↓", kind: "warn", since: server.set_at };
  if (server.use === "awaiting failback") return { word: "awaiting failback", sign: "⏸", kind: "warn" };
  if (server.ejected) return { word: "ejected", sign: "⏏", kind: "bad" };
  const { since } = server;
  if (server.health === "down") return { word: "down", sign: "✕", kind: "bad", since };
  if (server.health === "wrong role") return { word: "wrong role", sign: "≠", kind: "unknown", since };
  if (server.health === "check refused") return { word: "check refused", sign: "!", kind: "warn", since };
  if (server.max_sessions && server.sessions >= server.max_sessions) return { word: "full", sign: "■", kind: "warn" };
  if (server.health === "unchecked") return { word: "unchecked", sign: "?", kind: "unknown", since };
  return { word: "up", sign: "✓", kind: "good", since };
}

export const SERVER_STATES = [
  "up", "down", "wrong role", "unchecked", "check refused", "ejected", "full", "draining", "awaiting failback", "disabled",
];

/** A rank: states with a lower rank need attention sooner. Different words have different ranks. */
export const urgencyRank = ({ word, kind }) => ["bad", "warn", "unknown", "good"].indexOf(kind) * 10 + SERVER_STATES.indexOf(word);

/** `2 of 3 servers up, 1 usable`. */
export function serverCounts(pool) {
  const up = pool.servers.filter((server) => server.up).length;
  const usable = pool.servers.filter((server) => server.usable).length;
  return `${up} of ${counted(pool.servers.length, "server")} up${usable === up ? "" : `, ${usable} usable`}`;
}

/**
 * Whether a server of the pool has a fault, has not been checked yet, or awaits failback. A wrong role is no fault, and
 * a server that is draining or disabled does not count.
 */
export const isDegraded = (pool) => pool.servers.some((server) => (
  server.use === "awaiting failback" || (server.use === "enabled" && (!server.up || server.ejected))
));

/** Where a server comes from. */
export function originOf(pool, server) {
  if (pool.scale?.clones.some((clone) => clone.name === server.name)) return "clone";
  if (pool.added.some((added) => added.name === server.name)) return "added";
  return pool.discovery ? "discovered" : "configured";
}

/** All servers, each with its pool. */
export function allServers() {
  return (known.state?.pools ?? []).flatMap((pool) => pool.servers.map((server) => ({ pool, server })));
}
