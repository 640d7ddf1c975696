/* What the page knows: stations, their streams, runs, segments and losses. */

import { UnitMarks } from "../colours.js";
import { FrequencyAxis } from "../axes.js";
import { utcMs } from "../format.js";
import { ColumnRing, TraceRing } from "./picture/ring.js";

const KEEP_S = 600; // columns and traces
const MOST_COLUMN_BYTES = 48e6; // of a stream and kind
const MOST_SEGMENTS = 4000;
const MOST_MARKS = 1000;
const MOST_EPOCHS = 20;
const MOST_STREAMS = 64;
const MOST_UNITS = 200;
const JOIN_S = 0.5; // drawn between two runs whose distance is not known
const MOST_JOIN_S = 3;
const RANKS = { provisional: 1, revised: 2, final: 3 };

/** What of a unit's name is shown; "" is no label. */
export const unitOf = (segment) => segment.unit ?? "";

/**
 * One run of a stream: a sample clock, and its place on the page's time axis.
 *
 * Times on the page are seconds of the stream; sample s of this run is at
 * `base + s / rate`.
 */
class Epoch {
  constructor(run, rate, base) {
    this.run = run;
    this.rate = rate;
    this.base = base;
    this.zeroMs = null; // UTC of sample 0
    this.stop = 0; // sample
    this.hop = 0;
    this.frameLength = 0;
    this.rings = { frames: null, synthesis: null, surprise: null, trace: null };
    this.traceUnit = "";
    this.frames = null; // stats.values.frames
  }

  timeOf(sample) {
    return this.base + sample / this.rate;
  }

  sampleAt(time) {
    return (time - this.base) * this.rate;
  }
}

/** A stream of a station. */
export class Stream {
  constructor(station, name, marks) {
    this.station = station;
    this.name = name;
    this.marks = marks; // of units, common to all streams
    this.markedRun = null;
    this.key = `${station.id}\u0000${name}`;
    this.epochs = []; // oldest first
    this.segments = []; // by time of onset
    this.byNumber = new Map();
    this.misses = [];
    this.spans = []; // gaps, withheld audio, restarts
    this.levels = []; // {time, db}
    this.newest = 0; // s
    this.activeAt = 0; // page's clock, ms
    this.stats = null;
    this.health = new Map(); // stage -> health header
    this.mode = ""; // of the synthesis
    this.fresh = { from: Infinity, to: -Infinity }; // times of new columns
    this.rescaled = false;
    this.version = 0; // changes with what is drawn
    this.dropped = 0;
  }

  /** The newest run. */
  get epoch() {
    return this.epochs.at(-1) ?? null;
  }

  get axis() {
    const epoch = this.epoch;
    const nBins = epoch?.rings.frames?.nBins;
    if (!nBins) return null;
    const frames = epoch.frames?.n_bins === nBins ? epoch.frames : { n_bins: nBins };
    if (this.axisOf !== frames) {
      this.axisOf = frames;
      this.axisNow = new FrequencyAxis(frames);
    }
    return this.axisNow;
  }

  /** Return the run that a time belongs to; null: none. */
  epochAt(time) {
    for (let k = this.epochs.length - 1; k >= 0; k -= 1) {
      if (time >= this.epochs[k].base) return this.epochs[k];
    }
    return null;
  }

  epochOf(run) {
    return this.epochs.find((epoch) => epoch.run === run) ?? null;
  }

  /** Remember the newest run: after a reconnection others were missed. */
  mark() {
    this.markedRun = this.epoch?.run ?? null;
  }

  /**
   * Return the run of a header; a new one is placed behind, an older one before.
   *
   * null: a run that began and ended while the page was not connected, which has no
   * place between those that are drawn.
   */
  epochFor(header, how) {
    const known = this.epochOf(header.run);
    if (known) return known;
    const old = how === "older";
    if (how === "missed" && this.epoch && this.epoch.run !== this.markedRun) return null;
    const epoch = new Epoch(header.run, header.sample_rate, 0);
    const zero = zeroOf(header);
    if (!this.epochs.length) {
      this.epochs.push(epoch);
    } else if (old) {
      const next = this.epochs[0];
      epoch.base = next.base - JOIN_S - Math.max(header.at, header.sample) / epoch.rate;
      this.epochs.unshift(epoch);
      this.addSpan({ kind: "restart", from: next.base - JOIN_S, to: next.base, reason: "another run" });
    } else {
      const last = this.epoch;
      const stop = last.timeOf(last.stop);
      let pause = JOIN_S;
      let words = "the engine was started again";
      if (zero !== null && last.zeroMs !== null) {
        const seconds = (zero - last.zeroMs) / 1000 - last.stop / last.rate;
        if (seconds > 0) {
          pause = Math.min(Math.max(seconds, 0.05), MOST_JOIN_S);
          words = `the engine was started again after ${Math.round(seconds)} s`;
        }
      }
      epoch.base = stop + pause;
      this.epochs.push(epoch);
      this.addSpan({ kind: "restart", from: stop, to: epoch.base, reason: words });
    }
    epoch.zeroMs = zero;
    while (this.epochs.length > MOST_EPOCHS) this.epochs.splice(old ? -2 : 0, 1);
    return epoch;
  }

