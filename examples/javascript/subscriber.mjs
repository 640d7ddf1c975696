// Prints the labels that a running engine publishes: docs/wire.md in JavaScript.
//
//   node subscriber.mjs [ENDPOINT] [--kinds label,onset] [--count N] [--json]
//
// Exit code 3 says that messages were missed.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { Subscriber } from "zeromq";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kinds: { type: "string", default: "label" },
    count: { type: "string", default: "Infinity" },
    json: { type: "boolean", default: false },
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

const socket = new Subscriber({ receiveHighWaterMark: 1000 });
for (const kind of options.kinds.split(",")) socket.subscribe(`nv1/${kind}/`);
// Last of all: tells the engine that nothing more will be subscribed to.
socket.subscribe(`nv1~ready/${randomUUID()}/1/1`);
socket.connect(endpoint);

let heard = 0;
let missed = 0;
for await (const [topicBytes, headerBytes, payload] of socket) {
  const header = JSON.parse(headerBytes.toString());
  const lost = missedBefore(topicBytes.toString(), header);
  if (lost > 0) {
    missed += lost;
    console.error(`missed ${lost} messages of ${topicBytes}`);
  }
  console.log(options.json ? JSON.stringify(header) : lineOf(header, payload));
  heard += 1;
  if (heard >= count) break;
}
socket.close();
process.exitCode = missed > 0 ? 3 : 0;
