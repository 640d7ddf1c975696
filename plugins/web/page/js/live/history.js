/* Fills holes: which messages were received, and fetching of those that were not. */

const MOST_TOPICS = 5000;
const MOST_HOLES = 100; // of a topic
const PAGE = 500;
const MOST_PAGES = 40; // for one hole
/** Kinds that no journal keeps: a hole in them is not filled. */
const UNKEPT = new Set(["stats", "anchor"]);
/** Kinds of the log and the picture. */
export const EVENT_KINDS = [
  "onset", "offset", "near_miss", "label", "gap", "withheld", "health", "control", "trigger",
  "comparison", "suggestion",
];

/**
 * Which messages of each topic were received, by `seq`.
 *
 * A topic is a kind of a stream of a station. In one run `seq` has no holes; another
 * run begins at 0 (docs/reference/wire.md).
 */
export class Received {
  constructor() {
    this.topics = new Map();
  }

  /**
   * Note a message.
   *
   * @returns {{fresh: boolean, hole: object|null}} Whether it was not received before,
   *     and the hole in front of it: {station, kind, stream, run, from, to}.
   */
  note(station, header) {
    const { kind, stream, run, seq } = header;
    const key = `${station}\u0000${kind}\u0000${stream}`;
    let topic = this.topics.get(key);
    let hole = null;
    if (!topic) {
      if (this.topics.size >= MOST_TOPICS) this.topics.delete(this.topics.keys().next().value);
      topic = { run, markedRun: null, last: seq, holes: [], earlier: new Map() };
      this.topics.set(key, topic);
      return { fresh: true, hole };
    }
    if (run !== topic.run) {
      const before = topic.earlier.get(run);
      if (before) return { fresh: this.fill(before, seq), hole };
      topic.earlier.set(topic.run, { last: topic.last, holes: topic.holes });
      if (topic.earlier.size > 5) topic.earlier.delete(topic.earlier.keys().next().value);
      topic.run = run;
      topic.holes = [];
      topic.last = -1;
    }
    if (seq <= topic.last) return { fresh: this.fill(topic, seq), hole };
    if (seq > topic.last + 1 && !UNKEPT.has(kind)) {
      topic.holes.push([topic.last + 1, seq - 1]);
      if (topic.holes.length > MOST_HOLES) topic.holes.shift();
      hole = { station, kind, stream, run, from: topic.last + 1, to: seq - 1 };
    }
    topic.last = seq;
    return { fresh: true, hole };
  }

  /** Remember the runs of now: what is fetched later tells older from newer ones. */
  mark() {
    for (const topic of this.topics.values()) topic.markedRun = topic.run;
  }

  /**
   * Note a message from history; whether it was not received before.
   *
   * @param {string} station
   * @param {object} header
   * @param {boolean} older Whether it is older than a message that was received: then
   *     topics and runs that are not known are none of those that were missed.
   */
  noteOld(station, header, older) {
    const { kind, stream, run, seq } = header;
    const key = `${station}\u0000${kind}\u0000${stream}`;
    const topic = this.topics.get(key);
    if (!topic) {
      if (older) return false;
      this.topics.set(key, { run, last: seq, holes: begin(seq), earlier: new Map() });
      return true;
    }
    const of = topic.run === run ? topic : topic.earlier.get(run);
    if (of) {
      if (seq <= of.last) return this.fill(of, seq);
      if (seq > of.last + 1) of.holes.push([of.last + 1, seq - 1]);
      of.last = seq;
      return true;
    }
    if (older) return false;
    if (topic.run === topic.markedRun) {
      topic.earlier.set(topic.run, { last: topic.last, holes: topic.holes });
      Object.assign(topic, { run, last: seq, holes: begin(seq) });
    } else {
      topic.earlier.set(run, { last: seq, holes: begin(seq) });
    }
    return true;
  }

  /** Take `seq` out of the holes; false where it is in none. */
  fill(topic, seq) {
    for (let k = 0; k < topic.holes.length; k += 1) {
      const [from, to] = topic.holes[k];
      if (seq < from || seq > to) continue;
      const left = [];
      if (from < seq) left.push([from, seq - 1]);
      if (seq < to) left.push([seq + 1, to]);
      topic.holes.splice(k, 1, ...left);
      return true;
    }
    return false;
  }
}

