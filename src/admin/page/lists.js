// The tables of servers, sessions and endings.

import { breakable, byId, bytes, count, counted, duration, element, now, show, since } from "./dom.js";
import { SERVER_STATES, allServers, isHistoryCurrent, isSampleCurrent, known, originOf, serverState, urgencyRank } from "./state.js";
import { get } from "./source.js";
import { killSession, mayWrite, showServer } from "./actions.js";
import { Table } from "./tables.js";

const badge = ({ word, sign, kind }) => element("span", { class: `badge ${kind}` }, `${sign} ${word}`);

const origin = ({ pool, server }) => originOf(pool, server);

/** How long a server has been in its state, in milliseconds; null if that is not known. */
function stateAge({ server }) {
  const { since } = serverState(server);
  return since ? now() - Date.parse(since) : null;
}

let servers;

export function setUpServers() {
  servers = new Table(byId("server-table"), byId("server-pages"), [
    {
      title: "Server",
      name: true,
      value: ({ pool, server }) => `${pool.name}/${server.name}`,
      cell: ({ pool, server }) => element(
        "button",
        { class: "plain", "data-key": `${pool.name}/${server.name}`, onclick: () => showServer(pool.name, server.name) },
        breakable(`${pool.name}/${server.name}`),
      ),
    },
    { title: "State", word: true, value: ({ server }) => urgencyRank(serverState(server)), cell: ({ server }) => badge(serverState(server)) },
    { title: "Address", word: true, value: ({ server }) => server.address },
    { title: "Origin", word: true, when: (row) => origin(row) !== "configured", value: origin },
    { title: "For", word: true, value: stateAge, cell: ({ server }) => (serverState(server).since ? since(serverState(server).since) : "–") },
    { title: "Sessions", number: true, value: ({ server }) => server.sessions, cell: ({ server }) => count(server.sessions) },
    { title: "So far", number: true, value: ({ server }) => server.sessions_so_far, cell: ({ server }) => count(server.sessions_so_far) },
    { title: "Weight", number: true, value: ({ server }) => server.weight },
    { title: "Priority", number: true, value: ({ server }) => server.priority },
    { title: "Last check", long: true, value: ({ server }) => server.reason ?? "", cell: ({ server }) => server.reason ?? "–" },
  ], { sort: "State" });
  show(byId("server-state"), element("option", { value: "" }, "any"), SERVER_STATES.map((word) => element("option", { value: word }, word)));
  for (const id of ["server-filter", "server-state"]) byId(id).addEventListener("input", showServers);
}

export function showServers() {
  const text = byId("server-filter").value.toLowerCase();
  const word = byId("server-state").value;
  const rows = allServers().filter(({ pool, server }) =>
    (text === "" || `${pool.name}/${server.name} ${server.address}`.toLowerCase().includes(text))
    && (word === "" || serverState(server).word === word));
  servers.update(rows);
}

/** The number of sessions that are read at once: the most that the API returns. */
const SESSIONS_READ = 1000;

const FILTERS = [
  ["listener", "Listener", ""], ["pool", "Pool", ""], ["server", "Server", ""], ["client", "Client", "192.0.2.7"],
  ["sni", "Server name", "shop.example.com"], ["database", "Database", ""], ["user", "User", ""], ["min_age", "Older than", "5m"], ["min_idle", "Idle for", "30s"],
  ["min_bytes", "Bytes, at least", "1000000"], ["min_rtt", "Round trip, at least", "50ms"],
];

/** Which sessions are read if there are too many to read them all: for each value of `sort` of the API. */
const READ_BY_SORT = { bytes: "the most bytes", rate: "the highest rates", idle: "the longest silence", rtt: "the longest round trips" };

let sessions;

/** The filters in use, as pairs of a name and a value: those with which the form was last submitted. */
let filters = [];

/** Whether more sessions match than can be read at once. Then `sort` of the API decides which ones are read. */
let isPart = false;

