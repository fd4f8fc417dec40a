// Elements and numbers. Text enters the page as text nodes and attributes, never as HTML.

/**
 * Makes an element. `properties` are attributes, except for the event handler `onclick`. A property that is null,
 * undefined or false is left out.
 */
export function element(name, properties = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "onclick") made.onclick = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...flat(children));
  return made;
}

/** Children may be lists of children, text, and null. */
const flat = (children) => children.flat(Infinity)
  .filter((child) => child !== null && child !== undefined)
  .map((child) => (child instanceof Node ? child : new Text(visible(String(child)))));

/**
 * The common invisible characters, those that change the direction of the text around them, and control characters
 * except line feeds.
 */
const UNSAFE = /[\0-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\p{Cf}\u{e0000}-\u{e007f}]/gu;

/** Replaces unsafe characters by visible escapes. Clients choose the names of users and databases. */
const visible = (text) => text.replace(UNSAFE, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);

/** Text that may break after the separators of names and addresses. */
export const breakable = (text) => text.split(/(?<=[./:@])/).flatMap((part, at) => (at > 0 ? [element("wbr"), part] : [part]));

export const byId = (id) => document.getElementById(id);

/**
 * Gives an element these children. An old child with the element name and the `data-key` of a new child stays in the
 * page, and is made like the new child. Several such children are matched in order. So a click under way, the focus,
 * the selection and the scroll position are kept; a child that moves keeps only the focus. An event handler must not
 * refer to a child that was passed here: an old child may be in the page instead.
 */
export function show(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  updateChildren(parent, flat(children));
  if (parent.contains(focused) && focused !== document.activeElement) focused.focus({ preventScroll: true }); // it was moved
}

const matchKeyOf = (node) => `${node.nodeName} ${node.dataset?.key ?? ""}`;

function updateChildren(parent, wanted) {
  const old = new Map();
  for (const node of [...parent.childNodes].reverse()) { // in reverse, so that `pop` below takes the first node
    const alike = old.get(matchKeyOf(node));
    if (alike) alike.push(node);
    else old.set(matchKeyOf(node), [node]);
  }
  const children = wanted.map((node) => update(old.get(matchKeyOf(node))?.pop(), node));
  for (const node of [...old.values()].flat()) node.remove();
  let next = parent.firstChild;
  for (const child of children) {
    // If a node moves down, only this node is moved, and not all the nodes between its old and its new place.
    if (child !== next && child === next?.nextSibling) {
      next.remove();
      next = child;
    }
    if (child === next) next = next.nextSibling;
    else parent.insertBefore(child, next);
  }
}

/** Makes `node` like `wanted` and returns `node`. Without a node, returns `wanted` itself. */
function update(node, wanted) {
  if (!node) return wanted;
  if (node instanceof Text) {
    if (node.data !== wanted.data) node.data = wanted.data;
    return node;
  }
  for (const name of node.getAttributeNames()) {
    if (!wanted.hasAttribute(name)) node.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  node.onclick = wanted.onclick;
  updateChildren(node, [...wanted.childNodes]);
  return node;
}

/** A number in the largest of these units that it reaches, and that unit. Each unit is `base` times the one before. */
function scaled(number, base, units) {
  let unit = 0;
  // From `base - 0.5` on, the number would be rounded up to `base`.
  while (number >= base - 0.5 && unit < units.length - 1) {
    number /= base;
    unit += 1;
  }
  return [number, units[unit]];
}

/** A short number: 1,234, 56.7k, 8.90M. */
export function count(value) {
  if (value < 10_000) return value.toLocaleString("en");
  const [number, unit] = scaled(value, 1000, ["", "k", "M", "G", "T", "P"]);
  return `${number.toPrecision(3)}${unit}`;
}

/** Bytes with a binary unit. Numbers that round to less than 100 are shown with one decimal, except in the unit B. */
export function bytes(value) {
  const [number, unit] = scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  return `${unit === "B" || number >= 99.95 ? Math.round(number) : number.toFixed(1)} ${unit}`;
}

/** A duration in its two largest units. Below a second, it is shown in µs or ms, unless it is 0 or rounds to 1 s. */
export function duration(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  if (seconds === 0) return "0 s";
  if (seconds < 0.0009995) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${Number((seconds * 1000).toPrecision(3))} ms`;
  seconds = Math.max(seconds, 1); // 999.6 ms is about 1 s
  const at = units.findIndex(([, size]) => seconds >= size);
  const [unit, size] = units[at];
  const whole = Math.floor(seconds / size);
  const rest = at + 1 < units.length ? Math.floor((seconds % size) / units[at + 1][1]) : 0;
  return rest > 0 ? `${whole} ${unit} ${rest} ${units[at + 1][0]}` : `${whole} ${unit}`;
}

/** How many milliseconds the clock of this machine is ahead of the clock of the process. */
export const clock = { ahead: 0 };

/** The time by the clock of the process, in milliseconds. */
export const now = () => Date.now() - clock.ahead;

/** The time since an RFC 3339 time of the process. */
export const since = (time) => duration(Math.max(0, now() - Date.parse(time)) / 1000);

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

/** The `data-key` of the last control with such a key that opened a dialog. */
let opener;

/** Opens a dialog. When it closes, the focus returns to the control that opened it, or to the one that replaced it. */
export function openDialog(dialog) {
  opener = document.activeElement?.dataset.key ?? opener;
  dialog.onclose = () => [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === opener)?.focus({ preventScroll: true });
  if (!dialog.open) dialog.showModal();
}