  /**
   * Take over what a header of any kind says.
   *
   * @param {object} header
   * @param {"live"|"missed"|"older"} how As it came, fetched to fill a hole, or fetched
   *     because one scrolls back.
   */
  addEvent(header, how) {
    const old = how !== "live";
    const epoch = this.epochFor(header, how);
    if (!epoch) return;
    if (header.utc_ns !== null && !old) epoch.zeroMs = zeroOf(header);
    else epoch.zeroMs ??= zeroOf(header);
    this.moveTo(epoch, header.at);
    switch (header.kind) {
      case "onset":
      case "offset":
      case "label":
      case "forecast":
        this.addToSegment(epoch, header);
        break;
      case "near_miss":
        insert(this.misses, {
          ...interval(epoch, header.onset, header.offset), header,
        }, MOST_MARKS);
        break;
      case "gap":
      case "withheld":
        this.addSpan({
          kind: header.kind,
          from: epoch.timeOf(header.start),
          to: epoch.timeOf(header.stop),
          reason: header.reason,
        });
        break;
      case "health":
        if (!old) this.health.set(header.stage, header);
        if (this.health.size > 100) this.health.delete(this.health.keys().next().value);
        break;
      case "stats":
        this.addStats(epoch, header);
        break;
      default:
    }
    this.version += 1;
  }

  addStats(epoch, header) {
    this.stats = header.values;
    epoch.frames = header.values.frames ?? epoch.frames;
    const time = epoch.timeOf(header.values.position ?? header.sample);
    insert(this.levels, { from: time, db: header.values.level_db }, KEEP_S);
  }

  addSpan(span) {
    if (this.spans.some((other) => other.from === span.from && other.kind === span.kind)) return;
    insert(this.spans, span, MOST_MARKS);
  }

  addToSegment(epoch, header) {
    const number = `${header.run}\u0000${header.segment}`;
    let segment = this.byNumber.get(number);
    if (header.kind === "forecast" && !segment) return; // of a segment to come
    if (!segment) {
      const onset = header.kind === "onset" ? header.sample : header.onset;
      segment = {
        number, run: header.run, segment: header.segment, epoch,
        onset, offset: null, from: epoch.timeOf(onset), to: null,
        unit: null, posterior: null, status: "", model: "", score: null,
        uncertain: false, truncated: false, forecast: null, latency: null, mark: -2, shape: "",
      };
      insert(this.segments, segment, 0);
      this.byNumber.set(number, segment);
      this.trim();
    }
    if (header.kind === "onset") {
      segment.score = header.score;
      segment.uncertain = header.provisional === true;
    } else if (header.kind === "forecast") {
      segment.forecast = { unit: header.unit, posterior: header.posterior };
    } else {
      const offset = header.kind === "offset" ? header.sample : header.offset;
      if (offset !== null) {
        segment.offset = offset;
        segment.to = epoch.timeOf(offset);
      }
      if (header.kind === "offset") segment.truncated = header.truncated;
      else if ((RANKS[header.status] ?? 0) >= (RANKS[segment.status] ?? 0)) {
        segment.unit = header.unit;
        segment.posterior = header.posterior;
        segment.status = header.status;
        segment.model = header.model;
        segment.latency = header.latency;
        segment.mark = this.marks.colour(header.unit);
        segment.shape = this.marks.shape(header.unit);
      }
    }
  }

  trim() {
    // What was fetched for scrolling back has room of its own.
    const most = this.still ? 5 * MOST_SEGMENTS : MOST_SEGMENTS;
    if (this.segments.length <= most) return;
    for (const segment of this.segments.splice(0, this.segments.length - most)) {
      this.byNumber.delete(segment.number);
    }
  }

