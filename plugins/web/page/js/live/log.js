/* The log: rows of what was heard and rejected, bounded, and older ones on demand. */

import { duration, utcMs } from "../format.js";
import { readable } from "../text.js";
import { fetchEvents } from "./history.js";

const MOST_LIVE = 2000;
const MOST_OLDER = 4000;
const PAGE = 200;
const MOST_PAGES = 12; // of one request for older rows
const RANKS = { "": 0, provisional: 1, revised: 2, final: 3 };

/** Choices of the filter: name to [words, kinds that are fetched, test of a row]. */
export const CHOICES = {
  both: ["Heard and rejected", ["onset", "offset", "label", "suggestion", "near_miss"], (row) => row.kind === "segment" || row.kind === "near_miss"],
  heard: ["Heard", ["onset", "offset", "label", "suggestion"], (row) => row.kind === "segment" && !row.rejected],
  rejected: ["Rejected", ["label", "suggestion", "near_miss"], (row) => row.rejected],
  losses: ["Gaps and withheld audio", ["gap", "withheld"], (row) => row.kind === "gap" || row.kind === "withheld"],
  health: ["Health", ["health"], (row) => row.kind === "health"],
  control: ["Commands and triggers", ["control", "trigger"], (row) => row.kind === "control" || row.kind === "trigger"],
  shadow: ["Disagreements of a shadow", ["comparison"], (row) => row.kind === "comparison" && row.rejected],
  all: ["Everything", null, () => true],
};
export const LOG_KINDS = [
  "onset", "offset", "label", "near_miss", "gap", "withheld", "health", "control", "trigger",
  "comparison", "suggestion",
];
/** Kinds that tell of one segment, which has one row. */
const SEGMENT_KINDS = ["onset", "offset", "label", "suggestion"];

/** Rows in memory: the newest ones as they come, and older ones that were fetched. */
export class Log {
  constructor() {
    this.live = []; // oldest first
    this.older = []; // newest first, older than all of `live`
    this.byKey = new Map();
    this.cursors = new Map(); // station -> cursor; null: nothing older
    this.filter = { choice: "both", unit: "", stream: "", text: "", from: 0, to: 1 };
    this.detached = false; // rows between `live` and `older` were let go
    this.missed = 0; // new rows while detached
    this.version = 0;
    this.loading = false;
    this.note = "";
    this.total = 0;
    this.fetched = 0;
  }

  /** Take over an event's header; events of other kinds are left out. */
  add(station, header) {
    const row = this.rowFor(station, header, false);
    if (row) this.version += 1;
  }

  rowFor(station, header, old) {
    const key = keyOf(station.id, header);
    if (!key) return null;
    let row = this.byKey.get(key);
    if (!row) {
      row = newRow(key, station, header);
      this.byKey.set(key, row);
      if (old) this.older.push(row);
      else this.pushLive(row);
      this.total += 1;
    }
    update(row, header);
    return row;
  }

  pushLive(row) {
    this.live.push(row);
    if (this.detached) this.missed += 1;
    if (this.live.length <= MOST_LIVE) return;
    const oldest = this.live.shift();
    if (this.older.length && !this.detached) {
      this.older.unshift(oldest);
      this.trimOlder();
    } else {
      this.byKey.delete(oldest.key);
      if (!this.detached) this.cursors.clear(); // what was let go can be fetched
    }
  }

  trimOlder() {
    if (this.older.length <= MOST_OLDER) return;
    this.detached = true;
    for (const row of this.older.splice(0, this.older.length - MOST_OLDER)) {
      this.byKey.delete(row.key);
    }
  }

  /** Forget what was fetched, and show the newest rows. */
  toNow() {
    for (const row of this.older) this.byKey.delete(row.key);
    this.older = [];
    this.cursors.clear();
    this.detached = false;
    this.missed = 0;
    this.note = "";
    this.version += 1;
  }

