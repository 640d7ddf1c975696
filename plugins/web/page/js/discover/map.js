/* The map on its canvas: points, pictures of segments, choice by click, lasso and keys. */

import { drawColumns } from "../columns.js";
import { colour, onTheme } from "../theme.js";

const MARGIN = 48; // pixels around the whole map
const REACH = 14; // pixels from a click to a point
const MOST_ZOOM = 400;
const CLICK = 4; // pixels that a pointer may move in a click

export class SegmentMap {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {object} options
   * @param {(segment: number|null, adds: boolean) => void} options.chosen
   * @param {(segments: number[], adds: boolean) => void} options.circled
   * @param {() => void} options.viewed Called when the view has changed.
   */
  constructor(canvas, options) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.options = options;
    this.points = null;
    this.colourOf = () => -1;
    this.chosen = new Set();
    this.current = null;
    this.thumbs = 40;
    this.table = null;
    this.patches = null;
    this.shape = { n_columns: 1, n_bins: 1 };
    this.lassoing = false;
    this.lasso = null;
    this.view = { x: 0, y: 0, zoom: 1 };
    this.pending = false;
    this.pointers = new Map();
    new ResizeObserver(() => this.draw()).observe(canvas);
    onTheme(() => this.draw());
    this.listen();
  }

  /** Show segments; `colourOf` gives the colour's index of a cluster. */
  show(points, colourOf, patches, shape) {
    this.points = points;
    this.colourOf = colourOf;
    this.patches = patches;
    this.shape = shape;
    this.draw();
  }

  /** Draw before the next frame of the screen. */
  draw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.drawNow();
    });
  }

  scale() {
    const least = Math.min(this.canvas.clientWidth, this.canvas.clientHeight);
    return (Math.max(least / 2 - MARGIN, 10)) * this.view.zoom;
  }

  /** Return the place of a segment in pixels of the canvas. */
  place(segment) {
    const scale = this.scale();
    return [
      this.canvas.clientWidth / 2 + (this.points.places[2 * segment] - this.view.x) * scale,
      this.canvas.clientHeight / 2 - (this.points.places[2 * segment + 1] - this.view.y) * scale,
    ];
  }

  drawNow() {
    const { canvas, context, points } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!points) return;
    const colours = [0, 1, 2, 3, 4, 5, 6, 7].map((k) => colour(`--unit-${k}`));
    const faint = colour("--miss");
    const count = points.cluster.length;
    const dot = count > 20000 ? 2 : count > 3000 ? 3 : 5;
    const visible = [];
    for (let k = 0; k < count; k += 1) {
      const [x, y] = this.place(k);
      if (x < -60 || y < -60 || x > width + 60 || y > height + 60) continue;
      visible.push(k);
      const at = this.colourOf(points.cluster[k]);
      context.fillStyle = at < 0 ? faint : colours[at];
      if (at < 0) context.fillRect(x - 1, y - 1, 2, 2);
      else context.fillRect(x - dot / 2, y - dot / 2, dot, dot);
    }
    if (this.thumbs) this.drawPictures(visible, colours, faint, width, height);
    this.drawChosen(width, height);
    if (this.lasso) this.drawLasso();
    this.drawnSegments = visible.length;
  }

  /** Draw pictures of segments, as many as have room. */
  drawPictures(visible, colours, faint, width, height) {
    const { context, points } = this;
    const size = this.thumbs;
    const cell = size + 6;
    const columns = Math.ceil(width / cell) + 2;
    const taken = new Set();
    const { n_columns: nColumns, n_bins: nBins } = this.shape;
    for (const k of visible) {
      const [x, y] = this.place(k);
      if (x < 0 || y < 0 || x > width || y > height) continue;
      const column = Math.floor(x / cell);
      const row = Math.floor(y / cell);
      if (taken.has(row * columns + column)) continue;
      // Neither does a picture cover that of the next cell.
      taken.add(row * columns + column);
      const patch = this.patches.get(k);
      if (!patch) continue;
      const left = Math.min(Math.max(column * cell + 3, x - size / 2), column * cell + 3);
      const top = row * cell + 3;
      drawColumns(context, patch, nColumns, nBins, this.table, left, top, size, size);
      const at = this.colourOf(points.cluster[k]);
      context.strokeStyle = at < 0 ? faint : colours[at];
      context.lineWidth = 2;
      context.strokeRect(left, top, size, size);
    }
  }

  drawChosen(width, height) {
    const { context } = this;
    context.strokeStyle = colour("--ink");
    context.lineWidth = 1.5;
    for (const k of this.chosen) {
      const [x, y] = this.place(k);
      if (x < 0 || y < 0 || x > width || y > height) continue;
      context.strokeRect(x - 5, y - 5, 10, 10);
    }
    if (this.current !== null) {
      const [x, y] = this.place(this.current);
      context.strokeStyle = colour("--accent");
      context.lineWidth = 3;
      context.beginPath();
      context.arc(x, y, 10, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  drawLasso() {
    const { context } = this;
    context.strokeStyle = colour("--accent");
    context.lineWidth = 2;
    context.setLineDash([5, 4]);
    context.beginPath();
    this.lasso.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.closePath();
    context.stroke();
    context.setLineDash([]);
  }

  /** Return the segment nearest to a place, null if there is none within reach. */
  nearest(x, y) {
    let best = null;
    let least = REACH * REACH;
    for (let k = 0; k < this.points.cluster.length; k += 1) {
      const [px, py] = this.place(k);
      const away = (px - x) ** 2 + (py - y) ** 2;
      if (away < least) [best, least] = [k, away];
    }
    return best;
  }

  /** Return the nearest segment in a direction from the current one. */
  neighbour(dx, dy) {
    if (this.current === null) return this.points.cluster.length ? 0 : null;
    const [x, y] = this.place(this.current);
    let best = null;
    let least = Infinity;
    for (let k = 0; k < this.points.cluster.length; k += 1) {
      if (k === this.current) continue;
      const [px, py] = this.place(k);
      const along = (px - x) * dx + (py - y) * dy;
      const across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along <= 0) continue;
      const cost = along + 2.5 * across;
      if (cost < least) [best, least] = [k, cost];
    }
    return best;
  }

  /** Make a segment the current one, and bring it into view. */
  setCurrent(segment) {
    this.current = segment;
    if (segment !== null) {
      const [x, y] = this.place(segment);
      const width = this.canvas.clientWidth;
      const height = this.canvas.clientHeight;
      if (x < 10 || y < 10 || x > width - 10 || y > height - 10) {
        this.view.x = this.points.places[2 * segment];
        this.view.y = this.points.places[2 * segment + 1];
      }
    }
    this.draw();
  }

  /** Zoom about a place of the canvas, by default its middle. */
  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const before = this.scale();
    this.view.zoom = Math.min(Math.max(this.view.zoom * factor, 1), MOST_ZOOM);
    const after = this.scale();
    const dx = x - this.canvas.clientWidth / 2;
    const dy = this.canvas.clientHeight / 2 - y;
    this.view.x += dx / before - dx / after;
    this.view.y += dy / before - dy / after;
    this.draw();
  }

  /** Show the whole map. */
  showAll() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.draw();
  }

  listen() {
    const { canvas } = this;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button || !this.points) return;
      canvas.setPointerCapture(event.pointerId);
      const place = at(event);
      this.pointers.set(event.pointerId, { from: place, last: place, moved: false });
      if (this.lassoing && this.pointers.size === 1) this.lasso = [place];
    });
    canvas.addEventListener("pointermove", (event) => {
      const pointer = this.pointers.get(event.pointerId);
      if (!pointer) return;
      const place = at(event);
      const [dx, dy] = [place[0] - pointer.last[0], place[1] - pointer.last[1]];
      if (Math.hypot(place[0] - pointer.from[0], place[1] - pointer.from[1]) > CLICK) {
        pointer.moved = true;
      }
      if (this.pointers.size === 2) {
        const [other] = [...this.pointers.values()].filter((each) => each !== pointer);
        const apart = (a, b) => Math.max(Math.hypot(a[0] - b[0], a[1] - b[1]), 1);
        const factor = apart(place, other.last) / apart(pointer.last, other.last);
        this.lasso = null;
        this.zoom(factor, (place[0] + other.last[0]) / 2, (place[1] + other.last[1]) / 2);
      } else if (this.lasso) {
        this.lasso.push(place);
        this.draw();
      } else if (pointer.moved) {
        this.view.x -= dx / this.scale();
        this.view.y += dy / this.scale();
        this.draw();
      }
      pointer.last = place;
    });
    const end = (event) => {
      const pointer = this.pointers.get(event.pointerId);
      if (!pointer) return;
      this.pointers.delete(event.pointerId);
      const adds = event.shiftKey || event.ctrlKey || event.metaKey;
      const lasso = this.lasso;
      this.lasso = null;
      if (event.type === "pointercancel") {
        this.draw();
      } else if (pointer.moved && lasso) {
        this.options.circled(this.inside(lasso), adds);
      } else if (!pointer.moved) {
        this.options.chosen(this.nearest(...at(event)), adds);
      }
      this.draw();
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener(
      "wheel",
      (event) => {
        if (!this.points) return;
        event.preventDefault();
        this.zoom(Math.exp(-event.deltaY / 400), ...at(event));
      },
      { passive: false },
    );
  }

  /** Return the segments inside a closed line. */
  inside(line) {
    const found = [];
    for (let k = 0; k < this.points.cluster.length; k += 1) {
      const [x, y] = this.place(k);
      let odd = false;
      for (let i = 0, j = line.length - 1; i < line.length; j = i, i += 1) {
        const [xi, yi] = line[i];
        const [xj, yj] = line[j];
        if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) odd = !odd;
      }
      if (odd) found.push(k);
    }
    return found;
  }
}
