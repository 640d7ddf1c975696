/* Shows the counts: units, minutes, transitions, latency. */

import { count, counted, ms, timeOfDay } from "../../format.js";
import { byId, element, fill, readable, setText } from "../../text.js";
import { colour } from "../../theme.js";
import { quantile } from "./tallies.js";

const MOST_ROWS = 24; // of units
const MOST_CELLS = 12; // units of the matrix
const BIN_MS = 10;
const BINS = 30; // the last one holds all that is longer

/** Panels of counts; `show` brings those in sight up to date. */
export class Panels {
  constructor(tallies, marks) {
    this.tallies = tallies;
    this.marks = marks;
    this.since = Date.now();
    this.kind = "label";
    for (const button of byId("latency-kind").querySelectorAll("button")) {
      button.addEventListener("click", () => {
        this.kind = button.value;
        for (const other of byId("latency-kind").querySelectorAll("button")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
        this.show(true);
      });
    }
  }

  show(force = false) {
    if (!force && this.shown === this.tallies.version) return;
    this.shown = this.tallies.version;
    // Before anything is changed: the browser would have to lay the page out again.
    this.minutesWidth = byId("minutes").clientWidth;
    this.latencyWidth = byId("latency").clientWidth;
    this.units();
    this.minutes();
    this.transitions();
    this.latency();
  }

  name(unit) {
    const place = this.marks.colour(unit);
    return element(
      `span.unit${place >= 0 ? `.unit-${place}` : ""}`, {},
      element("span.shape", { "aria-hidden": "true" }, this.marks.shape(unit)),
      readable(unit, 30),
    );
  }

  units() {
    const { tallies } = this;
    const ranking = tallies.ranking();
    const most = ranking[0]?.[1] ?? 1;
    fill(
      byId("units"),
      ranking.slice(0, MOST_ROWS).map(([unit, n]) => {
        const bar = element("span.bar", { "aria-hidden": "true" });
        bar.style.setProperty("--share", String(n / most));
        return element("tr", {},
          element("th", { scope: "row" }, this.name(unit)),
          element("td.number", {}, count(n)),
          element("td.number.muted", {}, `${((100 * n) / tallies.labels).toFixed(1)} %`),
          element("td.wide", {}, bar));
      }),
    );
    const more = ranking.length > MOST_ROWS ? `, ${count(ranking.length - MOST_ROWS)} rarer units not shown` : "";
    setText(
      byId("units-words"),
      `Since ${timeOfDay(this.since)} UTC: ${counted(tallies.labels, "label")}, ${count(tallies.unknown)} unknown, ${counted(tallies.misses, "near miss", "near misses")}${more}.`,
    );
  }

  minutes() {
    const minutes = this.tallies.lastMinutes();
    const most = Math.max(...minutes.map(([, m]) => m.labels + m.rejected), 1);
    const draw = prepare(byId("minutes"), this.minutesWidth, 84);
    if (!draw) return;
    const { context, width, height } = draw;
    const step = width / 60;
    const base = height - 14;
    for (let k = 0; k < minutes.length; k += 1) {
      const [, { labels, rejected }] = minutes[k];
      const h = ((base - 12) * labels) / most;
      const r = ((base - 12) * rejected) / most;
      context.fillStyle = colour("--accent");
      context.fillRect(k * step, base - h, Math.max(step - 1, 1), h);
      context.strokeStyle = colour("--muted");
      if (r >= 1) context.strokeRect(k * step + 0.5, base - h - r + 0.5, Math.max(step - 2, 1), r - 1);
    }
    axisLine(context, width, base);
    const words = (minute) => timeOfDay(minute * 60000).slice(0, 5);
    if (minutes.length) {
      note(context, words(minutes[0][0]), 0, base + 2, "left");
      note(context, words(minutes.at(-1)[0]), width, base + 2, "right");
      note(context, `${most} a minute`, 0, 0, "left");
    }
    const now = minutes.at(-1)?.[1];
    setText(byId("minutes-words"), now
      ? `This minute: ${counted(now.labels, "label")}, ${count(now.rejected)} rejected (outlined).`
      : "No labels yet.");
  }

  transitions() {
    const units = this.tallies.ranking().slice(0, MOST_CELLS).map(([unit]) => unit);
    const rows = this.tallies.transitions;
    const table = byId("transitions");
    if (units.length < 2) {
      fill(table);
      setText(byId("transitions-words"), "Which unit follows which, as soon as two units were heard.");
      return;
    }
    units.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    const short = (unit) => readable(unit, 8);
    const cells = (from) => {
      const row = rows.get(from) ?? new Map();
      const all = [...row.values()].reduce((sum, n) => sum + n, 0);
      return units.map((to) => {
        const n = row.get(to) ?? 0;
        const share = all ? n / all : 0;
        const cell = element("td", { title: n ? `${readable(from)} then ${readable(to)}: ${count(n)} of ${count(all)}` : null },
          n ? String(Math.round(100 * share)) : "");
        cell.style.setProperty("--share", share.toFixed(3));
        return cell;
      });
    };
    fill(
      table,
      element("thead", {}, element("tr", {},
        element("th", { scope: "col" }, "from \\ to"),
        units.map((unit) => element("th", { scope: "col" }, short(unit))))),
      element("tbody", {}, units.map((unit) =>
        element("tr", {}, element("th", { scope: "row" }, short(unit)), cells(unit)))),
    );
    setText(byId("transitions-words"), "Per cent of what follows a unit within half a second of silence.");
  }

  latency() {
    const list = this.tallies.latencies[this.kind];
    const totals = list.map((ledger) => ledger.total);
    const bins = new Array(BINS).fill(0);
    for (const value of totals) bins[Math.min(Math.floor(value / BIN_MS), BINS - 1)] += 1;
    const most = Math.max(...bins, 1);
    const draw = prepare(byId("latency"), this.latencyWidth, 84);
    if (!draw) return;
    const { context, width, height } = draw;
    const base = height - 14;
    const step = width / BINS;
    context.fillStyle = colour("--accent");
    bins.forEach((n, k) => {
      const h = ((base - 4) * n) / most;
      context.fillRect(k * step, base - h, Math.max(step - 1, 1), h);
    });
    axisLine(context, width, base);
    for (const at of [0, 100, 200]) note(context, `${at} ms`, (at / BIN_MS) * step, base + 2, "left");
    note(context, "290 or more", width, base + 2, "right");
    const what = this.kind === "label" ? "final label" : "onset";
    if (!list.length) {
      setText(byId("latency-words"), `No ${what} with a latency yet (a recording that is read faster than real time has none).`);
      return;
    }
    const middle = (part) => ms(quantile(list.map((ledger) => ledger[part]), 0.5));
    setText(
      byId("latency-words"),
      `From the sound to sending of ${counted(list.length, what)}: median ${ms(quantile(totals, 0.5))}, 95 % within ${ms(quantile(totals, 0.95))}, longest ${ms(Math.max(...totals))}. ` +
        `Medians: waiting for audio ${middle("wait_ms")}, queues ${middle("queue_ms")}, computing ${middle("compute_ms")}, publishing ${middle("publish_ms")}.`,
    );
  }
}

function prepare(canvas, width, height) {
  if (!width) return null;
  const ratio = window.devicePixelRatio || 1;
  const wanted = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = `11px ${colour("--font")}`;
  return { context, width, height };
}

function axisLine(context, width, y) {
  context.strokeStyle = colour("--strong-line");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, y + 0.5);
  context.lineTo(width, y + 0.5);
  context.stroke();
}

function note(context, words, x, y, align) {
  context.fillStyle = colour("--muted");
  context.textAlign = align;
  context.textBaseline = "top";
  context.fillText(words, x, y);
}
