// The picture: listeners, routes, pools and servers, with lines as thick as their share of the sessions.

import { byId, count, counted, element, show } from "./dom.js";
import { allServers, isDegraded, known, serverCounts, serverState } from "./state.js";
import { showListener, showPool, showServer } from "./actions.js";

/**
 * The most boxes in a column, on a wide screen and on a narrow one. (On a narrow screen, the columns are one below the
 * other.) If there are more, those that need attention or have the most sessions are shown, and the others are counted.
 */
const [BOXES_MAX, NARROW_BOXES_MAX] = [16, 5];

const isNarrow = matchMedia("(max-width: 52rem)");

const boxesMax = () => (isNarrow.matches ? NARROW_BOXES_MAX : BOXES_MAX);

/** What the names must contain, in lower case. */
let wanted = "";

const isWanted = (...names) => names.some((name) => name.toLowerCase().includes(wanted));

export function setUpFlow() {
  byId("flow-filter").addEventListener("input", (event) => {
    wanted = event.target.value.trim().toLowerCase();
    showFlow();
  });
}

/** The key of the box for clients that no route takes. No route has this name: names have no spaces. */
const REST = " rest";

/** The name of the pool whose servers alone are shown; null: the servers of all pools are shown. */
let selected = null;

/** `1 session`, `2 of 10 sessions`. */
const sessionCount = (number, limit) => (limit ? `${count(number)} of ${count(limit)} sessions` : counted(number, "session"));

/** The open sessions of a pool. Servers at the same address are one server: each has the sessions of all of them. */
function sessionsOf(pool) {
  const byAddress = new Map(pool.servers.map((server) => [server.address, server.sessions]));
  return [...byAddress.values()].reduce((sum, sessions) => sum + sessions, 0);
}

export function showFlow() {
  const { state } = known;
  if (!state) return;
  if (selected && !state.pools.some((pool) => pool.name === selected)) selected = null;
  const links = [];
  const columns = [listeners(state), routes(state, links), pools(state), servers(links)];
  byId("flow-name").hidden = wanted === "" && columns.every(({ more }) => more === 0);
  const chart = byId("flow-chart");
  show(
    chart,
    chart.querySelector("svg") ?? element("svg:svg", { "aria-hidden": "true" }),
    columns.map(({ title, boxes, more }) => {
      const note = more > 0 ? `and ${count(more)} more` : boxes.length === 0 ? "none" : null;
      const noteItem = note && element("li", { class: "hint" }, note);
      return element("div", {}, element("h3", {}, title), element("ul", {}, boxes, noteItem));
    }),
  );
  draw(chart, links, Math.max(1, state.totals.sessions));
}

/** A box of a column. `pressed` is undefined if the box is not a toggle button. */
function box(id, kind, title, notes, onclick, pressed) {
  const button = element(
    "button",
    { class: `node ${kind}`, id, "data-key": id, onclick, "aria-pressed": pressed === undefined ? null : String(pressed) },
    element("strong", {}, title),
    notes.filter(Boolean).map((note) => (note instanceof Element ? note : element("small", {}, note))),
  );
  return element("li", { "data-key": `box:${id}` }, button);
}

function listeners(state) {
  const isFull = (listener) => listener.max_connections > 0 && listener.sessions >= listener.max_connections;
  const all = state.listeners.filter(({ name }) => isWanted(name));
  const chosen = all.length > boxesMax()
    ? all.toSorted((a, b) => isFull(b) - isFull(a) || b.sessions - a.sessions).slice(0, boxesMax())
    : all;
  const boxes = chosen.map((listener) => {
    const full = isFull(listener);
    return box(
      `l:${listener.name}`,
      full ? "is-warn" : "",
      listener.name,
      [listener.addresses.join(" "), `${sessionCount(listener.sessions, listener.max_connections)}${full ? ", full" : ""}`],
      () => showListener(listener.name),
    );
  });
  return { title: "Listeners", boxes, more: all.length - boxes.length };
}

function routes(state, links) {
  let all = [];
  let more = 0;
  for (const listener of state.listeners) {
    const entries = listener.routes.map((route) => ({
      ...route,
      listener,
      key: route.name,
      notes: [conditions(route), route.tls === "terminate" ? "TLS ends here" : null, route.pool ? narrow(`to ${route.pool}`) : "refused", routeCount(route)],
    }));
    const sessions = Math.max(0, listener.sessions - listener.routes.reduce((sum, route) => sum + route.sessions, 0));
    const rest = { listener, sessions, notes: [`of ${listener.name}`, listener.pool ? narrow(`to ${listener.pool}`) : null, sessionCount(sessions)] };
    if (listener.pool) all.push({ ...rest, name: entries.length > 0 ? "any other client" : "any client", key: REST, pool: listener.pool });
    if (listener.redirect) all.push({ ...rest, name: `redirect to ${listener.redirect}`, key: " redirect" });
    all.push(...entries);
    more += listener.more_routes; // counted even if a filter is set: their names are not known here
  }
  all = all.filter(({ listener, name, pool }) => isWanted(listener.name, name, pool ?? ""));
  const order = new Map(state.listeners.map((listener, at) => [listener, at]));
  const chosen = all.length > boxesMax() ? all.toSorted((a, b) => b.sessions - a.sessions).slice(0, boxesMax()) : all;
  // By listener. Among the boxes of a listener, the one for clients that no route takes comes last.
  chosen.sort((a, b) => order.get(a.listener) - order.get(b.listener) || (a.key === REST) - (b.key === REST));
  const boxes = chosen.map(({ listener, key, name, notes, sessions, pool }) => {
    const id = `r:${listener.name}:${key}`;
    links.push([`l:${listener.name}`, id, sessions]);
    if (pool) links.push([id, `p:${pool}`, sessions]);
    return box(id, "", name, notes, () => showListener(listener.name));
  });
  return { title: "Routes", boxes, more: more + all.length - boxes.length };
}

