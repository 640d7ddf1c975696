/* Shows the rows of the log: only those in sight are in the page. */

import { duration, posterior, streamTime, timeOfDay, date, count, counted } from "../format.js";
import { byId, element, fill, readable, setText } from "../text.js";
import { CHOICES } from "./log.js";

const ROW_PX = 30;
const SPARE = 6; // rows above and below what is in sight
const STATES = { provisional: "provisional", revised: "revised", final: "", "": "lasts" };

/** The table of the log, its filters and its keys. */
export class LogList {
  /**
   * @param {object} log
   * @param {object} model
   * @param {object} calls `select(row)`, `play(row)`.
   */
  constructor(log, model, calls) {
    this.log = log;
    this.model = model;
    this.calls = calls;
    this.grid = byId("log");
    this.space = byId("log-space");
    this.status = byId("log-status");
    this.now = byId("log-now");
    this.nodes = new Map(); // row key -> {node, version}
    this.active = null; // key
    this.filters();
    this.grid.addEventListener("scroll", () => this.show(true));
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.now.addEventListener("click", () => {
      this.log.toNow();
      this.grid.scrollTop = 0;
    });
  }

  filters() {
    const choice = byId("filter-kind");
    for (const [name, [words]] of Object.entries(CHOICES)) {
      choice.append(element("option", { value: name }, words));
    }
    const bind = (id, name, convert = (value) => value) => {
      byId(id).addEventListener("input", (event) => {
        this.log.setFilter({ [name]: convert(event.target.value) });
        this.grid.scrollTop = 0;
        this.show(true);
      });
    };
    const share = (value) => Math.min(Math.max(Number(value) || 0, 0), 1);
    bind("filter-kind", "choice");
    bind("filter-unit", "unit");
    bind("filter-stream", "stream");
    bind("filter-text", "text");
    bind("filter-from", "from", share);
    bind("filter-to", "to", (value) => (value === "" ? 1 : share(value)));
  }

  /** Offer the units and streams that there are. */
  offer(units, streams) {
    options(byId("filter-unit"), "All units", units.map((unit) => [unit, readable(unit, 40)]));
    const several = this.model.stations.size > 1;
    options(byId("filter-stream"), "All streams", streams.map((stream) => [
      stream.key,
      readable(several ? `${stream.station.name} / ${stream.name}` : stream.name, 50),
    ]));
  }

  key(event) {
    const rows = this.log.rows();
    const at = rows.findIndex((row) => row.key === this.active);
    const page = Math.max(Math.floor(this.grid.clientHeight / ROW_PX) - 1, 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in steps) {
      event.preventDefault();
      const wanted = Math.min(Math.max(at + steps[event.key], 0), rows.length - 1);
      if (rows[wanted]) this.activate(rows[wanted]);
    } else if ((event.key === "Enter" || event.key === " ") && at >= 0) {
      event.preventDefault();
      event.stopPropagation();
      this.calls.play(rows[at]);
    } else if (event.key === "Home") {
      event.preventDefault();
      this.grid.scrollTop = 0;
      if (rows[0]) this.activate(rows[0]);
    }
  }

  activate(row) {
    this.active = row.key;
    const at = this.log.rows().indexOf(row);
    const top = at * ROW_PX;
    if (top < this.grid.scrollTop) this.grid.scrollTop = top;
    if (top + ROW_PX > this.grid.scrollTop + this.grid.clientHeight) {
      this.grid.scrollTop = top + ROW_PX - this.grid.clientHeight;
    }
    this.calls.select(row);
    this.show(true);
  }

  /** Mark the row of a segment that was chosen elsewhere. */
  mark(key) {
    this.active = key;
    this.show(true);
  }

  /** Bring the table up to date; `now`: even if nothing has come. */
  show(now = false) {
    if (!now && this.shown === this.log.version) return;
    const rows = this.log.rows();
    this.keepPlace(rows);
    this.shown = this.log.version;
    const height = `${rows.length * ROW_PX}px`;
    if (this.space.style.height !== height) this.space.style.height = height;
    this.grid.setAttribute("aria-rowcount", String(rows.length));
    const first = Math.max(Math.floor(this.grid.scrollTop / ROW_PX) - SPARE, 0);
    const last = Math.min(first + Math.ceil(this.grid.clientHeight / ROW_PX) + 2 * SPARE, rows.length);
    const wanted = new Set();
    for (let k = first; k < last; k += 1) {
      wanted.add(rows[k].key);
      this.place(rows[k], k);
    }
    for (const [key, { node }] of this.nodes) {
      if (wanted.has(key)) continue;
      node.remove();
      this.nodes.delete(key);
    }
    const active = this.nodes.get(this.active)?.node;
    if (active) this.grid.setAttribute("aria-activedescendant", active.id);
    else this.grid.removeAttribute("aria-activedescendant");
    this.tell(rows);
    this.fetch(rows, last);
  }