  setFilter(changes) {
    const before = this.filter;
    this.filter = { ...before, ...changes };
    // Other kinds and streams are fetched from their own newest event on.
    if (this.filter.choice !== before.choice || this.filter.stream !== before.stream) this.toNow();
    this.version += 1;
  }

  /** Return the rows that pass the filter, newest first. */
  rows() {
    if (this.rowsVersion === this.version) return this.rowsNow;
    const rows = [];
    const pass = passing(this.filter);
    if (!this.detached) {
      for (let k = this.live.length - 1; k >= 0; k -= 1) {
        if (pass(this.live[k])) rows.push(this.live[k]);
      }
    }
    for (const row of this.older) if (pass(row)) rows.push(row);
    this.rowsVersion = this.version;
    this.rowsNow = rows;
    return rows;
  }

  /** Fetch older rows of all stations until some pass the filter, or none is left. */
  async loadOlder(stations) {
    if (this.loading) return;
    this.loading = true;
    const before = this.rows().length;
    const filter = this.filter;
    try {
      for (let page = 0; page < MOST_PAGES; page += 1) {
        const open = stations.filter((station) => this.cursors.get(station.id) !== null && inStation(filter, station));
        if (!open.length) {
          this.note = stations.every((station) => station.history)
            ? "No earlier events are kept."
            : "No earlier events are in memory; a journal would keep them.";
          break;
        }
        for (const station of open) await this.loadPage(station, filter);
        if (filter !== this.filter) break;
        this.version += 1;
        if (this.rows().length >= before + 20) break;
      }
    } catch (error) {
      this.note = `Earlier events could not be fetched: ${error.message}`;
    }
    this.loading = false;
    this.version += 1;
  }

  async loadPage(station, filter) {
    const { events, cursor } = await fetchEvents(station.id, {
      kinds: CHOICES[filter.choice][1] ?? LOG_KINDS,
      stream: filter.stream ? filter.stream.split("\u0000")[1] : null,
      before: this.cursors.get(station.id),
      limit: PAGE,
    });
    if (filter !== this.filter) return;
    this.cursors.set(station.id, cursor);
    this.fetched += events.length;
    for (const header of events) this.rowFor(station, header, true);
    this.trimOlder();
  }
}

const inStation = (filter, station) =>
  !filter.stream || filter.stream.split("\u0000")[0] === station.id;

function passing(filter) {
  const [, , ofKind] = CHOICES[filter.choice];
  const text = filter.text.trim().toLowerCase();
  const narrow = filter.from > 0 || filter.to < 1;
  return (row) =>
    ofKind(row) &&
    (!filter.unit || row.unit === filter.unit) &&
    (!filter.stream || row.streamKey === filter.stream) &&
    (!narrow || (row.posterior !== null && row.posterior >= filter.from && row.posterior <= filter.to)) &&
    (!text || row.search().includes(text));
}

function keyOf(station, header) {
  const { kind, stream, run } = header;
  if (SEGMENT_KINDS.includes(kind)) {
    return `${station}\u0000${stream}\u0000${run}\u0000s${header.segment}`;
  }
  if (!LOG_KINDS.includes(kind)) return null;
  return `${station}\u0000${stream}\u0000${run}\u0000${kind}${header.seq}`;
}

/** One row: a segment with its newest label, or another event. */
class Row {
  constructor(key, station, header) {
    this.key = key;
    this.station = station.name;
    this.stationId = station.id;
    this.stream = header.stream;
    this.streamKey = `${station.id}\u0000${header.stream}`;
    this.run = header.run;
    this.kind = header.kind;
    this.rate = header.sample_rate;
    this.sample = header.sample;
    this.stop = null;
    this.utc = null;
    this.unit = null;
    this.posterior = null;
    this.status = "";
    this.words = "";
    this.rejected = false;
    this.latency = null;
    this.version = 0;
  }

  /** Whether its sound can be asked for. */
  get playable() {
    return this.stop !== null && this.kind !== "gap" && this.kind !== "withheld";
  }