export function setUpSessions() {
  const rtt = (us) => (us === null ? "–" : duration(us / 1e6));
  sessions = new Table(byId("session-table"), byId("session-pages"), [
    { title: "Session", number: true, value: (session) => session.id },
    {
      title: "",
      word: true,
      when: mayWrite,
      value: () => 0,
      cell: (session) => element("button", { class: "danger", "data-key": `kill:${session.id}`, "aria-label": `End session ${session.id}`, onclick: () => killSession(session, readSessions) }, "End"),
    },
    { title: "Client", word: true, value: (session) => session.client },
    { title: "Server name", name: true, value: (session) => session.sni ?? "", cell: (session) => breakable(session.sni ?? "–") },
    { title: "Database", when: (session) => session.database !== null, value: (session) => session.database ?? "", cell: (session) => session.database ?? "–" },
    { title: "User", when: (session) => session.user !== null, value: (session) => session.user ?? "", cell: (session) => session.user ?? "–" },
    { title: "Listener", value: (session) => `${session.listener} ${session.route ?? ""}`, cell: (session) => [session.listener, session.route ? element("small", {}, ` ${session.route}`) : null] },
    { title: "Server", name: true, value: (session) => `${session.pool ?? ""}/${session.server ?? ""}`, cell: (session) => breakable(session.server ? `${session.pool}/${session.server}` : "–") },
    { title: "Age", number: true, value: (session) => session.age_ms, cell: (session) => duration(session.age_ms / 1000) },
    { title: "Idle", apiSort: "idle", number: true, value: (session) => session.idle_ms, cell: (session) => duration(session.idle_ms / 1000) },
    { title: "From client", apiSort: "bytes", number: true, value: (session) => session.bytes_up, cell: (session) => bytes(session.bytes_up) },
    { title: "From server", apiSort: "bytes", number: true, value: (session) => session.bytes_down, cell: (session) => bytes(session.bytes_down) },
    { title: "Rate", apiSort: "rate", number: true, value: (session) => session.rate_up + session.rate_down, cell: (session) => `${bytes(session.rate_up + session.rate_down)}/s` },
    {
      title: "Round trips",
      apiSort: "rtt",
      number: true,
      value: (session) => Math.max(session.client_rtt_us ?? -1, session.server_rtt_us ?? -1),
      cell: (session) => element("span", { title: "of the client, of the server" }, `${rtt(session.client_rtt_us)}, ${rtt(session.server_rtt_us)}`),
    },
  ], { sort: "From server", descending: true, onsort: () => isPart && readSessions() });
  const field = ([name, title, example]) => element("label", {}, title, element("input", { name, placeholder: example, spellcheck: "false" }));
  show(byId("session-form"), FILTERS.map(field), element("button", { type: "submit" }, "Show"));
  byId("session-form").addEventListener("submit", (event) => {
    event.preventDefault();
    filters = [...new FormData(event.target)].map(([name, value]) => [name, value.trim()]).filter(([, value]) => value !== "");
    readSessions();
  });
}

let readsOfSessions = 0;

/** Reads the sessions that match the filters, and shows them unless a later read has begun meanwhile. */
export async function readSessions() {
  const read = ++readsOfSessions;
  const query = new URLSearchParams([["limit", SESSIONS_READ], ...filters]);
  byId("session-filters").textContent = filters.length > 0 ? `Filters: ${filters.length} in use` : "Filters";
  // The API sorts by the highest values only.
  const apiSort = sessions.descending ? sessions.columns[sessions.sortIndex].apiSort : undefined;
  if (apiSort) query.set("sort", apiSort);
  try {
    const { total, sessions: rows } = await get(`sessions?${query}`);
    if (read !== readsOfSessions) return;
    isPart = total > rows.length;
    sessions.update(rows);
    const which = apiSort ? `those with ${READ_BY_SORT[apiSort]}` : "the oldest";
    const part = isPart ? `; below are ${which}, ${rows.length.toLocaleString("en")} of them` : "";
    byId("session-total").textContent = `${counted(total, "session")}${part}`;
  } catch (error) {
    if (read === readsOfSessions) byId("session-total").textContent = error.message;
  }
}

let endings;

export function setUpEndings() {
  const isKnown = { minute: isSampleCurrent, hour: isHistoryCurrent, start: () => true };
  const column = (title, span) => ({
    title,
    number: true,
    value: (ending) => known.history?.endings[span][ending] ?? 0,
    cell: (ending) => (!isKnown[span]() ? "–" : count(known.history?.endings[span][ending] ?? 0)),
  });
  endings = new Table(byId("ending-table"), byId("ending-pages"), [
    { title: "Ending", word: true, value: (ending) => ending, cell: (ending) => element("code", { title: known.endings[ending]?.description }, ending) },
    column("Last minute", "minute"),
    column("Last hour", "hour"),
    column("Since the start", "start"),
    { title: "Meaning", long: true, value: (ending) => known.endings[ending]?.description ?? "" },
  ], { sort: "Since the start", descending: true });
}

export function showEndings() {
  if (known.history) endings.update(Object.keys(known.history.endings.start));
}