  /** A reader who has scrolled down keeps the rows in sight while new ones come. */
  keepPlace(rows) {
    if (this.grid.scrollTop > 0 && this.topKey) {
      const at = rows.findIndex((row) => row.key === this.topKey);
      if (at >= 0 && at !== this.topAt) {
        this.space.style.height = `${rows.length * ROW_PX}px`;
        this.grid.scrollTop += (at - this.topAt) * ROW_PX;
      }
    }
    this.topAt = Math.floor(this.grid.scrollTop / ROW_PX);
    this.topKey = rows[this.topAt]?.key ?? null;
  }

  fetch(rows, last) {
    const near = last >= rows.length - 5;
    if (!near || this.log.loading || this.log.note) return;
    // A short list fetches by itself only when it was scrolled or filtered.
    if (this.grid.scrollTop === 0 && rows.length * ROW_PX > this.grid.clientHeight) return;
    this.log.loadOlder([...this.model.stations.values()]);
  }

  place(row, at) {
    let shown = this.nodes.get(row.key);
    if (!shown || shown.version !== row.version) {
      const node = this.build(row);
      if (shown) shown.node.replaceWith(node);
      else this.space.append(node);
      shown = { node, version: row.version };
      this.nodes.set(row.key, shown);
    }
    const { node } = shown;
    node.style.transform = `translateY(${at * ROW_PX}px)`;
    node.setAttribute("aria-rowindex", String(at + 1));
    node.setAttribute("aria-selected", String(row.key === this.active));
  }

  build(row) {
    this.ids = (this.ids ?? 0) + 1;
    const mark = row.kind === "segment" && row.unit !== null ? this.model.marks : null;
    const colour = mark ? mark.colour(row.unit) : -1;
    const name = element(
      `span.unit${colour >= 0 ? `.unit-${colour}` : ""}`, {},
      mark ? element("span.shape", { "aria-hidden": "true" }, mark.shape(row.unit)) : signOf(row),
      row.unit !== null ? readable(row.unit, 40) : "",
    );
    const seconds = row.stop === null ? null : (row.stop - row.sample) / row.rate;
    const words = row.kind === "segment" ? segmentWords(row) : row.words;
    return element(
      `div.log-row${row.rejected ? ".rejected" : ""}.${row.kind}`,
      {
        role: "row",
        id: `row-${this.ids}`,
        title: `${row.utc === null ? "" : `${date(row.utc)} `}${row.stream}, sample ${count(row.sample)}`,
        onclick: () => {
          this.active = row.key;
          this.calls.select(row);
          this.show(true);
        },
        ondblclick: () => this.calls.play(row),
      },
      element("span.time", { role: "gridcell" }, timeOf(row)),
      element("span", { role: "gridcell" }, name),
      element("span.number", { role: "gridcell" }, row.kind === "segment" ? posterior(row.posterior) : ""),
      element("span.number", { role: "gridcell" }, seconds === null ? "" : duration(seconds)),
      element("span.words", { role: "gridcell" }, readable(words, 300)),
      element("span.where", { role: "gridcell" }, readable(row.stream, 30)),
    );
  }

  tell(rows) {
    const { log } = this;
    const parts = [counted(rows.length, "row")];
    if (log.loading) parts.push("fetching earlier ones …");
    else if (log.note) parts.push(log.note);
    if (log.detached) parts.push("not the newest");
    setText(this.status, parts.join(" · "));
    this.now.hidden = !log.detached && !log.older.length;
    setText(this.now, log.missed ? `To the newest (${count(log.missed)} more)` : "To the newest");
  }
}

function signOf(row) {
  const sign = { near_miss: "×", gap: "▨", withheld: "▩", health: "♥", control: "⚙", trigger: "⚡" }[row.kind];
  return sign ? element("span.shape", { "aria-hidden": "true" }, sign) : null;
}

function segmentWords(row) {
  const parts = [];
  if (row.unit === "unknown") parts.push("rejected: like no unit");
  const state = row.unit === null ? (row.stop === null ? "lasts" : "segment") : STATES[row.status];
  if (state) parts.push(state);
  if (row.words) parts.push(row.words);
  return parts.join(", ");
}

function timeOf(row) {
  return row.utc === null
    ? streamTime(row.sample / row.rate, 2)
    : timeOfDay(row.utc, 2);
}

function options(select, all, values) {
  const wanted = JSON.stringify(values);
  if (select.dataset.values === wanted) return;
  select.dataset.values = wanted;
  const chosen = select.value;
  fill(
    select,
    element("option", { value: "" }, all),
    values.map(([value, words]) => element("option", { value }, words)),
  );
  select.value = values.some(([value]) => value === chosen) ? chosen : "";
}
