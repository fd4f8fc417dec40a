// The details of a listener, pool or server, and the actions on it. A dialog says what an action will do before it is
// sent, and then shows the answer of the API.

import { byId, bytes, count, counted, duration, element, facts, localTime, openDialog, show, since } from "./dom.js";
import { known, newest, originOf, serverCounts, serverState } from "./state.js";
import { ApiError, get, hasToken, readHistory, send } from "./source.js";

const detail = () => byId("detail");

/** Whether this page may change anything: the process has a token configured, and one was entered here. */
let canWrite = false;

export const mayWrite = () => canWrite;

export const setCanWrite = (can) => {
  canWrite = can;
};

/** How often the details are read again while they are shown. */
const DETAIL_INTERVAL_MS = 2000;

/** Reads the title and the content of the details that are shown. */
let readDetail = null;

let detailReadAt = 0;

/** Shows the title and the content that `read` returns, until the dialog is closed. */
async function openDetail(read) {
  readDetail = read;
  const found = await fetchDetail();
  if (readDetail !== read) return; // others were opened meanwhile
  detail().replaceChildren();
  fillDetail(found ?? ["Details", problem("The process does not answer.")]);
  openDialog(detail());
}

/** Reads open details again, if it is time. */
export async function refreshDetail() {
  if (!detail().open || Date.now() - detailReadAt < DETAIL_INTERVAL_MS) return;
  const read = readDetail;
  const found = await fetchDetail();
  if (found && readDetail === read && detail().open) fillDetail(found);
}

/** Calls `readDetail`, and returns the title and the content; null if the process does not answer. */
async function fetchDetail() {
  detailReadAt = Infinity; // until this read is done, `refreshDetail` does not start another
  const found = await readDetail().catch((error) => (error instanceof ApiError ? ["Details", problem(error.message)] : null));
  detailReadAt = Date.now();
  return found;
}

const problem = (text) => element("p", { class: "notice bad" }, text);

function fillDetail([title, ...content]) {
  const close = element("button", { onclick: () => detail().close(), "data-key": "close" }, "Close");
  const hadFocus = detail().contains(document.activeElement);
  show(detail(), element("h2", { id: "detail-title" }, title), ...content, element("p", { class: "actions" }, close));
  // The control with the focus may be gone: a draining server has no `Drain` button.
  if (hadFocus && !detail().contains(document.activeElement)) detail().querySelector('[data-key="close"]').focus();
}

export const showListener = (name) => openDetail(async () => {
  const listener = known.state.listeners.find((listener) => listener.name === name);
  if (!listener) return [`Listener ${name}`, problem("There is no such listener any more.")];
  const { tls } = listener;
  return [
    `Listener ${name}`,
    facts([
      ["Addresses", listener.addresses.join(" ")],
      ["Sessions", `${count(listener.sessions)}${listener.max_connections ? ` of at most ${count(listener.max_connections)}` : ""}`],
      ["Guards", listener.guards.join(", ")],
      ["Clients that no route takes", listener.redirect ? `are redirected to ${listener.redirect}` : listener.pool ? `go to ${listener.pool}` : "are refused"],
      ["Certificates", tls ? `${tls.certificates}, the first to expire: ${tls.expires_first ?? "–"} at ${localTime(tls.expires)}` : null],
    ]),
    guardsOf(listener),
  ];
});

function guardsOf(listener) {
  const asked = new Set([...listener.guards, ...listener.routes.flatMap((route) => route.guards)]);
  const guards = known.state.guards.filter((guard) => asked.has(guard.name));
  return guards.map((guard) => {
    const refused = Object.entries(guard.report_only ? guard.reports : guard.refusals).filter(([, number]) => number > 0);
    const list = refused.map(([reason, number]) => `${reason} ${count(number)}`).join(", ") || "none";
    const deny = element("button", { onclick: () => denyNetwork(guard.name), disabled: !canWrite, "data-key": `deny:${guard.name}` }, `Deny a network in ${guard.name}`);
    return [
      element("h3", {}, `Guard ${guard.name}`),
      facts([["Sessions", count(guard.sessions)], [guard.report_only ? "Reported" : "Refused", list], ["Denied by edits", count(guard.edits)]]),
      element("p", { class: "actions" }, deny),
    ];
  });
}

/** The stream brings no endings of pools. So the details of a pool read the history again if it is older than this. */
const HISTORY_AGE_MAX_MS = 10_000;