  /** Take over columns or a trace. */
  addColumns(header, payload) {
    const epoch = this.epochFor(header, "live");
    epoch.hop = header.kind === "trace" ? epoch.hop : header.hop_length;
    if (header.kind === "frames") epoch.frameLength = header.frame_length;
    if (header.kind === "trace") {
      epoch.rings.trace ??= new TraceRing(4, header.hop_length, epoch.rate, KEEP_S);
      epoch.rings.trace.add(header.first, payload);
      epoch.traceUnit = header.unit;
    } else if (header.kind === "surprise") {
      epoch.rings.surprise ??= new TraceRing(1, header.hop_length, epoch.rate, KEEP_S);
      epoch.rings.surprise.add(header.first, payload);
    } else {
      const nBins = header.shape[1];
      if (!nBins) return;
      let ring = epoch.rings[header.kind];
      if (ring?.nBins !== nBins) {
        const keep = Math.min(
          Math.ceil((KEEP_S * epoch.rate) / header.hop_length),
          Math.floor(MOST_COLUMN_BYTES / nBins),
        );
        ring = new ColumnRing(nBins, keep);
        epoch.rings[header.kind] = ring;
        ring.columnsPerSecond = epoch.rate / header.hop_length;
      }
      if (ring.add(header.first, payload, header.low, header.high, header.unit)) this.rescaled = true;
      this.mode = header.kind === "synthesis" ? (header.mode ?? this.mode) : this.mode;
    }
    const first = header.first * header.hop_length;
    const last = first + header.shape[0] * header.hop_length + (header.frame_length ?? 0);
    this.fresh.from = Math.min(this.fresh.from, epoch.timeOf(first));
    this.fresh.to = Math.max(this.fresh.to, epoch.timeOf(last));
    this.moveTo(epoch, last);
    this.forgetColumns();
    this.version += 1;
  }

  /** Free columns of earlier runs that are older than what is kept. */
  forgetColumns() {
    for (const epoch of this.epochs) {
      if (epoch === this.epoch || epoch.timeOf(epoch.stop) > this.newest - KEEP_S) continue;
      epoch.rings = { frames: null, synthesis: null, surprise: null, trace: null };
    }
  }

  moveTo(epoch, sample) {
    epoch.stop = Math.max(epoch.stop, sample);
    if (epoch === this.epoch) this.newest = epoch.timeOf(epoch.stop);
  }
}

function zeroOf(header) {
  const ms = utcMs(header.utc_ns);
  return ms === null ? null : ms - (header.sample / header.sample_rate) * 1000;
}

const interval = (epoch, onset, offset) => ({
  from: epoch.timeOf(onset),
  to: epoch.timeOf(offset),
});

/** Insert by time, most often at the end; with `most` the oldest go. */
function insert(list, item, most) {
  let place = list.length;
  while (place > 0 && list[place - 1].from > item.from) place -= 1;
  if (place === list.length) list.push(item);
  else list.splice(place, 0, item);
  if (most && list.length > most) list.splice(0, list.length - most);
}

/** Return the index of the first item that may reach into times after `time`. */
export function firstFrom(list, time) {
  let low = 0;
  let high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].from < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** All stations and streams. */
export class Model {
  constructor() {
    this.stations = new Map();
    this.streams = new Map();
    this.marks = new UnitMarks(MOST_UNITS);
    this.columnsDropped = 0;
    this.forgotten = 0; // streams
  }

  setStation(station) {
    this.stations.set(station.id, station);
    for (const stream of this.streams.values()) {
      if (stream.station.id === station.id) stream.station = station;
    }
  }

  /** Return a stream; of very many the one that was silent longest is forgotten. */
  stream(stationId, name) {
    const key = `${stationId}\u0000${name}`;
    let stream = this.streams.get(key);
    if (!stream) {
      const station = this.stations.get(stationId) ?? { id: stationId, name: stationId };
      stream = new Stream(station, name, this.marks);
      this.streams.set(key, stream);
      if (this.streams.size > MOST_STREAMS) this.forgetStream(key);
    }
    return stream;
  }

  forgetStream(kept) {
    const others = [...this.streams.values()].filter((stream) => stream.key !== kept);
    const oldest = others.reduce((a, b) => (b.activeAt < a.activeAt ? b : a));
    this.streams.delete(oldest.key);
    this.forgotten += 1;
  }
}
