// Tables with sorting and pages.

import { element, show } from "./dom.js";

/** The most rows that are shown at once. */
const PAGE = 50;

const byName = new Intl.Collator("en", { numeric: true });

function compare(a, b) {
  if (typeof a === "string" && typeof b === "string") return byName.compare(a, b);
  return a > b ? 1 : a < b ? -1 : 0;
}

/**
 * A table. `table` is the element that shows it, and `pages` the element for the buttons that turn its pages.
 *
 * The values of the first column identify the rows. A column has a `title` and a function `value`, by whose results
 * rows are sorted. Optional are the functions `cell`, which returns the element or text that is shown (by default the
 * value), and `when`: the column is shown only if this is true for at least one row. One of the flags `number`, `word`,
 * `long` and `name` is the CSS class of the cells. A column with an empty title contains buttons; rows cannot be sorted
 * by it.
 *
 * `sort` is the title of the column that the table is sorted by at first, and `descending` says whether the highest
 * value comes first. `onsort` is called when another order is chosen.
 */
export class Table {
  constructor(table, pages, columns, { sort, descending = false, onsort } = {}) {
    const sortIndex = columns.findIndex(({ title }) => title === sort);
    Object.assign(this, { table, pages, columns, sortIndex, descending, onsort, page: 0, rows: [] });
  }

  update(rows) {
    this.rows = rows;
    this.draw();
  }

  draw() {
    const { columns, sortIndex, descending } = this;
    const direction = descending ? -1 : 1;
    const keyed = this.rows.map((row) => ({ row, key: columns[sortIndex].value(row) ?? -Infinity }));
    const sorted = keyed.sort((a, b) => direction * compare(a.key, b.key)).map(({ row }) => row);
    const last = Math.max(0, Math.ceil(sorted.length / PAGE) - 1);
    this.page = Math.min(this.page, last);
    const shown = sorted.slice(this.page * PAGE, (this.page + 1) * PAGE);
    const visible = columns.filter(({ when }) => !when || this.rows.some(when));
    const head = visible.map((column) => {
      const index = columns.indexOf(column);
      const sorting = index === sortIndex ? (descending ? "descending" : "ascending") : null;
      const arrow = index === sortIndex ? (descending ? " ↓" : " ↑") : "";
      const choose = () => {
        this.descending = index === this.sortIndex ? !this.descending : Boolean(column.number);
        this.sortIndex = index;
        this.draw();
        this.onsort?.();
      };
      const content = column.title ? element("button", { onclick: choose, "data-key": `sort:${index}` }, `${column.title}${arrow}`) : element("span", { class: "unseen" }, "Actions");
      return element("th", { "data-key": `column:${index}`, scope: "col", class: column.number ? "number" : null, "aria-sort": sorting }, content);
    });
    const body = shown.map((row) =>
      element("tr", { "data-key": `row:${columns[0].value(row)}` }, visible.map((column) => {
        const content = column.cell ? column.cell(row) : column.value(row) ?? "–";
        return element("td", { "data-key": `column:${columns.indexOf(column)}`, class: ["number", "long", "word", "name"].find((kind) => column[kind]) }, content);
      })));
    show(this.table, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body));
    if (!this.pages) return;
    const turn = (by, text) => element("button", {
      "data-key": text,
      disabled: this.page + by < 0 || this.page + by > last,
      onclick: () => {
        this.page += by;
        this.draw();
      },
    }, text);
    const range = `${this.page * PAGE + 1} to ${this.page * PAGE + shown.length} of ${sorted.length.toLocaleString("en")}`;
    show(this.pages, ...(last > 0 ? [turn(-1, "Previous"), range, turn(1, "Next")] : sorted.length === 0 ? ["Nothing to show."] : []));
  }
}