export const showPool = (name) => openDetail(async () => {
  const pool = known.state.pools.find((pool) => pool.name === name);
  if (!pool) return [`Pool ${name}`, problem("There is no such pool any more.")];
  if (Date.now() - known.historyReadAt > HISTORY_AGE_MAX_MS) await readHistory().catch(() => {}); // if it fails, the old history is shown
  const past = known.history?.pools.find((one) => one.name === name);
  const p99 = (past && newest(past.connect_p99_ms)) ?? null;
  return [
    `Pool ${name}`,
    facts([
      ["Balanced by", pool.balance],
      ["Servers", serverCounts(pool)],
      ["Priority in use", pool.best_tier === null ? "none: no server is up and usable" : String(pool.best_tier)],
      ["Primary", pool.primary],
      ["Primaries", pool.primaries.length > 1 ? pool.primaries.join(", ") : null],
      ["Queue", pool.queue ? queueOf(pool.queue) : null],
      ["Not resolved yet", pool.unresolved.join(", ")],
      ["Fallback", pool.fallback],
      ["Served by", pool.served_by],
      ["Connect p99", p99 === null ? null : duration(p99 / 1000)],
      ["Discovered by", pool.discovery ? `${pool.discovery.source}${pool.discovery.error ? `: ${pool.discovery.error}` : ""}` : null],
      ["Clones", pool.scale ? boundsOf(pool.scale) : null],
      ["New sessions", past ? `${count(past.opened.at(-1) ?? 0)}/s` : null],
      ["Bytes", past ? `${bytes(past.bytes_up.at(-1) ?? 0)}/s from clients, ${bytes(past.bytes_down.at(-1) ?? 0)}/s from servers` : null],
      ["Sessions ended", past ? endingsOf(past.endings) : null],
    ]),
    pool.scale?.clones.length > 0 ? [element("h3", {}, "Clones"), facts(pool.scale.clones.map((clone) => [clone.name, cloneState(clone)]))] : null,
    pool.added.length > 0 ? [element("h3", {}, "Added servers"), facts(pool.added.map((added) => [added.name, addition(added)]))] : null,
  ];
});

function boundsOf({ clones, min, max, wanted, set_by }) {
  return `${count(clones.length)} of ${min} to ${max}${wanted === null ? "" : `, ${wanted} wanted by ${set_by}`}`;
}

function cloneState(clone) {
  const place = [clone.address ? `at ${clone.address}` : null, clone.pid ? `process ${clone.pid}` : null, clone.container];
  const restarts = clone.restarts > 0 ? `started again ${counted(clone.restarts, "time")}, the last time because of: ${clone.reason}` : null;
  return [`${clone.state} for ${since(clone.since)}`, ...place, restarts].filter(Boolean).join(", ");
}

const addition = (added) => `by ${added.added_by}, ${since(added.added_at)} ago${added.until ? `, until ${localTime(added.until)}` : ""}`;

/** Where a server comes from. */
function originText(poolName, server) {
  const pool = known.state.pools.find((pool) => pool.name === poolName);
  const named = ({ name }) => name === server.name;
  switch (pool && originOf(pool, server)) {
    case "clone": return `clone, ${cloneState(pool.scale.clones.find(named))}`;
    case "added": return `added ${addition(pool.added.find(named))}`;
    case "discovered": return `discovered by ${pool.discovery.source}`;
    default: return "the configuration";
  }
}

/** Counts by ending since the start, the most frequent first. */
function endingsOf(endings) {
  const counts = Object.entries(endings).toSorted(([, a], [, b]) => b - a);
  return counts.map(([ending, number]) => `${ending} ${count(number)}`).join(", ") || "none";
}

function queueOf({ waiting, max, timeout }) {
  const hasNoQueue = max === null; // a clone is being started, or a reload has switched the queue off meanwhile
  const most = hasNoQueue ? ", although the pool has no queue" : ` of at most ${count(max)}`;
  return `${counted(waiting, "client")}${most}${timeout ? `, each for at most ${timeout}` : ""}`;
}