const begin = (seq) => (seq > 0 ? [[0, seq - 1]] : []);

/** Events of a station before those that the page has, newest first. */
export async function fetchEvents(station, { kinds, stream, before, limit = PAGE } = {}) {
  const query = new URLSearchParams({ station, limit: String(limit) });
  if (kinds) query.set("kinds", kinds.join(","));
  if (stream !== undefined && stream !== null) query.set("stream", stream);
  if (before) query.set("before", before);
  const response = await fetch(`api/events?${query}`, { cache: "no-store" });
  if (!response.ok) throw new Error((await response.text()) || response.statusText);
  return response.json();
}

/**
 * Fetches what is missing, one request after another.
 *
 * @param {Received} received
 * @param {function} take Called as take(station, headers) with headers that were not
 *     received before, oldest first.
 */
export class HoleFiller {
  constructor(received, take) {
    this.received = received;
    this.take = take;
    this.waiting = [];
    this.busy = false;
    this.filled = 0;
    this.lost = 0;
  }

  /** Fetch the messages of a hole. */
  fill(hole) {
    const same = this.waiting.find(
      (other) =>
        other.station === hole.station && other.kind === hole.kind && other.stream === hole.stream,
    );
    if (same) this.waiting.splice(this.waiting.indexOf(same), 1, { ...same, ...hole });
    else this.waiting.push(hole);
    this.work();
  }

  /** After a reconnection: fetch the end of what came meanwhile, of all topics. */
  catchUp(station) {
    this.waiting.push({ station, catchUp: true });
    this.work();
  }

  async work() {
    if (this.busy) return;
    this.busy = true;
    while (this.waiting.length) {
      const job = this.waiting.shift();
      try {
        await this.fetchJob(job);
      } catch (error) {
        // The server is away: after the reconnection all is caught up.
        console.warn(`history of ${job.station}: ${error.message}`);
      }
    }
    this.busy = false;
  }

  async fetchJob(job) {
    let before = null;
    let older = !job.catchUp;
    let pagesWithoutNews = 0;
    const found = [];
    for (let page = 0; page < MOST_PAGES; page += 1) {
      const wanted = job.catchUp
        ? { kinds: EVENT_KINDS, before }
        : { kinds: [job.kind], stream: job.stream, before };
      const { events, cursor } = await fetchEvents(job.station, wanted);
      let news = 0;
      for (const header of events) {
        if (this.received.noteOld(job.station, header, older)) {
          found.push(header);
          news += 1;
        } else {
          older = true;
        }
      }
      const reached =
        !job.catchUp &&
        events.some((header) => header.run === job.run && header.seq <= job.from);
      // Topics reach the journal in different order, and a page may be empty though
      // there are earlier events: one page without news is no end.
      if (events.length) pagesWithoutNews = news ? 0 : pagesWithoutNews + 1;
      if (!cursor || reached || pagesWithoutNews >= 2) break;
      before = cursor;
    }
    this.filled += found.length;
    if (found.length) this.take(job.station, found.reverse());
  }
}

const PICTURE_KINDS = ["onset", "offset", "near_miss", "label", "gap", "withheld"];
const MOST_BACK = 15000; // segments of a stream that are fetched for its picture

/** Fetches the events before those that a picture has, when one scrolls back. */
export class PictureHistory {
  constructor() {
    this.states = new Map(); // stream -> {cursor, done, loading, from}
  }

  /** Fetch until the time `left` of a stream is reached. */
  async want(stream, left) {
    let state = this.states.get(stream.key);
    if (!state) {
      state = { cursor: null, done: false, loading: false };
      this.states.set(stream.key, state);
    }
    const oldest = stream.segments[0]?.from ?? stream.newest;
    if (state.done || state.loading || left >= oldest || stream.segments.length > MOST_BACK) return;
    state.loading = true;
    try {
      const { events, cursor } = await fetchEvents(stream.station.id, {
        kinds: PICTURE_KINDS, stream: stream.name, before: state.cursor,
      });
      for (const header of events) stream.addEvent(header, "older");
      state.cursor = cursor;
      state.done = !cursor;
    } catch (error) {
      console.warn(`history of ${stream.name}: ${error.message}`);
      state.done = true; // until the page follows again
    }
    state.loading = false;
  }

  /** Begin anew: what was fetched has been let go. */
  reset() {
    this.states.clear();
  }
}
