// Gets back what a subscriber missed, from the replay socket of the engine's journal.
//
// Each topic has a position: run and number of the last message that was handed out.
// A live message that does not follow it is held while the journal is asked for what
// comes between; docs/reference/wire.md, "Replaying missed messages".

import { Dealer } from "zeromq";

const ASK_AGAIN_MS = 2000; // a question without an answer; a topic that is quiet
const RETRY_MS = 150; // the journal commits within a second
const MOST_ASKED = 1000; // questions whose answers may still come
const PATIENCE_MS = 5000; // what the journal still lacks then is missed
const STARVED_MS = 60_000; // of live messages without any answer: they go on
const SILENCE_MS = 10_000; // what a silence adds to that at most
const MOST_HELD = 1000;
const PAGE = 500;

// Kinds that a journal does not keep: they are as they come.
export const NOT_KEPT = new Set([
  "block", "frames", "posteriors", "surprise", "synthesis", "audio", "stats",
]);

// A machine that loses power tells nobody: the kernel asks whether it is still there.
export const KEEP_ALIVE = {
  tcpKeepalive: 1, tcpKeepaliveIdle: 8, tcpKeepaliveInterval: 4, tcpKeepaliveCount: 3,
};

// An address such as tcp://[::1]:5556.
export const isIPv6 = (endpoint) => endpoint.includes("[");

export class Replay {
  #socket;
  #silentSince = null;
  #told = "";
  #topics = new Map();
  #asked = new Map();
  #number = 0;
  #listed = -Infinity;
  #closed = false;
  #timer;