export const showServer = (poolName, name) => openDetail(async () => {
  const label = `${poolName}/${name}`;
  const path = `${encodeURIComponent(poolName)}/${encodeURIComponent(name)}`;
  const server = await get(`servers/${path}`);
  const { word, sign, since: inStateSince } = serverState(server);
  const goOn = server.sessions > 0 ? ` Its open sessions (${count(server.sessions)}) go on until they end.` : "";
  const actionButton = (title, what, body, properties = {}) => {
    const onclick = () => ask(title, what, () => send("POST", `servers/${path}`, body));
    return element("button", { disabled: !canWrite, onclick, "data-key": `act:${title}`, ...properties }, title);
  };
  return [
    `Server ${label}`,
    facts([
      ["State", `${sign} ${word}${inStateSince ? `, for ${since(inStateSince)}` : ""}`],
      ["Last check", server.reason],
      ["Address", server.address],
      ["Origin", originText(poolName, server)],
      ["Sessions", `${count(server.sessions)}${server.max_sessions ? ` of at most ${count(server.max_sessions)}` : ""}, ${count(server.sessions_so_far)} so far`],
      ["Weight", `${server.weight}${server.weight_is_set ? " (set by an operator)" : ""}`],
      ["Priority", String(server.priority)],
      ["Connects", server.connect_p50_ms === null ? null : `half within ${duration(server.connect_p50_ms / 1000)}, 99 % within ${duration(server.connect_p99_ms / 1000)}`],
      ["Failed connects", Object.entries(server.connect_failures).map(([reason, number]) => `${reason} ${count(number)}`).join(", ") || "none"],
      ["Use", server.use],
      ["Set by", server.set_by ? `${server.set_by}, ${since(server.set_at)} ago` : null],
    ]),
    element("p", { class: "actions" },
      server.use === "enabled" ? null : actionButton("Enable", `${label} gets new sessions again.`, { use: "enabled" }),
      server.use === "draining" ? null : actionButton("Drain", `${label} gets no new sessions.${goOn}`, { use: "draining" }),
      server.use === "disabled" ? null : actionButton("Disable", `${label} gets no new sessions and is no longer checked.${goOn}`, { use: "disabled" }),
      actionButton(
        "Drain and cut",
        `${label} gets no new sessions, and its open sessions (${count(server.sessions)}) are cut over 10 s.`,
        { use: "draining", close_over: "10s" },
        { class: "danger", disabled: !canWrite || server.sessions === 0 },
      ),
      weightForm(label, server, path),
      server.weight_is_set ? actionButton("Use the configured weight", `The weight of ${label} is that of the configuration again.`, { weight: null }) : null),
    canWrite ? null : element("p", { class: "hint" }, writeHint()),
  ];
});

const writeHint = () => byId("access").textContent;

function weightForm(label, server, path) {
  const input = element("input", { type: "number", min: 0, max: 256, required: true, value: server.weight, "aria-label": "Weight", disabled: !canWrite });
  const set = () => {
    const entered = detail().querySelector("input"); // `show` may have kept an earlier one instead of `input`
    if (!entered.reportValidity()) return;
    const weight = Number(entered.value);
    ask("Set weight", `${label} gets weight ${weight} instead of ${server.weight}.`, () => send("POST", `servers/${path}`, { weight }));
  };
  return [input, element("button", { disabled: !canWrite, onclick: set, "data-key": "act:weight" }, "Set weight")];
}

/** `ended` is called when the session has ended. */
export const killSession = (session, ended) => ask(
  `End session ${session.id}`,
  `The session of ${session.client}, open for ${duration(session.age_ms / 1000)}, is reset on both sides.`,
  async () => {
    const done = await send("DELETE", `sessions/${session.id}`);
    ended();
    return done;
  },
);

export const reloadConfiguration = () => ask(
  "Reload the configuration",
  "The file is read and checked. If it can be used, it is put in force; sessions go on, unless the new configuration has them cut. If it cannot be used, the configuration in force stays.",
  () => send("POST", "reload"),
);

function denyNetwork(guard) {
  const network = element("input", { placeholder: "198.51.100.0/24", "aria-label": "Network", spellcheck: "false" });
  const time = element("input", { placeholder: "10m", "aria-label": "For how long", spellcheck: "false" });
  ask(
    `Deny a network in ${guard}`,
    "New sessions from the network are refused for the time entered here, or until `acequia guard undo` ends the denial. A guard that only reports refuses none. Open sessions go on.",
    () => send("POST", `guards/${encodeURIComponent(guard)}/deny`, { network: network.value.trim(), ...(time.value.trim() ? { for: time.value.trim() } : {}) }),
    element("p", { class: "filters" }, element("label", {}, "Network", network), element("label", {}, "For how long", time)),
  );
}

/** Asks for confirmation, then calls `act` and shows its result. */
function ask(title, what, act, ...fields) {
  const dialog = byId("question");
  const answer = element("p", { role: "status" });
  const go = element("button", { class: "danger", onclick: async () => {
    go.disabled = true;
    cancel.textContent = "Close"; // the request cannot be cancelled
    answer.textContent = "…";
    try {
      const done = await act();
      show(answer, element("strong", {}, "Done. "), element("code", {}, summary(done)));
      go.remove();
    } catch (error) {
      if (!(error instanceof ApiError)) {
        show(answer, element("strong", {}, "No answer: "), `it may have been done, or not (${error.message}).`);
        return;
      }
      const hint = error.status === 401 && !hasToken() ? " Enter the token above." : "";
      show(answer, element("strong", {}, "Not done. "), element("span", { class: "mono" }, error.message + hint));
      go.disabled = false;
      cancel.textContent = "Cancel";
    }
  } }, title);
  const cancel = element("button", { onclick: () => dialog.close() }, "Cancel");
  dialog.replaceChildren(); // otherwise `show` might keep earlier elements instead of those that the functions here use
  show(dialog, element("h2", { id: "question-title" }, title), element("p", {}, what), ...fields, element("p", { class: "actions" }, go, cancel), answer);
  if (detail().open) detail().close();
  openDialog(dialog);
}

/** The answer of the API, shortened. */
function summary(done) {
  const text = JSON.stringify(done);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
