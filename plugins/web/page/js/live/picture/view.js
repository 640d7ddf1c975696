/* Which times are visible, common to all streams, and the gestures that change it. */

export const SHORTEST_S = 0.05;
export const LONGEST_S = 600;

/** Span, and whether the newest sound is followed. */
export class View {
  /** @param {number} span Seconds that are visible. */
  constructor(span) {
    this.span = span;
    this.live = true;
    this.rights = new Map(); // of each stream while it stands still
    this.listeners = new Set();
  }

  /** Return the time at the right edge of a stream's picture, s. */
  rightOf(stream) {
    if (this.live) return stream.newest;
    return this.rights.get(stream.key) ?? stream.newest;
  }

  /** Stand still. */
  pause(streams) {
    if (!this.live) return;
    for (const stream of streams) {
      this.rights.set(stream.key, stream.newest);
      stream.still = true;
    }
    this.live = false;
    this.changed();
  }

  /** Follow the newest sound. */
  follow(streams) {
    this.live = true;
    this.rights.clear();
    for (const stream of streams) stream.still = false;
    this.changed();
  }

  /** Move by seconds; earlier is negative. */
  pan(seconds, streams) {
    if (this.live && seconds >= 0) return;
    this.pause(streams);
    for (const stream of streams) {
      const right = Math.min(this.rightOf(stream) + seconds, stream.newest);
      this.rights.set(stream.key, right);
    }
    this.changed();
  }

  /** Show a time of one stream in the middle; the others move by as much. */
  show(time, stream, streams) {
    this.pan(time + this.span / 2 - this.rightOf(stream), streams);
  }

  /**
   * Zoom in time.
   *
   * @param {number} factor Above 1 shows more.
   * @param {number} place What stays where it is: 0 left to 1 right.
   */
  zoom(factor, place, streams) {
    const span = Math.min(Math.max(this.span * factor, SHORTEST_S), LONGEST_S);
    const growth = span - this.span;
    this.span = span;
    if (!this.live) {
      for (const stream of streams) {
        const right = this.rightOf(stream) + growth * (1 - place);
        this.rights.set(stream.key, Math.min(right, stream.newest));
      }
    }
    this.changed();
  }

  changed() {
    for (const listener of this.listeners) listener();
  }
}

/**
 * Turn wheel, drag, pinch and click on a picture into calls.
 *
 * @param {HTMLElement} node
 * @param {object} to `pan(pixels)`, `zoomTime(factor, x)`, `zoomFrequency(factor, y)`,
 *     `panFrequency(pixels)`, `click(x, y)`, `hover(x, y)` (null: left) and
 *     `onAxis(x)`, whether x is on the frequency axis.
 */
export function addGestures(node, to) {
  const pointers = new Map();
  let moved = 0;
  const place = (event) => {
    const box = node.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  node.addEventListener(
    "wheel",
    (event) => {
      // Without focus the wheel scrolls the page.
      const meant = event.ctrlKey || event.shiftKey || event.altKey;
      if (!meant && !node.contains(document.activeElement)) return;
      event.preventDefault();
      const [x, y] = place(event);
      const turned = Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : event.deltaY;
      const factor = Math.exp(Math.max(Math.min(turned, 100), -100) / 300);
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) to.pan(turned);
      else if (event.altKey || to.onAxis(x)) to.zoomFrequency(factor, y);
      else to.zoomTime(factor, x);
    },
    { passive: false },
  );

  node.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button !== 0) return;
    pointers.set(event.pointerId, place(event));
    moved = pointers.size > 1 ? Infinity : 0;
    // Elsewhere than on the canvas the pointer belongs to a button.
    if (event.target.tagName === "CANVAS") event.target.setPointerCapture?.(event.pointerId);
  });

  node.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      to.hover(...now);
      return;
    }
    if (pointers.size === 1) {
      const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
      moved += Math.abs(dx) + Math.abs(dy);
      if (moved < 5) return;
      if (to.onAxis(before[0])) to.panFrequency(dy);
      else to.pan(-dx);
    } else if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const wide = Math.abs(before[0] - other[0]) >= Math.abs(before[1] - other[1]);
      const axis = wide ? 0 : 1;
      const apart = Math.max(Math.abs(now[axis] - other[axis]), 10);
      const factor = Math.max(Math.abs(before[axis] - other[axis]), 10) / apart;
      if (wide) to.zoomTime(factor, (now[0] + other[0]) / 2);
      else to.zoomFrequency(factor, (now[1] + other[1]) / 2);
    }
    pointers.set(event.pointerId, now);
  });

  const release = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (event.type === "pointerup" && moved < 5) to.click(...place(event));
  };
  node.addEventListener("pointerup", release);
  node.addEventListener("pointercancel", release);
  node.addEventListener("pointerleave", () => to.hover(null, null));
}
