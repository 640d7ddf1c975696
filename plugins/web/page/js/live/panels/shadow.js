/* Where the run and its shadow disagree, and what a person decides about the shadow. */

import { counted, posterior, streamTime, timeOfDay, utcMs } from "../../format.js";
import { byId, element, fill, readable } from "../../text.js";

const MOST_LISTED = 100;
const MOST_CONFUSIONS = 12;
const MOST_KNOWN = 20000; // messages that are not counted twice
const BEFORE = 500; // comparisons of the past that a page begins with

const words = (unit) => (unit === null ? "nothing heard" : unit === "" ? "no label" : unit);

// What `health` of the stage `swap` says when a shadow begins, or ends without taking over.
const BEGUN = / runs as a shadow$/;
const DROPPED = /^the shadow .* is dropped: /;

const shortName = (path) => readable(path.split("/").at(-1), 60);

/** Return the newest events of a station that tell of shadows, the oldest first. */
async function pastOf(id) {
  const kinds = "comparison,control,health";
  const query = new URLSearchParams({ station: id, kinds, limit: BEFORE });
  try {
    const response = await fetch(`api/events?${query}`);
    return response.ok ? (await response.json()).events.reverse() : [];
  } catch {
    return []; // the past is not there; what comes is
  }
}

/** Comparisons of one shadow of one station. */
class Shadow {
  constructor(name, run) {
    this.name = name;
    this.run = run;
    this.ended = ""; // how it ended, in a sentence
    this.segments = 0;
    this.agreed = 0;
    this.confusions = new Map(); // by both units
    this.disagreed = []; // the newest first
  }

  add(header) {
    this.segments += 1;
    if (header.agrees) {
      this.agreed += 1;
      return;
    }
    const pair = JSON.stringify([header.unit, header.shadow_unit]);
    this.confusions.set(pair, (this.confusions.get(pair) ?? 0) + 1);
    this.disagreed.unshift(header);
    this.disagreed.sort((one, other) => (other.utc_ns ?? other.sample) - (one.utc_ns ?? one.sample));
    if (this.disagreed.length > MOST_LISTED) this.disagreed.pop();
  }

  get share() {
    return this.segments ? this.agreed / this.segments : 0;
  }
}

/** The panel of shadows of all stations. */
export class ShadowPanel {
  /**
   * @param {object} connection Sends commands.
   * @param {object} model
   * @param {(station: object, header: object) => void} play Plays what was compared.
   */
  constructor(connection, model, play) {
    this.connection = connection;
    this.model = model;
    this.play = play;
    this.shadows = new Map(); // by station
    this.runs = new Map(); // the newest, by station
    this.known = new Set();
    this.waiting = new Map(); // events that came while the past is read, by station
    this.said = new Map(); // what a command was answered, by station
    this.opened = new Set(); // stations whose list of differences is open
    this.allowed = false;
    this.due = true;
  }

  /** Read comparisons of the past. */
  greet() {
    for (const station of this.model.stations.values()) this.readPast(station);
  }

  async readPast(station) {
    const { id } = station;
    if (this.waiting.has(id)) return;
    this.waiting.set(id, []);
    const past = await pastOf(id);
    const came = this.waiting.get(id);
    this.waiting.delete(id);
    for (const header of [...past, ...came]) this.take(station, header);
    this.endWithRun(station);
  }

  /** Note the run that events come from now. */
  follow(station, { run }) {
    if (this.runs.get(station.id) === run) return;
    this.runs.set(station.id, run);
    this.endWithRun(station);
  }

  /** A shadow of an earlier run, which may have been killed, runs no more. */
  endWithRun(station) {
    const run = this.runs.get(station.id);
    const shadow = this.shadows.get(station.id);
    if (run && shadow && shadow.run !== run) this.end(station, "It ended with its run.");
  }

