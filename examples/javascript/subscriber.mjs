// Prints the labels that a running engine publishes: docs/reference/wire.md in JavaScript.
//
//   node subscriber.mjs [ENDPOINT] [--kinds label,onset] [--count N] [--json]
//                       [--replay ENDPOINT] [--start now|run|journal] [--keys DIR]
//
// With --replay, what was missed is asked for and printed in its place. Exit code 3
// says that messages were missed all the same.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { Subscriber } from "zeromq";
import { curveOf } from "./keys.mjs";
import { isIPv6, KEEP_ALIVE, NOT_KEPT, Replay } from "./replay.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kinds: { type: "string", default: "label" },
    count: { type: "string", default: "Infinity" },
    json: { type: "boolean", default: false },
    replay: { type: "string" },
    start: { type: "string", default: "now" },
    keys: { type: "string" },
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

const KINDS = new Set([
  "block", "gap", "withheld", "anchor", "frames", "posteriors", "trace", "onset", "offset",
  "near_miss", "label", "forecast", "suggestion", "surprise", "synthesis", "audio", "health",
  "control", "trigger", "comparison", "stats",
]);
const kinds = options.kinds.split(",");
const unknown = kinds.find((kind) => !KINDS.has(kind));
const mistake =
  unknown !== undefined
    ? `--kinds: there is no kind '${unknown}', only ${[...KINDS].join(", ")}`
    : !["now", "run", "journal"].includes(options.start)
      ? `--start: '${options.start}' is none of now, run, journal`
      : null;
if (mistake !== null) {
  console.error(`error: ${mistake}`);
  process.exit(1);
}

let curve = {};
try {
  if (options.keys) curve = curveOf(options.keys);
} catch (error) {
  console.error(`error: --keys: ${error.message}`);
  process.exit(1);
}
const socket = new Subscriber({
  ...curve, ipv6: isIPv6(endpoint),
  receiveHighWaterMark: 1000, maxMessageSize: 64 * 2 ** 20, ...KEEP_ALIVE,
});
for (const kind of kinds) socket.subscribe(`nv1/${kind}/`);
// Last of all: tells the engine that nothing more will be subscribed to.
socket.subscribe(`nv1~ready/${randomUUID()}/1/1`);

let heard = 0;
let missed = 0;
let refused = false;

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
  ? new Replay(options.replay, kinds, options.start, handOut, curve)
  : null;

function stop() {
  replay?.close();
  socket.close();
  process.exitCode = refused ? 2 : missed > 0 ? 3 : 0;
}

for (const name of ["handshake:error:auth", "handshake:error:protocol"]) {
  socket.events.on(name, () => {
    console.error(`${endpoint} does not let this program in: --keys DIR, from 'neurovocal keys add'`);
    refused = true;
    stop();
  });
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
