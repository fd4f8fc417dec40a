// Line charts of the last 15 minutes.

import { byId, bytes, count, duration, element, show } from "./dom.js";
import { isSampleCurrent, known, newest } from "./state.js";

/** A chart is as wide as the number of its samples, but at least this wide. */
const SAMPLES_MIN = 120;

const HEIGHT = 100;

/** The height of a chart in multiples of its peak: a line at the upper edge would look cut off. */
const HEADROOM = 1.15;

const rate = (value) => `${bytes(value)}/s`;
const perSecond = (value) => `${count(value)}/s`;

/** The charts of the process. If a chart has two lines, each has a name. */
const TOTALS = [
  { title: "Sessions", lines: [["", (totals) => totals.sessions]], format: count },
  { title: "New sessions", lines: [["", (totals) => totals.opened]], format: perSecond },
  { title: "Bytes", lines: [["from servers", (totals) => totals.bytes_down], ["from clients", (totals) => totals.bytes_up]], format: rate },
  { title: "Connect p99", lines: [["", (totals) => totals.connect_p99_ms]], format: (ms) => duration(ms / 1000) },
  { title: "Ended", lines: [["all", ended], ["failed", failed]], format: perSecond },
];

/** The charts of a pool. */
const POOL = [
  { title: "Sessions", lines: [["", (pool) => pool.sessions]], format: count },
  { title: "New sessions", lines: [["", (pool) => pool.opened]], format: perSecond },
  { title: "Bytes", lines: [["from servers", (pool) => pool.bytes_down], ["from clients", (pool) => pool.bytes_up]], format: rate },
  { title: "Connect p99", lines: [["", (pool) => pool.connect_p99_ms]], format: (ms) => duration(ms / 1000) },
  { title: "Ended", lines: [["all", endedInPool], ["failed", (pool) => pool.failed]], format: perSecond },
];

const sum = (lists, length) => Array.from({ length }, (_, at) => lists.reduce((all, list) => all + list[at], 0));

function ended(totals) {
  return sum(Object.values(totals.endings), totals.sessions.length);
}

function failed(totals) {
  const lists = Object.entries(totals.endings).filter(([ending]) => known.endings[ending]?.failure);
  return sum(lists.map(([, list]) => list), totals.sessions.length);
}

/**
 * The number of sessions of a pool that ended in each second. It is not in the samples of a pool, so it is computed:
 * the new sessions minus the growth of the open ones. In the first second the growth is not known, and the value is 0.
 */
function endedInPool({ sessions, opened }) {
  return opened.map((number, at) => {
    if (at === 0) return 0;
    const growth = sessions[at] - sessions[at - 1];
    return Math.max(0, number - growth);
  });
}

export function showCharts() {
  const { history } = known;
  if (!history) return;
  const select = byId("chart-pool");
  const names = history.pools.map((pool) => pool.name);
  if (names.join("\n") !== select.dataset.names) {
    const chosen = select.value;
    select.dataset.names = names.join("\n");
    show(select, element("option", { value: "" }, "all pools"), names.map((name) => element("option", { value: name, "data-key": name }, name)));
    select.value = names.includes(chosen) ? chosen : "";
  }
  const pool = history.pools.find((pool) => pool.name === select.value);
  const charts = pool ? POOL : TOTALS;
  show(byId("chart-list"), charts.map((chart) => figure(chart, pool ?? history.totals)));
}

function figure({ title, lines, format }, source) {
  const drawn = lines.map(([name, valuesOf]) => {
    const values = valuesOf(source);
    return { label: name ? `${name}: ` : "", values, last: isSampleCurrent() ? newest(values) : undefined };
  });
  const highest = Math.max(...drawn.flatMap(({ values }) => values.map((value) => value ?? 0)), 0);
  const top = highest > 0 ? highest * HEADROOM : 1;
  const now = drawn.map(({ label, last }, index) => {
    const key = drawn.length > 1 ? element("span", { class: `key k${index}` }) : null;
    return element("span", {}, key, label, element("b", {}, last === undefined ? "–" : format(last)));
  });
  const described = drawn.map(({ label, last }) => `${label}now ${last === undefined ? "none" : format(last)}`);
  const age = isSampleCurrent() ? 0 : Math.round((Date.now() - known.sampledAt) / 1000);
  const width = Math.max(SAMPLES_MIN, source.sessions.length);
  const svg = element(
    "svg:svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: ${described.join(", ")}, peak ${format(highest)}` },
    element("svg:path", { class: "grid", d: `M0 25H${width}M0 50H${width}M0 75H${width}`, "vector-effect": "non-scaling-stroke" }),
    drawn.length === 1 && !drawn[0].values.includes(null) ? element("svg:path", { class: "area", d: area(drawn[0].values, top, width) }) : null,
    drawn.map(({ values }, index) => element("svg:path", { class: `series s${index}`, d: path(values, top, width) })),
  );
  return element(
    "figure",
    {},
    element("figcaption", {}, element("strong", {}, title), element("span", { class: "highest" }, `peak ${format(highest)}`), element("span", { class: "now" }, now)),
    svg,
    element("div", { class: "axis", "aria-hidden": "true" }, element("span", {}, `${duration(width + age)} ago`), element("span", {}, age > 0 ? `${duration(age)} ago` : "now")),
  );
}

/** The y coordinate of a value: 0 is 2 units above the lower edge of the chart, `top` is 4 below the upper edge. */
const yOf = (value, top) => (HEIGHT - 2 - (HEIGHT - 6) * (value / top)).toFixed(1);

/** A line with the newest sample at the right edge. Missing values are gaps. */
function path(values, top, width) {
  const start = width - values.length;
  let text = "";
  let isGap = true;
  values.forEach((value, at) => {
    if (value === null) {
      isGap = true;
      return;
    }
    const y = yOf(value, top);
    // A value between two gaps is a short stroke.
    text += isGap ? `M${start + at} ${y}h1` : `L${start + at} ${y}`;
    isGap = false;
  });
  return text;
}

/** The area below a line without gaps. */
function area(values, top, width) {
  const start = width - values.length;
  const line = values.map((value, at) => `L${start + at} ${yOf(value, top)}`).join("");
  return values.length > 0 ? `M${start} ${HEIGHT}${line}L${width - 1} ${HEIGHT}Z` : "";
}