  search() {
    return `${this.unit ?? ""} ${this.words} ${this.stream} ${this.station}`.toLowerCase();
  }
}

function newRow(key, station, header) {
  const row = new Row(key, station, header);
  if (SEGMENT_KINDS.includes(header.kind)) row.kind = "segment";
  return row;
}

function update(row, header) {
  row.version += 1;
  switch (header.kind) {
    case "onset":
      row.sample = header.sample;
      row.utc = utcMs(header.utc_ns);
      break;
    case "offset":
      row.sample = header.onset;
      row.stop = header.sample;
      if (row.utc === null) row.utc = back(header, header.onset);
      if (header.truncated) row.words = "cut off";
      break;
    case "label":
      row.sample = header.onset;
      row.utc ??= back(header, header.onset);
      row.stop = header.offset ?? row.stop;
      if (RANKS[header.status] < RANKS[row.status]) break;
      row.unit = header.unit;
      row.posterior = header.posterior;
      row.status = header.status;
      row.latency = header.latency;
      row.rejected = header.unit === "unknown";
      break;
    case "suggestion":
      row.sample = header.onset;
      row.utc ??= back(header, header.onset);
      row.stop = header.offset;
      row.words = `perhaps ${header.name}`;
      break;
    case "near_miss":
      row.sample = header.onset;
      row.stop = header.offset;
      row.utc = utcMs(header.utc_ns);
      row.rejected = true;
      row.words = missWords(header);
      break;
    case "gap":
    case "withheld":
      row.sample = header.start;
      row.stop = header.stop;
      row.utc = utcMs(header.utc_ns);
      row.words = spanWords(header);
      break;
    case "health":
      row.utc = utcMs(header.utc_ns);
      row.status = header.state;
      row.words = `${header.stage}: ${header.state}${header.detail ? `, ${header.detail}` : ""}`;
      break;
    case "control":
      row.utc = utcMs(header.utc_ns);
      row.words = `${header.command}${header.model ? ` of ${header.model}` : ""} ${plain(header.arguments)}`;
      break;
    case "comparison":
      row.sample = header.onset;
      row.stop = header.offset;
      row.utc = utcMs(header.utc_ns);
      row.rejected = !header.agrees;
      row.words = `${said(header.unit)}; ${header.shadow}: ${said(header.shadow_unit)}`;
      break;
    case "trigger":
      row.utc = utcMs(header.utc_ns);
      row.stop = header.offset;
      row.words = `${header.trigger}: ${header.decision} at ${header.units.join(" ")} (${header.status})`;
      break;
    default:
  }
}

/** UTC of another sample than the header's. */
function back(header, sample) {
  const ms = utcMs(header.utc_ns);
  return ms === null ? null : ms + ((sample - header.sample) / header.sample_rate) * 1000;
}

const said = (unit) => (unit === null ? "nothing heard" : unit || "no label");

const REASONS = {
  quiet: "below the threshold",
  short: "too short",
  soon: "too soon after a segment",
};

export function missWords(header) {
  const score = header.score === null ? "" : `, score ${header.score.toFixed(1)}`;
  const bar = header.threshold === null ? "" : ` of ${header.threshold.toFixed(1)} needed`;
  const more = header.omitted ? ` (${header.omitted} more before)` : "";
  return `near miss: ${REASONS[header.reason] ?? header.reason}${score}${bar}${more}`;
}

export function spanWords(header) {
  const long = (header.stop - header.start) / header.sample_rate;
  if (header.kind === "withheld") return `${duration(long)} withheld: ${header.reason}`;
  return long ? `${duration(long)} lost: ${header.reason}` : `join: ${header.reason}`;
}

function plain(values) {
  return Object.entries(values ?? {})
    .map(([name, value]) => `${name}=${readable(typeof value === "string" ? value : JSON.stringify(value), 60)}`)
    .join(" ");
}
