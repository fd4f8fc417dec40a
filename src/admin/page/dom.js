// Elements and numbers. Text enters the page through text nodes only, never as HTML.

/** Makes an element. `properties` are attributes; those that begin with `on` are event listeners, and null is left out. */
export function element(name, properties = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...flat(children));
  return made;
}

/** Children may be lists of children, and null. */
const flat = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined);

/** Text that may break after the separators of names and addresses. */
export const breakable = (text) => text.split(/(?<=[./:@])/).flatMap((part, at) => (at > 0 ? [element("wbr"), part] : [part]));

export const byId = (id) => document.getElementById(id);

/** Replaces the children of an element, and keeps the focus on the control with the same `data-key`. */
export function show(parent, ...children) {
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...flat(children));
  if (key !== undefined) {
    const again = [...parent.querySelectorAll("[data-key]")].find((child) => child.dataset.key === key);
    again?.focus({ preventScroll: true });
  }
}

/** A number in the largest of these units that it reaches, and that unit. Each is `base` times the one before. */
function scaled(number, base, units) {
  let unit = 0;
  while (number >= base && unit < units.length - 1) {
    number /= base;
    unit += 1;
  }
  return [number, units[unit]];
}

/** A short number: 1,234, 56.7k, 8.90M. */
export function count(value) {
  if (value < 10_000) return value.toLocaleString("en");
  const [number, unit] = scaled(value, 1000, ["", "k", "M", "G", "T"]);
  return `${number.toPrecision(3)}${unit}`;
}

/** Bytes with a binary unit. */
export function bytes(value) {
  const [number, unit] = scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  return `${unit === "B" || number >= 100 ? Math.round(number) : number.toFixed(1)} ${unit}`;
}

/** A duration in its two largest units. */
export function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  const at = units.findIndex(([, size]) => seconds >= size);
  const [unit, size] = units[at];
  const whole = Math.floor(seconds / size);
  const rest = at + 1 < units.length ? Math.floor((seconds % size) / units[at + 1][1]) : 0;
  return rest > 0 ? `${whole} ${unit} ${rest} ${units[at + 1][0]}` : `${whole} ${unit}`;
}

/** The time since an RFC 3339 time. */
export const since = (time) => duration(Math.max(0, Date.now() - Date.parse(time)) / 1000);

export const localTime = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

/** `1 session`, `2 sessions`. */
export const counted = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

/** A list of terms and descriptions; those without a description are left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", { class: "facts" }, known.map(([term, value]) => [
    element("dt", {}, term),
    element("dd", {}, value),
  ]));
}

/** The `data-key` of what opened the last dialog. */
let opener;

/** Opens a dialog. When it closes, the focus returns to the control that opened it, also if that was drawn anew. */
export function openDialog(dialog) {
  opener = document.activeElement?.dataset.key ?? opener;
  dialog.onclose = () => [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === opener)?.focus({ preventScroll: true });
  if (!dialog.open) dialog.showModal();
}
