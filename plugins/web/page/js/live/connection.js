/* The WebSocket to the server: opens it again with growing pauses, decodes messages. */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;
const QUIET_MS = 20000; // without any message: is the server still there?

/** Decode a binary message: {header, payload}; bytes for "u1", else float32. */
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = Math.ceil((4 + length) / 4) * 4;
  const size = header.shape.reduce((product, n) => product * n, 1);
  const payload =
    header.dtype === "u1"
      ? new Uint8Array(buffer, start, size)
      : new Float32Array(buffer, start, size);
  return { header, payload };
}

/**
 * A connection that is opened again whenever it was lost.
 *
 * Listeners: `onmessage(message)` of a JSON message, `oncolumns(header, payload)`,
 * `onstate(state)` with {state: "connecting" | "open" | "waiting" | "refused",
 * retryAt: ms, attempt: number}.
 */
export class Connection {
  constructor({ onmessage, oncolumns, onstate }) {
    this.onmessage = onmessage;
    this.oncolumns = oncolumns;
    this.onstate = onstate;
    this.attempt = 0;
    this.socket = null;
    this.timer = 0;
    this.replies = new Map();
    this.nextId = 1;
    this.columnsOn = true;
  }

  /** Open the connection now. */
  open() {
    clearTimeout(this.timer);
    this.socket?.close();
    const url = new URL("ws", document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.attempt += 1;
    this.heardAt = Date.now();
    this.greeted = false;
    this.tell("connecting");
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.heardAt = Date.now();
      if (typeof event.data === "string") this.receive(JSON.parse(event.data));
      else {
        const { header, payload } = decode(event.data);
        this.oncolumns(header, payload);
      }
    };
    socket.onclose = () => {
      if (socket === this.socket) this.lost();
    };
    clearInterval(this.watch);
    this.watch = setInterval(() => {
      // A server that was cut off without a word is not noticed by the browser.
      if (socket === this.socket && Date.now() - this.heardAt > QUIET_MS) socket.close();
    }, 2000);
  }

  receive(message) {
    if (message.type === "hello") {
      this.attempt = 0;
      this.greeted = true;
      this.tell("open");
      if (!this.columnsOn) this.send({ type: "columns", on: false });
    }
    if (message.type === "reply") {
      this.replies.get(message.id)?.(message);
      this.replies.delete(message.id);
      return;
    }
    this.onmessage(message);
  }

  lost() {
    this.socket = null;
    clearInterval(this.watch);
    for (const answer of this.replies.values()) {
      answer({ ok: false, error: "the connection was lost before the reply came" });
    }
    this.replies.clear();
    if (!this.greeted) this.askWhether();
    const growing = FIRST_PAUSE_MS * 2 ** Math.min(this.attempt, 10);
    const pause = Math.min(growing, LONGEST_PAUSE_MS) * (0.75 + 0.5 * Math.random());
    this.retryAt = Date.now() + pause;
    this.timer = setTimeout(() => this.open(), pause);
    this.tell("waiting");
  }

  /** A session that has ended looks like a server that is away: ask by HTTP. */
  async askWhether() {
    try {
      const response = await fetch("api/events?limit=1", { cache: "no-store" });
      if (response.status !== 401) return;
    } catch {
      return; // it is away
    }
    clearTimeout(this.timer);
    this.tell("refused");
  }

  tell(state) {
    this.onstate({ state, attempt: this.attempt, retryAt: this.retryAt ?? 0 });
  }

  send(message) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  /** Ask for columns, or for none (a hidden page draws nothing). */
  columns(on) {
    if (on === this.columnsOn) return;
    this.columnsOn = on;
    this.send({ type: "columns", on });
  }

  /** Send a command; resolves to the reply. */
  command(station, command, fields = {}) {
    const id = this.nextId++;
    return new Promise((resolve) => {
      this.replies.set(id, resolve);
      const sent = this.send({ type: "command", id, station, command, ...fields });
      if (!sent) {
        this.replies.delete(id);
        resolve({ ok: false, error: "the page is not connected" });
      }
    });
  }
}
