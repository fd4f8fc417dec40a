// The tiles with the main numbers, and the notices about problems.

import { byId, bytes, count, counted, duration, element, localTime, now, show, since } from "./dom.js";
import { hasToken } from "./source.js";
import { SILENCE_MAX_MS, isDegraded, known, latest, newest } from "./state.js";

/** The most unresolved names that a notice lists. */
const NAMES_SHOWN = 10;

/** The most notices that are shown, the worst first. */
const NOTICES_SHOWN = 12;

export function showOverview() {
  const { state } = known;
  if (!state) return;
  byId("version").textContent = state.version;
  const { totals } = state;
  document.title = `${state.remote?.instance ?? location.host}: acequia`;
  const p99 = known.history && newest(known.history.totals.connect_p99_ms);
  const reload = state.last_reload;
  const tile = (term, value, note, kind = "") =>
    element("div", { class: kind && `is-${kind}` }, element("dt", {}, term), element("dd", {}, value, note ? element("small", {}, note) : null));
  show(
    byId("tiles"),
    tile("Sessions now", count(totals.sessions), `${count(totals.sessions_so_far)} so far`),
    tile("New sessions", rate("opened", count)),
    tile("From clients", rate("bytes_up", bytes)),
    tile("From servers", rate("bytes_down", bytes)),
    tile("Servers up", [count(totals.servers_up), element("span", {}, ` of ${count(totals.servers)}`)], usableNote(totals), state.pools.some(isDegraded) ? "warn" : ""),
    tile("Connect p99", typeof p99 !== "number" ? "–" : duration(p99 / 1000)),
    tile("Up for", since(state.started), `since ${localTime(state.started)}`),
    tile("Config in force", since(state.in_force_since), reloadNote(reload), reload && !reload.done ? "bad" : ""),
  );
  show(byId("notices"), notices(state));
}

const usableNote = ({ servers_up, servers_usable }) => (servers_usable === servers_up ? null : `${count(servers_usable)} usable`);

function rate(key, format) {
  const value = latest(key);
  return value === null ? "–" : `${format(value)}/s`;
}

function reloadNote(reload) {
  if (!reload) return "since the start";
  return reload.done ? `✓ reloaded by ${reload.by}` : `✕ reload failed ${since(reload.at)} ago`;
}

