// Prints the labels that a running engine publishes: docs/wire.md in JavaScript.
//
//   node subscriber.mjs [ENDPOINT] [--kinds label,onset] [--count N] [--json]
//                       [--replay ENDPOINT] [--start now|run|journal]
//
// With --replay, what was missed is asked for and printed in its place. Exit code 3
// says that messages were missed all the same.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { Subscriber } from "zeromq";
import { KEEP_ALIVE, NOT_KEPT, Replay } from "./replay.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kinds: { type: "string", default: "label" },
    count: { type: "string", default: "Infinity" },
    json: { type: "boolean", default: false },
    replay: { type: "string" },
    start: { type: "string", default: "now" },
  },
});
const endpoint = positionals[0] ?? "tcp://127.0.0.1:5556";
const count = Number(options.count);

// Messages of a topic are numbered without holes: a jump is what was missed.
const next = new Map();

function missedBefore(topic, header) {
  const known = next.get(topic);
  next.set(topic, { run: header.run, seq: header.seq + 1 });
  return known?.run === header.run ? header.seq - known.seq : 0;
}

// The payload is an array of little-endian float32; header.shape says which.
function arrayOf(payload) {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  return Float32Array.from({ length: payload.byteLength / 4 }, (_, index) =>
    view.getFloat32(4 * index, true),
  );
}

// What comes from a network must not steer the terminal.
function printable(text) {
  return text.replace(/\p{C}/gu, "?");
}

function lineOf(header, payload) {
  const seconds = (header.sample / header.sample_rate).toFixed(3);
  const start = `${seconds.padStart(10)} s  ${header.stream}  ${header.kind}`;
  if (header.kind === "label") {
    return `${start}  ${header.unit}  ${header.posterior?.toFixed(3) ?? "?"}  ${header.status}`;
  }
  if (header.shape) {
    return `${start}  ${header.shape.join(" x ")} values, first ${arrayOf(payload)[0]}`;
  }
  return start;
}

const socket = new Subscriber({
  receiveHighWaterMark: 1000, maxMessageSize: 64 * 2 ** 20, ...KEEP_ALIVE,
});
const kinds = options.kinds.split(",");
for (const kind of kinds) socket.subscribe(`nv1/${kind}/`);
// Last of all: tells the engine that nothing more will be subscribed to.
socket.subscribe(`nv1~ready/${randomUUID()}/1/1`);

let heard = 0;
let missed = 0;

function handOut(header, payload, lost) {
  if (heard >= count) return;
  if (lost > 0) {
    missed += lost;
    console.error(printable(`missed ${lost} ${header.kind} messages of ${header.stream}`));
  }
  console.log(options.json ? JSON.stringify(header) : printable(lineOf(header, payload)));
  heard += 1;
  if (heard >= count) stop();
}

const replay = options.replay
  ? new Replay(options.replay, kinds, options.start, handOut)
  : null;

function stop() {
  replay?.close();
  socket.close();
  process.exitCode = missed > 0 ? 3 : 0;
}

socket.connect(endpoint);
try {
  for await (const [topicBytes, headerBytes, payload] of socket) {
    const header = JSON.parse(headerBytes.toString());
    if (replay && !NOT_KEPT.has(header.kind)) replay.live(header, payload);
    else handOut(header, payload, missedBefore(topicBytes.toString(), header));
  }
} catch (error) {
  if (!socket.closed) throw error;
}
