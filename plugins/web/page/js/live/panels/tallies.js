/* Counts: units, minutes, transitions, latencies. All bounded. */

const MOST_UNITS = 200;
const MINUTES = 60;
const MOST_LATENCIES = 2000;
const CHAIN_S = 0.5; // a longer silence ends a sequence
export const OTHER = "(other units)";

/** Sum of a latency ledger in ms; null where a part is not known. */
export function total(latency) {
  if (!latency) return null;
  const parts = [latency.wait_ms, latency.queue_ms, latency.compute_ms, latency.publish_ms];
  // What came from a journal was not sent live.
  if (parts.some((part) => part === null || part === undefined)) return null;
  return parts.reduce((sum, part) => sum + part, 0);
}

/** Counts of final labels since the page was opened. */
export class Tallies {
  constructor() {
    this.units = new Map();
    this.unknown = 0;
    this.misses = 0;
    this.labels = 0;
    this.minutes = new Map(); // minute -> {labels, rejected}
    this.transitions = new Map(); // unit -> Map(unit -> n)
    this.before = new Map(); // stream -> {unit, stop}
    this.latencies = { label: [], onset: [] };
    this.version = 0;
  }

  /** Count an event; `ms` is its time since 1970, or that of its arrival. */
  add(streamKey, header, ms) {
    if (header.kind === "label" && header.status === "final") {
      this.addLabel(streamKey, header, ms);
      this.addLatency("label", header);
    } else if (header.kind === "near_miss") {
      this.misses += 1 + header.omitted;
      this.minute(ms).rejected += 1;
    } else if (header.kind === "onset") {
      this.addLatency("onset", header);
    } else {
      return;
    }
    this.version += 1;
  }

  addLabel(streamKey, header, ms) {
    const { unit, onset, offset } = header;
    const before = this.before.get(streamKey);
    if (unit === "unknown") {
      this.unknown += 1;
      this.minute(ms).rejected += 1;
      this.before.delete(streamKey);
      return;
    }
    const name = this.units.has(unit) || this.units.size < MOST_UNITS ? unit : OTHER;
    this.labels += 1;
    this.units.set(name, (this.units.get(name) ?? 0) + 1);
    this.minute(ms).labels += 1;
    const near = before && before.run === header.run && onset >= before.stop - 1 &&
      onset - before.stop <= CHAIN_S * header.sample_rate;
    if (near) {
      if (!this.transitions.has(before.unit)) this.transitions.set(before.unit, new Map());
      const row = this.transitions.get(before.unit);
      row.set(name, (row.get(name) ?? 0) + 1);
    }
    this.before.set(streamKey, { unit: name, stop: offset ?? onset, run: header.run });
    if (this.before.size > 500) this.before.delete(this.before.keys().next().value);
  }

  minute(ms) {
    const number = Math.floor(ms / 60000);
    let minute = this.minutes.get(number);
    if (!minute) {
      minute = { labels: 0, rejected: 0 };
      this.minutes.set(number, minute);
      const newest = Math.max(...this.minutes.keys());
      for (const old of this.minutes.keys()) {
        if (old <= newest - MINUTES) this.minutes.delete(old);
      }
    }
    return this.minutes.get(number) ?? minute;
  }

  addLatency(kind, header) {
    const value = total(header.latency);
    if (value === null) return;
    const list = this.latencies[kind];
    list.push({ total: value, ...header.latency });
    if (list.length > MOST_LATENCIES) list.splice(0, list.length - MOST_LATENCIES);
  }

  /** Return [unit, count], most first. */
  ranking() {
    return [...this.units].sort((a, b) => b[1] - a[1]);
  }

  /** Return the last 60 minutes, oldest first: [minute, {labels, rejected}]. */
  lastMinutes() {
    if (!this.minutes.size) return [];
    const newest = Math.max(...this.minutes.keys());
    return Array.from({ length: MINUTES }, (_, k) => {
      const number = newest - MINUTES + 1 + k;
      return [number, this.minutes.get(number) ?? { labels: 0, rejected: 0 }];
    });
  }
}

/** Return quantiles of numbers; null where there are none. */
export function quantile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(Math.floor(share * sorted.length), sorted.length - 1)];
}