  /** Read an event: a comparison, or what says that a shadow began or ended. */
  take(station, header) {
    const { kind } = header;
    const tells =
      kind === "comparison" ||
      (kind === "control" && header.command === "swap") ||
      (kind === "health" && header.stage === "swap");
    if (!tells) return;
    const waiting = this.waiting.get(station.id);
    if (waiting) {
      waiting.push(header);
      return;
    }
    if (!this.isNew(station, header)) return;
    if (kind === "comparison") this.add(station, header);
    else if (kind === "control") this.end(station, "It has taken over.");
    else {
      if (BEGUN.test(header.detail)) this.begin(station, header);
      else if (DROPPED.test(header.detail)) {
        const reason = header.detail.replace(DROPPED, "");
        this.end(station, `It was dropped: ${readable(reason, 200)}.`);
      }
    }
  }

  /** Note that a shadow runs, of which nothing was compared yet; each lane says so. */
  begin(station, header) {
    const name = header.detail.replace(BEGUN, "");
    const shadow = this.shadows.get(station.id);
    if (shadow && !shadow.ended && shadow.name === name && shadow.run === header.run) return;
    this.shadows.set(station.id, new Shadow(name, header.run));
    this.due = true;
  }

  /** Note an event; return whether it came for the first time. */
  isNew(station, { kind, stream, run, seq }) {
    const key = [station.id, kind, stream, run, seq].join("\u0000");
    if (this.known.has(key)) return false;
    if (this.known.size >= MOST_KNOWN) this.known.delete(this.known.values().next().value);
    this.known.add(key);
    return true;
  }

  /** Count a `comparison` event. */
  add(station, header) {
    let shadow = this.shadows.get(station.id);
    if (shadow?.name !== header.shadow || shadow.run !== header.run) {
      shadow = new Shadow(header.shadow, header.run);
      this.shadows.set(station.id, shadow);
    }
    shadow.add(header);
    this.due = true;
  }

  /** Note how a shadow ended, in a sentence. */
  end(station, sentence) {
    const shadow = this.shadows.get(station.id);
    if (!shadow || shadow.ended) return;
    shadow.ended = sentence;
    this.due = true;
  }

  /** Draw what has changed; called a few times a second at most. */
  show(allowed) {
    if (!this.due && allowed === this.allowed) return;
    this.allowed = allowed;
    this.due = false;
    const stations = [...this.model.stations.values()].filter(
      (station) => this.shadows.has(station.id) || (this.allowed && station.control),
    );
    byId("shadow-panel").hidden = !stations.length;
    const focus = document.activeElement?.closest?.("#shadow") ? document.activeElement.id : "";
    const typed = new Map(
      [...byId("shadow").querySelectorAll("input")].map((input) => [input.id, input.value]),
    );
    fill(byId("shadow"), stations.map((station) => this.section(station)));
    for (const [id, value] of typed) {
      const input = document.getElementById(id);
      if (input) input.value = value;
    }
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  }

  section(station) {
    const shadow = this.shadows.get(station.id);
    const runs = shadow && !shadow.ended;
    const steers = this.allowed && station.control;
    return element(
      "section.shadow",
      { "aria-label": `Shadow of ${readable(station.name, 60)}` },
      this.model.stations.size > 1 ? element("h3", {}, readable(station.name, 60)) : null,
      shadow ? this.summary(shadow) : element("p.muted", {}, "No shadow runs beside this station."),
      steers ? this.commands(station, runs ? shadow : null) : null,
      element("p.said", { role: "status" }, this.said.get(station.id) ?? ""),
      shadow ? this.confusions(shadow) : null,
      shadow ? this.list(station, shadow) : null,
    );
  }

  summary(shadow) {
    const share = (100 * shadow.share).toFixed(1);
    const agreement = shadow.segments
      ? `${share} % of ${counted(shadow.segments, "segment")} agree.`
      : "no segment was compared yet.";
    return element(
      "p",
      {},
      element("b", { title: readable(shadow.name, 300) }, shortName(shadow.name)),
      `: ${agreement}`,
      shadow.ended ? ` ${shadow.ended}` : "",
    );
  }