/** A note for narrow screens, where there are no lines. */
const narrow = (text) => element("small", { class: "narrow" }, text);

const routeCount = (route) => `${sessionCount(route.sessions)}, ${count(route.sessions_so_far)} so far`;

function conditions(route) {
  const parts = ["sni", "alpn", "from", "database", "user"].flatMap((key) => route[key] ?? []);
  const shown = parts.slice(0, 3).join(", ");
  const more = parts.length - 3 + route.more;
  return more > 0 ? `${shown} and ${more} more` : shown;
}

function pools(state) {
  const rank = (pool) => (!pool.usable ? 0 : isDegraded(pool) ? 1 : 2);
  const all = state.pools.filter(({ name }) => isWanted(name)).map((pool) => ({ pool, sessions: sessionsOf(pool) }));
  const chosen = all.length > boxesMax()
    ? all.toSorted((a, b) => rank(a.pool) - rank(b.pool) || b.sessions - a.sessions).slice(0, boxesMax())
    : all;
  const boxes = chosen.map(({ pool, sessions }) => {
    const kind = !pool.usable ? "is-bad" : isDegraded(pool) ? "is-warn" : "is-good";
    const notes = [
      serverCounts(pool),
      sessionCount(sessions),
      pool.queue?.waiting > 0 ? `${counted(pool.queue.waiting, "client")} waiting` : null,
      pool.scale ? clones(pool.scale) : null,
      pool.served_by ? `served by ${pool.served_by}` : null,
      pool.primary ? `primary: ${pool.primary}` : null,
    ];
    const isSelected = selected === pool.name;
    return box(`p:${pool.name}`, `${kind} ${isSelected ? "selected" : ""}`, pool.name, notes, () => {
      selected = isSelected ? null : pool.name;
      showFlow();
      if (selected) showPool(pool.name);
    }, isSelected);
  });
  return { title: "Pools", boxes, more: all.length - boxes.length };
}

/** `3 clones of at most 8: 1 starting, 1 draining`. */
function clones({ clones: all, max }) {
  const others = ["starting", "waiting", "draining", "stopping"].map((word) => [all.filter(({ state }) => state === word).length, word]);
  const shown = others.filter(([number]) => number > 0).map(([number, word]) => `${count(number)} ${word}`);
  return `${counted(all.length, "clone")} of at most ${count(max)}${shown.length > 0 ? `: ${shown.join(", ")}` : ""}`;
}

function servers(links) {
  const all = allServers().filter(({ pool, server }) => (selected === null || pool.name === selected) && isWanted(pool.name, server.name));
  const rank = ({ server }) => ({ bad: 0, warn: 1 })[serverState(server).kind] ?? 2;
  const shown = all.length > boxesMax()
    ? all.toSorted((a, b) => rank(a) - rank(b) || b.server.sessions - a.server.sessions).slice(0, boxesMax())
    : all;
  // If only some servers are shown, those of a pool need not be next to each other.
  const ofPool = (pool) => (all.length > shown.length ? element("small", {}, `of ${pool.name}`) : narrow(`of ${pool.name}`));
  const boxes = shown.map(({ pool, server }) => {
    const { word, sign, kind } = serverState(server);
    const id = `s:${pool.name}/${server.name}`;
    links.push([`p:${pool.name}`, id, server.sessions]);
    const notes = [element("small", { class: `state ${kind}` }, `${sign} ${word}`), ofPool(pool), sessionCount(server.sessions, server.max_sessions)];
    return box(id, `is-${kind}`, server.name, notes, () => showServer(pool.name, server.name));
  });
  return { title: selected ? `Servers of ${selected}` : "Servers", boxes, more: all.length - boxes.length };
}

function draw(chart, links, totalSessions) {
  const svg = chart.querySelector("svg");
  const area = chart.getBoundingClientRect();
  const at = (id) => document.getElementById(id)?.getBoundingClientRect();
  const lines = links.flatMap(([from, to, sessions]) => {
    const [a, b] = [at(from), at(to)];
    if (!a || !b || a.right >= b.left) return [];
    const [x1, y1, x2, y2] = [a.right - area.left, (a.top + a.bottom) / 2 - area.top, b.left - area.left, (b.top + b.bottom) / 2 - area.top];
    const middle = (x1 + x2) / 2;
    const width = 1 + 11 * Math.min(1, sessions / totalSessions);
    return [element("svg:path", { d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, "stroke-width": width.toFixed(1), class: sessions > 0 ? "busy" : null })];
  });
  show(svg, lines);
}