/** The notices. They contain no durations that grow every second: a screen reader would read each change. */
function notices(state) {
  const notice = (kind, title, text) => element("p", { class: `notice ${kind}` }, element("strong", {}, title), ` ${text}`);
  const list = [];
  const silence = Date.now() - known.heardAt;
  if (silence > SILENCE_MAX_MS) list.push(notice("bad", "Connection lost.", `What is shown here is of ${localTime(known.heardAt)}.`));
  if (state.draining) list.push(notice("warn", "Draining.", "New sessions are accepted only until `drain_delay` is over; the process ends when all sessions are over."));
  if (state.last_reload && !state.last_reload.done) list.push(failedReload(state.last_reload));
  if (state.remote) list.push(...storeProblems(state.remote).map(([title, text]) => notice("warn", title, text)));
  for (const reason of state.unsaved) list.push(notice("warn", "Not saved, and lost at a restart:", `${reason}.`));
  for (const pool of state.pools) {
    if (!pool.usable) {
      const instead = pool.served_by ? `new sessions go to ${pool.served_by}` : "new sessions end with an error, unless they may wait in the queue";
      list.push(notice("bad", `Pool ${pool.name} has no usable server:`, `${instead}.`));
    }
    if (pool.panic) list.push(notice("warn", `Pool ${pool.name} is in panic:`, "so few servers are healthy that all are used."));
    if (pool.primaries.length > 1) {
      list.push(notice("bad", `Pool ${pool.name} has ${pool.primaries.length} primaries:`, `${pool.primaries.join(", ")}.`));
    }
    if (pool.discovery?.error) {
      const servers = pool.servers.length === 0 ? "has no servers yet" : "keeps its last servers";
      list.push(notice("warn", `Pool ${pool.name} ${servers}, because of ${pool.discovery.source}:`, pool.discovery.error));
    }
    for (const { name, listener } of pool.left_out) {
      list.push(notice("warn", `${pool.name}/${name} is left out:`, `it is listener ${listener}, which leads back to the pool.`));
    }
    if (pool.unresolved.length > 0) {
      const more = pool.unresolved.length - NAMES_SHOWN;
      const names = pool.unresolved.slice(0, NAMES_SHOWN).join(", ") + (more > 0 ? ` and ${more} more` : "");
      list.push(notice("warn", `Pool ${pool.name}:`, `not resolved yet: ${names}.`));
    }
  }
  if (state.announced?.error) {
    list.push(notice("warn", `Announced routes stay as they are, because of ${state.announced.source}:`, state.announced.error));
  }
  for (const { from, listener, sni, reason } of state.announced?.refused ?? []) {
    list.push(notice("warn", `${listener} does not route ${sni} to ${from}, which announces it:`, `${reason}.`));
  }
  const ofListeners = state.listeners.map(({ name, tls }) => [`Listener ${name}:`, tls]);
  for (const [what, tls] of [["The admin port:", state.admin_tls], ...ofListeners]) {
    for (const broken of tls?.broken ?? []) {
      list.push(notice("bad", what, `${broken}. The files read before stay in force.`));
    }
    for (const warning of tls?.warnings ?? []) {
      list.push(notice("warn", what, `${warning}.`));
    }
    const days = tls?.expires ? (Date.parse(tls.expires) - now()) / 86_400_000 : Infinity;
    if (tls?.certificates > 0 && days < 14) {
      const when = days < 0 ? "has expired" : `expires in ${counted(Math.floor(days), "day")}`;
      list.push(notice(days < 3 ? "bad" : "warn", what, `the certificate of ${tls.expires_first ?? "a name"} ${when}.`));
    }
  }
  for (const { pool, name, use } of state.absent) {
    list.push(notice("warn", `${pool}/${name}`, `is not in the pool now; what was set for it is kept: ${use}.`));
  }
  const isBad = (one) => one.classList.contains("bad");
  list.sort((a, b) => isBad(b) - isBad(a));
  const rest = list.splice(NOTICES_SHOWN);
  if (rest.length > 0) list.push(notice(rest.some(isBad) ? "bad" : "warn", "And", `${counted(rest.length, "more notice")}.`));
  return list;
}

/** The problems with the fleet's store and with the configuration in it, and what is in force meanwhile. */
function storeProblems({ from, instance, revision, refused, lost: failure, lost_since, has_namesake: hasNamesake }) {
  const instead = revision === null ? "no configuration is in force yet" : `revision ${revision} stays in force`;
  return [
    hasNamesake && [`Another process runs as instance ${instance} of ${from}:`, "give each a name of its own."],
    failure && [`${from} has not answered since ${localTime(lost_since)}:`, `${failure}. Meanwhile ${instead}.`],
    refused && [`Revision ${refused.revision ?? "–"} of ${from} was refused at ${localTime(refused.since)}:`, `the errors are in the log, and in the store. Meanwhile ${instead}.`],
  ].filter(Boolean);
}

/** The errors of the reload that ended at `at`. Reading them needs the token, because they quote the configuration. */
export const reloadError = { at: null, text: null };

function failedReload(reload) {
  const hint = hasToken() ? " The errors are in the log." : " Enter the token to see the errors here; they are in the log, too.";
  const text = reloadError.at === reload.at && reloadError.text
    ? element("pre", { tabindex: 0 }, reloadError.text)
    : element("span", {}, hint);
  return element(
    "div",
    { class: "notice bad" },
    element("strong", {}, "The last reload failed."),
    ` It was requested by ${reload.by} and ended at ${localTime(reload.at)}. The configuration of ${localTime(known.state.in_force_since)} stays in force.`,
    text,
  );
}