  commands(station, shadow) {
    const id = station.id;
    const send = async (command, fields, what) => {
      this.tell(id, `${what} …`);
      const reply = await this.connection.command(id, command, fields);
      this.tell(id, reply.ok ? `${what}: done.` : `${what}: ${readable(reply.error ?? "refused", 300)}`);
      if (reply.ok && command === "drop") {
        shadow.ended ||= "It was dropped.";
        this.tell(id, "");
      }
    };
    const start = () => {
      const name = config.value.trim();
      if (!name) this.tell(id, "Name a configuration beside that of the run.");
      else send("swap", { arguments: { config: name, shadow: true } }, `Shadow ${name}`);
    };
    const config = element("input", {
      id: `shadow-config-${id}`,
      type: "text",
      size: "24",
      placeholder: "such as new.yaml",
      onkeydown: (event) => event.key === "Enter" && start(),
    });
    return element(
      "div.row",
      {},
      element(
        "button",
        {
          id: `shadow-promote-${id}`,
          type: "button",
          disabled: !shadow,
          title: "The shadow takes over at the next silence",
          onclick: () => send("promote", {}, `Promote ${shortName(shadow.name)}`),
        },
        "Promote",
      ),
      element(
        "button.danger",
        {
          id: `shadow-drop-${id}`,
          type: "button",
          disabled: !shadow,
          onclick: () => send("drop", {}, `Drop ${shortName(shadow.name)}`),
        },
        "Drop",
      ),
      element("label", {}, "Configuration ", config),
      element(
        "button",
        {
          id: `shadow-start-${id}`,
          type: "button",
          onclick: start,
        },
        "Start a shadow",
      ),
    );
  }

  tell(id, sentence) {
    this.said.set(id, sentence);
    this.due = true;
    this.show(this.allowed);
  }

  confusions(shadow) {
    const pairs = [...shadow.confusions].sort((one, other) => other[1] - one[1]);
    if (!pairs.length) return null;
    return element(
      "table.disagree",
      {},
      element("caption.hidden-text", {}, "Where they disagree"),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          element("th", { scope: "col" }, "This run"),
          element("th", { scope: "col" }, "Shadow"),
          element("th.number", { scope: "col" }, "Segments"),
        ),
      ),
      element(
        "tbody",
        {},
        pairs.slice(0, MOST_CONFUSIONS).map(([pair, number]) => {
          const [one, other] = JSON.parse(pair);
          return element(
            "tr",
            {},
            element("td", {}, readable(words(one), 30)),
            element("td", {}, readable(words(other), 30)),
            element("td.number", {}, number),
          );
        }),
      ),
    );
  }

  list(station, shadow) {
    if (!shadow.disagreed.length) return null;
    const { id } = station;
    return element(
      "details",
      {
        open: this.opened.has(id),
        ontoggle: (event) => this.opened[event.target.open ? "add" : "delete"](id),
      },
      element("summary", { id: `shadow-differences-${id}` }, `The newest ${counted(shadow.disagreed.length, "difference")}`),
      element(
        "ul.differences",
        {},
        shadow.disagreed.map((header) => {
          const ms = utcMs(header.utc_ns);
          const when =
            ms === null ? streamTime(header.onset / header.sample_rate, 2) : timeOfDay(ms, 2);
          const told = `${when} ${readable(words(header.unit), 20)} (${posterior(header.posterior)}), shadow ${readable(words(header.shadow_unit), 20)} (${posterior(header.shadow_posterior)})`;
          return element(
            "li",
            {},
            element(
              "button.plain",
              { type: "button", title: "Play", onclick: () => this.play(station, header) },
              told,
            ),
          );
        }),
      ),
    );
  }
}
