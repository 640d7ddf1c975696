/* What the journal holds by hour or day. */

import { count, duration } from "../../format.js";
import { byId, element, fill, readable, setText } from "../../text.js";

const MOST_PERIODS = 48;
const MOST_UNITS = 4; // of a period, the most frequent ones

/** Table of the journal's periods, fetched when it is asked for. */
export class SummaryPanel {
  constructor(model) {
    this.model = model;
    this.panel = byId("summary-panel");
    this.by = byId("summary-by");
    this.station = byId("summary-station");
    this.by.addEventListener("change", () => this.fetch());
    this.station.addEventListener("change", () => this.fetch());
    byId("summary-again").addEventListener("click", () => this.fetch());
    this.panel.querySelector("details").addEventListener("toggle", (event) => {
      if (event.target.open) this.fetch();
    });
  }

  /** Offer the stations that have a journal. */
  show() {
    const stations = [...this.model.stations.values()].filter((station) => station.history);
    const key = stations.map((station) => station.id).join();
    if (key === this.shown) return;
    this.shown = key;
    this.panel.hidden = !stations.length;
    this.station.hidden = stations.length < 2;
    fill(this.station, stations.map((station) => element("option", { value: station.id }, readable(station.name, 40))));
  }

  async fetch() {
    const query = new URLSearchParams({ station: this.station.value, by: this.by.value });
    setText(byId("summary-words"), "Reading the journal …");
    try {
      const response = await fetch(`api/summary?${query}`, { cache: "no-store" });
      const summary = await response.json();
      if (!response.ok) throw new Error(summary.error);
      this.fill(summary);
    } catch (error) {
      setText(byId("summary-words"), `The journal has no summary: ${readable(error.message, 300)}`);
      fill(byId("summary"));
    }
  }

  fill({ total, periods, timezone }) {
    setText(
      byId("summary-words"),
      `${duration(total.heard_s)} heard, ${duration(total.lost_s)} lost; ${count(total.segments)} segments, ${count(total.near_misses)} near misses. Times: ${readable(timezone, 40)}.`,
    );
    const day = this.by.value === "day";
    const most = Math.max(...periods.map((period) => period.segments), 1);
    fill(byId("summary"), periods.slice(-MOST_PERIODS).reverse().map((period) => {
      const bar = element("span.bar", { "aria-hidden": "true" });
      bar.style.setProperty("--share", String(period.segments / most));
      const units = Object.entries(period.units).sort((a, b) => b[1] - a[1]);
      const rest = units.length - MOST_UNITS;
      const names = units.slice(0, MOST_UNITS).map(([unit, n]) => `${readable(unit, 16)} ${count(n)}`);
      if (rest > 0) names.push(`${rest} more`);
      return element("tr", {},
        element("th", { scope: "row" }, when(period.start, day)),
        element("td.number", {}, duration(period.heard_s)),
        element("td.number", {}, period.lost_s ? duration(period.lost_s) : "–"),
        element("td.number", {}, count(period.segments)),
        element("td.wide", {}, bar, element("span.muted", {}, names.join(", "))));
    }));
  }
}

function when(start, day) {
  if (!start) return "no time of day";
  return day ? start.slice(0, 10) : `${start.slice(0, 10)} ${start.slice(11, 16)}`;
}
