/* Requests of the discovery page to its server. */

/** Refusal or failure of a request; the message is a sentence for people. */
export class DiscoverError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new DiscoverError(
      "The server does not answer: is `neurovocal discover --page` still running?",
    );
  }
  if (response.status === 401 || response.redirected) {
    window.location.reload(); // the session is over: the form comes
    throw new DiscoverError("Log in again.");
  }
  if (response.ok) return response;
  let sentence = `the server refuses (${response.status})`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch {
    // no JSON: the number must do
  }
  throw new DiscoverError(sentence, response.status);
}

/** Read clusters, recordings and axes. */
export async function readState() {
  return (await answer(fetch("discover/api/state"))).json();
}

/** Send JSON and read the answer. */
export async function send(name, body) {
  const request = fetch(`discover/api/${name}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return (await answer(request)).json();
}

/**
 * Read all segments.
 *
 * @param {number} count Number of segments.
 * @returns {Promise<{places: Float32Array, onset: Float32Array, duration: Float32Array,
 *     cluster: Int32Array, recording: Int32Array, membership: Float32Array}>} Seconds;
 *     places are x and y in turn.
 */
export async function readPoints(count) {
  const buffer = await (await answer(fetch("discover/api/points"))).arrayBuffer();
  let at = 0;
  const next = (Kind, length) => {
    const array = new Kind(buffer, at, length);
    at += 4 * length;
    return array;
  };
  return {
    places: next(Float32Array, 2 * count),
    onset: next(Float32Array, count),
    duration: next(Float32Array, count),
    cluster: next(Int32Array, count),
    recording: next(Int32Array, count),
    membership: next(Float32Array, count),
  };
}

/** Return the address of a segment's sound. */
export function soundAddress(segment) {
  return `discover/api/sound?id=${segment}`;
}

const MOST_AT_ONCE = 200;
const MOST_KEPT = 6000;

/** Patches of segments, read when they are first wanted, a bounded number kept. */
export class Patches {
  /**
   * @param {number} size Bytes of a patch.
   * @param {() => void} arrived Called when patches have come.
   */
  constructor(size, arrived) {
    this.size = size;
    this.arrived = arrived;
    this.kept = new Map();
    this.wanted = new Set();
    this.busy = false;
  }

  /** Return a patch, Uint8Array[columns * bins]; null and read it if it is not here. */
  get(segment) {
    const patch = this.kept.get(segment);
    if (patch) return patch;
    this.wanted.add(segment);
    if (!this.busy) {
      this.busy = true;
      setTimeout(() => this.read(), 30);
    }
    return null;
  }

  async read() {
    // What was wanted last is on the screen now.
    const ids = [...this.wanted].slice(-MOST_AT_ONCE);
    this.wanted.clear();
    try {
      const response = await answer(fetch(`discover/api/patches?ids=${ids.join(",")}`));
      const bytes = new Uint8Array(await response.arrayBuffer());
      ids.forEach((id, k) => {
        this.kept.set(id, bytes.subarray(k * this.size, (k + 1) * this.size));
      });
      while (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
    } catch {
      // The status tells of a server that is gone when something is changed.
      this.busy = false;
      return;
    }
    this.busy = false;
    this.arrived();
  }
}