  // `handOut(header, payload, missed)` gets every message once, in its topic's order.
  constructor(endpoint, kinds, start, handOut, curve = {}) {
    this.#socket = new Dealer({
      ipv6: isIPv6(endpoint), immediate: true, linger: 0, sendTimeout: 0,
      tcpMaxRetransmitTimeout: 20_000, ...KEEP_ALIVE, ...curve,
    });
    this.kinds = kinds;
    this.start = start;
    this.handOut = handOut;
    this.#socket.connect(endpoint);
    this.#listen();
    this.#timer = setInterval(() => this.#ask(), 50);
  }

  close() {
    this.#closed = true;
    clearInterval(this.#timer);
    this.#socket.close();
  }

  live(header, payload) {
    const topic = this.#topic(header.kind, header.stream, this.start !== "now");
    if (this.#isOld(topic, header)) return;
    if (!topic.behind && this.#follows(topic, header)) {
      this.#give(topic, header, payload);
      return;
    }
    const now = Date.now();
    if (topic.held.length === 0) Object.assign(topic, { heldSince: now, starved: 0 });
    else topic.starved += Math.min(now - topic.heardAt, SILENCE_MS);
    topic.heardAt = now;
    if (!topic.behind) Object.assign(topic, { behind: true, due: now });
    topic.held.push([header, payload]);
    if (topic.held.length > MOST_HELD) topic.held.shift(); // asked for again
    if (topic.starved > STARVED_MS) this.#skipHole(topic);
  }

  #topic(kind, stream, behind) {
    const key = JSON.stringify([kind, stream]);
    if (!this.#topics.has(key)) {
      this.#topics.set(key, {
        kind, stream, behind, position: null, past: new Set(), held: [], heldSince: 0,
        heardAt: 0, starved: 0,
        question: null, askedAt: -Infinity, due: -Infinity,
      });
    }
    return this.#topics.get(key);
  }

  #isOld({ position, past }, header) {
    if (position === null) return false;
    return position.run === header.run ? header.seq <= position.seq : past.has(header.run);
  }

  #follows({ position }, header) {
    if (position === null) {
      return this.start === "now" || (this.start === "run" && header.seq === 0);
    }
    return position.run === header.run && header.seq === position.seq + 1;
  }

  #give(topic, header, payload) {
    const before = topic.position;
    let expected = this.start === "now" ? header.seq : 0;
    if (before?.run === header.run) expected = before.seq + 1;
    else if (before) {
      expected = 0;
      topic.past.add(before.run);
    }
    topic.position = { run: header.run, seq: header.seq };
    this.handOut(header, payload, Math.max(0, header.seq - expected));
  }

  #release(topic) {
    while (topic.held.length > 0) {
      const [header, payload] = topic.held[0];
      if (this.#follows(topic, header)) this.#give(topic, header, payload);
      else if (!this.#isOld(topic, header)) return;
      topic.held.shift();
    }
  }

  #ask() {
    const now = Date.now();
    if (this.start !== "now" && now - this.#listed >= ASK_AGAIN_MS) {
      this.#listed = now;
      this.#send({ command: "topics", kinds: this.kinds });
    }
    for (const topic of this.#topics.values()) {
      if (topic.question !== null && now - topic.askedAt < ASK_AGAIN_MS) continue;
      if (now < (topic.behind ? topic.due : topic.askedAt + ASK_AGAIN_MS)) continue;
      topic.askedAt = now;
      topic.question = this.#send({
        command: "replay", kind: topic.kind, stream: topic.stream,
        after: topic.position, most: PAGE,
        start: this.start === "run" ? "run" : "journal",
      });
      this.#asked.set(topic.question, { topic, askedAt: now });
      if (this.#asked.size > MOST_ASKED) this.#asked.delete(this.#asked.keys().next().value);
    }
    this.#complain(now);
  }

  #complain(now) {
    if (![...this.#topics.values()].some((topic) => topic.held.length > 0)) {
      this.#silentSince = null;
    } else if (this.#silentSince === null) {
      this.#silentSince = now;
    } else if (now - this.#silentSince > PATIENCE_MS) {
      this.#tell("the replay socket does not answer: messages wait for those before them");
    }
  }

  #tell(what) {
    if (what !== "" && what !== this.#told) console.error(what.replace(/\p{C}/gu, "?"));
    this.#told = what;
  }

  // A journal that was asked late enough and has nothing never had it.
  #giveUp(topic, askedAt) {
    if (askedAt - topic.heldSince > PATIENCE_MS) this.#skipHole(topic);
  }

  #skipHole(topic) {
    if (topic.held.length === 0) return;
    this.#give(topic, ...topic.held.shift());
    this.#release(topic);
    Object.assign(topic, {
      heldSince: Date.now(), starved: 0, behind: topic.held.length > 0,
    });
  }

  #send(question) {
    this.#number += 1;
    const text = JSON.stringify({ v: 1, id: this.#number, ...question });
    this.#socket.send(text).catch(() => {}); // nobody is there: asked again
    return this.#number;
  }

  async #listen() {
    try {
      for await (const [head, ...parts] of this.#socket) {
        this.#hear(JSON.parse(head.toString()), parts);
      }
    } catch (error) {
      if (!this.#closed) throw error;
    }
  }

  #hear(reply, parts) {
    this.#silentSince = null;
    this.#tell(reply.ok ? "" : `the replay socket refuses: ${reply.error}`);
    for (const [kind, stream] of reply.topics ?? []) this.#topic(kind, stream, true);
    const { topic, askedAt } = this.#asked.get(reply.id) ?? {};
    this.#asked.delete(reply.id);
    if (!topic) return;
    topic.starved = 0;
    if (!reply.ok) { // no journal yet, or a disk in trouble: asked again
      this.#giveUp(topic, askedAt);
      return;
    }
    // One that was asked again since is as good.
    if (topic.question === reply.id) topic.question = null;
    let goesOn = false;
    for (let first = 0; first < parts.length; first += 3) {
      const header = JSON.parse(parts[first + 1].toString());
      if (this.#isOld(topic, header)) continue;
      this.#give(topic, header, parts[first + 2]);
      goesOn = true;
    }
    this.#release(topic);
    if (goesOn) topic.heldSince = Date.now();
    else if (!reply.more) this.#giveUp(topic, askedAt);
    topic.behind = topic.held.length > 0 || reply.more;
    topic.due = Date.now() + (reply.more ? 0 : RETRY_MS);
  }
}
