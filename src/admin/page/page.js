// The page of a running acequia. docs/api.md describes the data.

import { byId } from "./dom.js";
import { known } from "./state.js";
import { ApiError, checkToken, endTokenWait, follow, get, hasToken, onTokenDoubt, setToken, sleep } from "./source.js";
import { reloadError, showOverview } from "./overview.js";
import { setUpFlow, showFlow } from "./flow.js";
import { showCharts } from "./charts.js";
import { readSessions, setUpEndings, setUpServers, setUpSessions, showEndings, showServers } from "./lists.js";
import { setUpRoute, showRouteForm } from "./route.js";
import { refreshDetail, reloadConfiguration, setCanWrite } from "./actions.js";

/** The pause before the page is drawn. Changes in between are drawn together. */
const DRAW_INTERVAL_MS = 250;

/**
 * The pause between two reads of the sessions, while their table can be seen, is the longer of these: a fixed time, and
 * a time for each open session. A read costs more with more sessions: the process examines all of them.
 */
const SESSIONS_INTERVAL_MS = 5000;
const INTERVAL_PER_SESSION_MS = 0.2;

let drawing = false;

function draw() {
  if (drawing || document.hidden) return;
  drawing = true;
  setTimeout(() => requestAnimationFrame(() => {
    drawing = false;
    showOverview();
    showRouteForm();
    if (isSeen.get("flow")) showFlow();
    if (isSeen.get("charts")) showCharts();
    if (isSeen.get("servers")) showServers();
    if (isSeen.get("endings")) showEndings();
    refreshDetail();
  }), DRAW_INTERVAL_MS);
}

/**
 * Which `<section>`s are on the screen, or close to it. The others are not drawn, except the form of the route. The
 * overview and the dialogs are no `<section>`s.
 */
const isSeen = new Map();

function watchSections() {
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const wasSeen = isSeen.get(target.id);
      isSeen.set(target.id, isIntersecting);
      if (isIntersecting && !wasSeen && target.id === "sessions") readSessions();
    }
    draw();
  }, { rootMargin: "200px" });
  document.querySelectorAll("section").forEach((section) => observer.observe(section));
  document.addEventListener("visibilitychange", draw);
  addEventListener("resize", draw);
  pollSessions();
}

async function pollSessions() {
  for (;;) {
    await sleep(Math.max(SESSIONS_INTERVAL_MS, INTERVAL_PER_SESSION_MS * (known.state?.totals.sessions ?? 0)));
    if (isSeen.get("sessions") && !needsToken && !document.hidden) await readSessions();
  }
}

/** The text and the CSS class of the badge, for each state of the connection that `follow` reports. */
const BADGES = {
  live: ["live", "good"],
  polling: ["polling", "warn"],
  lost: ["connection lost", "bad"],
  token: ["token needed", "warn"],
};

/** Whether nothing can be read without the token. */
let needsToken = false;

function report(state, reason) {
  const [word, kind] = BADGES[state];
  const badge = byId("connection");
  if (badge.textContent !== word) badge.textContent = word;
  badge.className = `badge ${kind}`;
  badge.title = reason?.message ?? reason ?? "";
  needsToken = state === "token";
  byId("main").hidden = needsToken; // its content is out of date
  if (needsToken) byId("access").textContent = tokenNotice(reason);
  if (state === "lost") draw(); // shows that the content is out of date
}

const TOKEN_HINT = "it is in the file that token_file of [admin] names.";

const tokenNotice = ({ status, message }) => (status === 401 && !hasToken()
  ? `Nothing can be shown until the token is entered: ${TOKEN_HINT}`
  : `Not accepted: ${message}.`);

const isRefusal = (error) => error instanceof ApiError && [401, 403].includes(error.status);

/** Why the token that was entered last was not accepted, or why it could not be checked; null if it was accepted. */
let refusal = null;

let access = Promise.resolve();

/**
 * Finds out whether this page may change anything, and shows it. One call at a time, because each may forget a token
 * that was not accepted (`checkToken`).
 */
export function showAccess() {
  access = access.catch(() => {}).then(findOutAccess);
  return access;
}

async function findOutAccess() {
  const { writable } = await get("process");
  if (writable && hasToken()) refusal = await checkToken();
  setCanWrite(writable && hasToken());
  byId("reload").hidden = !(writable && hasToken());
  byId("token-form").hidden = !writable;
  byId("access").textContent = accessNotice(writable);
}

function accessNotice(writable) {
  if (!writable) {
    return "Read-only: no token is configured. Set token_file in [admin], or use the commands on the machine itself.";
  }
  if (!hasToken()) {
    return `${refusal ? `Not accepted: ${refusal}. ` : ""}Read-only until the token is entered: ${TOKEN_HINT}`;
  }
  return refusal ? `The token cannot be checked: ${refusal}.` : "";
}

/** Reports that the token is needed, if the error says so. Other errors are reported by `follow`. */
function reportRefusal(error) {
  if (isRefusal(error)) report("token", error);
}

/** The pause before the errors of a reload are read again, if they could not be read. */
const ERROR_INTERVAL_MS = 10_000;

/** Reads the errors of a failed reload. They are shown only with the token. */
async function readReloadError() {
  const reload = known.state?.last_reload;
  if (!reload || reload.done || reloadError.at === reload.at || !hasToken()) return;
  reloadError.at = reload.at;
  reloadError.text = null;
  try {
    reloadError.text = (await get("reload")).error;
  } catch {
    await showAccess().catch(reportRefusal);
    await sleep(ERROR_INTERVAL_MS);
    reloadError.at = null; // the next change of data starts another read, if there is a token
  }
  draw();
}

byId("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  refusal = null;
  byId("token").value = "";
  endTokenWait();
  reloadError.at = null;
  await showAccess().catch(reportRefusal);
  await readReloadError();
});
let isChecking = false;
onTokenDoubt(async () => {
  if (isChecking) return;
  isChecking = true;
  await showAccess().catch(reportRefusal);
  isChecking = false;
});
byId("reload").addEventListener("click", reloadConfiguration);
byId("chart-pool").addEventListener("change", draw);
setUpFlow();
setUpServers();
setUpSessions();
setUpEndings();
setUpRoute();
watchSections();
showAccess().catch(reportRefusal);
/** `in_force_since` when the access was last checked. A new configuration may have another token, or none. */
let inForceSince = null;
follow(report, () => {
  draw();
  if (known.state && inForceSince !== known.state.in_force_since) {
    inForceSince = known.state.in_force_since;
    showAccess().catch(() => {}); // what cannot be read is reported by `follow`
  }
  readReloadError();
});
