// What the page knows: the state of the process with its changes, and the samples of the last 15 minutes.

/** The number of samples that are kept, as by the process. */
const SAMPLES_MAX = 900;

export const known = {
  state: null,
  history: null,
  /** Words and descriptions of endings. */
  endings: {},
  /** When the last event came. */
  heardAt: 0,
  /** When the last sample came. */
  sampledAt: 0,
};

/** A history with objects by ending in place of lists. */
export function byEnding(history) {
  const span = (name) => Object.fromEntries(history.endings.map((one) => [one.ending, one[name]]));
  history.totals.endings = Object.fromEntries(history.totals.endings.map(({ ending, counts }) => [ending, counts]));
  history.endings = { minute: span("minute"), hour: span("hour"), start: span("start") };
  return history;
}

/** Applies an event of the stream. */
export function apply(name, data) {
  known.heardAt = Date.now();
  if (name === "state") known.state = data;
  else if (name === "changes" && known.state) applyChanges(known.state, data);
  else if (name === "sample" && known.history) applySample(known.history, data);
}

function applyChanges(state, changes) {
  const { uptime, draining, in_force_since, last_reload, unsaved, totals } = changes;
  Object.assign(state, { uptime, draining, in_force_since, last_reload, unsaved, totals });
  if (changes.guards) state.guards = changes.guards;
  if (changes.absent) state.absent = changes.absent;
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

function applySample(history, sample) {
  if (history.at && Date.parse(sample.at) <= Date.parse(history.at)) return;
  history.at = sample.at;
  known.sampledAt = Date.now();
  const { endings, ...totals } = sample.totals;
  const length = history.totals.sessions.length;
  append(history.totals, totals);
  for (const [ending, number] of Object.entries(endings)) {
    history.totals.endings[ending] ??= new Array(length).fill(0);
    for (const span of ["minute", "hour", "start"]) {
      history.endings[span][ending] = (history.endings[span][ending] ?? 0) + number;
    }
  }
  for (const [ending, list] of Object.entries(history.totals.endings)) {
    push(list, endings[ending] ?? 0);
    // The minute ends a sample later, too.
    const gone = list.at(-61) ?? 0;
    if (gone > 0) history.endings.minute[ending] = Math.max(0, (history.endings.minute[ending] ?? 0) - gone);
  }
  for (const [name, pool] of Object.entries(sample.pools)) {
    const past = history.pools.find((past) => past.name === name);
    if (past) append(past, pool);
    else history.pools.push({ name, endings: {}, ...Object.fromEntries(Object.entries(pool).map(([key, value]) => [key, [value]])) });
  }
}

function append(lists, sample) {
  for (const [key, value] of Object.entries(sample)) push(lists[key], value);
}

function push(list, value) {
  list.push(value);
  if (list.length > SAMPLES_MAX) list.shift();
}

/** There is a sample a second, but not while the page polls. */
const SAMPLE_AGE_MAX_MS = 5000;

/** Whether the newest sample is of now. */
export const isSampled = () => Date.now() - known.sampledAt < SAMPLE_AGE_MAX_MS;

/** The newest value of a list of the process; null if it is not of now. */
export const latest = (key) => (isSampled() ? known.history?.totals[key].at(-1) ?? 0 : null);

/** The word, the sign and the colour for the state of a server. The words are those of `acequia servers`, and `full`. */
export function serverState(server) {
  if (server.use === "disabled") return { word: "disabled", sign: "–", kind: "unknown" };
  if (server.use === "draining") return { word: "draining", sign: "↓", kind: "warn" };
  if (server.use === "awaiting failback") return { word: "awaiting failback", sign: "⏸", kind: "warn" };
  if (server.ejected) return { word: "ejected", sign: "⏏", kind: "bad" };
  if (server.health === "down") return { word: "down", sign: "✕", kind: "bad" };
  if (server.health === "wrong role") return { word: "wrong role", sign: "≠", kind: "unknown" };
  if (server.health === "check refused") return { word: "check refused", sign: "!", kind: "warn" };
  if (server.max_sessions && server.sessions >= server.max_sessions) return { word: "full", sign: "■", kind: "warn" };
  if (server.health === "unchecked") return { word: "unchecked", sign: "?", kind: "unknown" };
  return { word: "up", sign: "✓", kind: "good" };
}

export const SERVER_STATES = [
  "up", "down", "wrong role", "unchecked", "check refused", "ejected", "full", "draining", "awaiting failback", "disabled",
];

/** The lower, the sooner somebody should look at a server in this state; equal for the same word only. */
export const urgency = ({ word, kind }) => ["bad", "warn", "unknown", "good"].indexOf(kind) * 10 + SERVER_STATES.indexOf(word);

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
