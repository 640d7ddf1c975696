/* Where a shadow, a second configuration on the same sound, disagrees with the first. */

import { counted, streamTime } from "../../format.js";
import { byId, element, fill, readable, setText } from "../../text.js";

const MOST_ROWS = 12; // disagreements that are shown
const MOST_PAIRS = 500;

/** The panel of a shadow: agreement, confusions, and the decision about it. */
export class ShadowPanel {
  constructor(connection, model) {
    this.connection = connection;
    this.model = model;
    this.shadows = new Map(); // station -> what was compared
    this.version = 0;
  }

  /** Count a `comparison` event. */
  add(station, header) {
    let seen = this.shadows.get(station.id);
    if (!seen || seen.name !== header.shadow) {
      seen = { name: header.shadow, station, all: 0, equal: 0, pairs: new Map(), rows: [], ended: "" };
      this.shadows.set(station.id, seen);
    }
    seen.all += 1;
    if (header.agrees) seen.equal += 1;
    else {
      const pair = `${words(header.unit)} / ${words(header.shadow_unit)}`;
      if (seen.pairs.has(pair) || seen.pairs.size < MOST_PAIRS) {
        seen.pairs.set(pair, (seen.pairs.get(pair) ?? 0) + 1);
      }
      seen.rows.push(header);
      if (seen.rows.length > MOST_ROWS) seen.rows.shift();
    }
    this.version += 1;
  }

  /** Note that a shadow took over or was dropped, or that its configuration was swapped. */
  end(station, command) {
    const seen = this.shadows.get(station.id);
    if (!seen) return;
    seen.ended = command === "swap" ? "It has taken over." : `It has ended: ${readable(command, 200)}.`;
    this.version += 1;
  }

  /** Bring the panel up to date. */
  show(allowed) {
    if (this.shown === `${this.version} ${allowed}`) return;
    this.shown = `${this.version} ${allowed}`;
    byId("shadow-panel").hidden = !this.shadows.size;
    fill(byId("shadow"), [...this.shadows.values()].map((seen) => this.section(seen, allowed)));
  }

  section(seen, allowed) {
    const share = ((100 * seen.equal) / seen.all).toFixed(1);
    const pairs = [...seen.pairs].sort((a, b) => b[1] - a[1]).slice(0, 6);
    const several = this.model.stations.size > 1;
    const rows = [...seen.rows].reverse().map((header) =>
      element("tr", {},
        element("td", {}, streamTime(header.onset / header.sample_rate, 2)),
        element("td", {}, words(header.unit)),
        element("td", {}, words(header.shadow_unit))));
    const said = element("p.said", { role: "status" });
    const send = async (command) => {
      setText(said, `${command} …`);
      const reply = await this.connection.command(seen.station.id, command, {});
      setText(said, reply.ok ? `${command}: done.` : `${command}: ${readable(reply.error ?? "refused", 300)}`);
      if (reply.ok && command === "drop") seen.ended = "It was dropped.";
    };
    const decides = allowed && seen.station.control && !seen.ended;
    return element("section", {},
      element("h3", {}, readable(seen.name, 60), several ? ` at ${readable(seen.station.name, 40)}` : ""),
      element("p", {}, `${share} % of ${counted(seen.all, "segment")} agree.`, seen.ended ? ` ${seen.ended}` : ""),
      pairs.length ? element("p.muted", {}, `Most often now / shadow: ${pairs.map(([pair, n]) => `${pair} (${n})`).join(", ")}.`) : null,
      rows.length
        ? element("table.disagree", {},
          element("caption.hidden-text", {}, "Newest disagreements"),
          element("thead", {}, element("tr", {}, ["Time", "Now", "Shadow"].map((name) => element("th", { scope: "col" }, name)))),
          element("tbody", {}, rows))
        : null,
      decides
        ? element("div.row", {},
          element("button", { type: "button", onclick: () => send("promote") }, "Promote the shadow"),
          element("button", { type: "button", onclick: () => send("drop") }, "Drop it"))
        : null,
      said);
  }
}

function words(unit) {
  if (unit === null) return "nothing heard";
  return unit === "" ? "no label" : readable(unit, 30);
}
