/* Picture of the chosen segment: spectrogram, axes, boxes, edges to drag. */

import { FrequencyAxis, drawFrequencyAxis, drawTimeAxis, timeTicks } from "../axes.js";
import { table } from "../colours.js";
import { drawColumns } from "../columns.js";
import { readable } from "../text.js";
import { colour } from "../theme.js";

const LEFT = 46;
const BOTTOM = 24;
const TOP = 20;
const GRAB = 7; // pixels around an edge
const DRAG = 5; // pixels that a drag is longer than a click

/** Canvas with the part of a recording that is visible. */
export class Picture {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {UnitMarks} marks
   * @param {object} calls What the user does: choose(segment), move(onset, offset),
   *     drag(onset, offset) while an edge is held, add(onset, offset), cancel().
   */
  constructor(canvas, marks, calls) {
    this.canvas = canvas;
    this.marks = marks;
    this.calls = calls;
    this.map = "magma";
    this.gainDb = 0;
    this.scene = null;
    this.columns = null;
    this.playhead = null;
    this.held = null; // {kind: "onset" | "offset" | "new", from, to, x}
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => this.drop());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Width of the spectrogram in pixels of the screen. */
  get width() {
    return Math.max(Math.round(this.canvas.clientWidth - LEFT), 50);
  }

  /**
   * Show a scene.
   *
   * @param {object} scene recording, first and last (samples), segments, current,
   *     draft ({onset, offset} or null), edge, splitAt.
   */
  show(scene) {
    this.scene = scene;
    this.draw();
  }

  /** Show columns as `readSpectrogram` gives them; null: there are none. */
  showColumns(columns) {
    this.columns = columns;
    this.draw();
  }

  /** Draw a line at a sample, or none. */
  showPlayhead(sample) {
    this.playhead = sample;
    this.draw();
  }

  x(sample) {
    const { first, last } = this.scene;
    return LEFT + ((sample - first) / (last - first)) * this.width;
  }

  sample(x) {
    const { first, last, recording } = this.scene;
    const hop = recording.hop_length;
    const place = first + ((x - LEFT) / this.width) * (last - first);
    const within = Math.min(Math.max(place, 0), recording.n_samples ?? Infinity);
    return Math.round(within / hop) * hop;
  }

  draw() {
    const { canvas } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = colour("--surface");
    context.fillRect(0, 0, width, height);
    if (!this.scene?.recording) return;
    const box = { x: LEFT, y: TOP, width: this.width, height: height - TOP - BOTTOM };
    context.fillStyle = colour("--sunken");
    context.fillRect(box.x, box.y, box.width, box.height);
    context.save();
    context.beginPath();
    context.rect(box.x, box.y, box.width, box.height);
    context.clip();
    this.drawColumns(context, box);
    context.restore();
    this.drawAxes(context, box);
    context.save();
    context.beginPath();
    context.rect(box.x, 0, box.width, height - BOTTOM + 1);
    context.clip();
    for (const segment of this.scene.segments) {
      if (segment.id !== this.scene.current?.id) this.drawBox(context, box, segment, false);
    }
    if (this.scene.current?.alive) this.drawBox(context, box, this.scene.current, true);
    this.drawLines(context, box);
    context.restore();
  }

  drawColumns(context, box) {
    const { columns, scene } = this;
    if (!columns || columns.recording !== scene.recording.id) {
      if (scene.recording.problem) return;
      context.fillStyle = colour("--muted");
      context.font = "14px system-ui, sans-serif";
      context.textAlign = "center";
      context.textBaseline = "middle";
      context.fillText("The spectrogram is computed …", box.x + box.width / 2, box.y + box.height / 2);
      return;
    }
    const rate = scene.recording.sample_rate;
    const x = this.x(columns.start);
    const width = this.x(columns.start + columns.nFrames * columns.column_s * rate) - x;
    const range = columns.high_db - columns.low_db;
    const colours = table(this.map, this.gainDb, this.map === "grey", range);
    const { data, nFrames, nBins } = columns;
    drawColumns(context, data, nFrames, nBins, colours, x, box.y, width, box.height);
  }

  drawAxes(context, box) {
    const { recording, first, last } = this.scene;
    const style = { ink: colour("--muted"), faint: colour("--line"), font: "11px system-ui, sans-serif" };
    if (this.columns) {
      const { nBins, low_hz, high_hz } = this.columns;
      const axis = new FrequencyAxis({ n_bins: nBins, low_hz, high_hz });
      const view = { lowRow: 0, highRow: nBins };
      const left = { x: 0, y: box.y, width: LEFT, height: box.height };
      drawFrequencyAxis(context, axis, view, left, style);
      context.fillStyle = style.ink;
      context.font = style.font;
      context.textBaseline = "top";
      context.textAlign = "left";
      context.fillText(high_hz >= 1000 ? "kHz" : "Hz", 2, 3);
    }
    const utc = recording.utc_ms ?? null;
    const mode = utc === null ? "stream" : "utc";
    const ticks = timeTicks(first, last, recording.sample_rate, box.width, mode, utc);
    const below = { x: box.x, y: box.y + box.height, width: box.width, height: BOTTOM };
    drawTimeAxis(context, ticks, { first, last }, below, style);
  }

  drawBox(context, box, segment, isCurrent) {
    const edges = isCurrent && this.scene.draft ? this.scene.draft : segment;
    const left = this.x(edges.onset);
    const width = Math.max(this.x(edges.offset) - left, 1);
    const isMiss = segment.kind === "near_miss";
    const place = segment.unit ? this.marks.colour(segment.unit) : -1;
    const ink = isMiss || place < 0 ? colour("--miss") : colour(`--unit-${place}`);
    context.save();
    context.lineWidth = isCurrent ? 5 : 3;
    context.strokeStyle = colour("--box-halo");
    context.strokeRect(left, box.y + 2, width, box.height - 4);
    context.lineWidth = isCurrent ? 2.5 : 1.25;
    context.strokeStyle = isCurrent ? colour("--box") : ink;
    if (isMiss) context.setLineDash([2, 4]);
    else if (!segment.reviewed) context.setLineDash([6, 3]);
    context.strokeRect(left, box.y + 2, width, box.height - 4);
    context.setLineDash([]);
    const shape = isMiss ? "" : `${this.marks.shape(segment.unit || "unknown")} `;
    const text = isMiss
      ? `near miss, ${readable(segment.reason, 12)}`
      : `${shape}${readable(segment.unit || "no unit", 18)}${segment.reviewed ? " ✓" : ""}`;
    context.font = `${isCurrent ? "bold " : ""}12px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    if (isCurrent) {
      // Its neighbours' names may lie below.
      context.fillStyle = colour("--surface");
      context.fillRect(left, 0, context.measureText(text).width + 4, TOP - 1);
    }
    context.fillStyle = isCurrent ? colour("--ink") : ink;
    const room = isCurrent ? box.width : Math.max(width, 14);
    context.beginPath();
    context.rect(left, 0, room, TOP);
    context.clip();
    context.fillText(text, left, TOP / 2);
    context.restore();
    if (isCurrent && this.scene.edge) {
      const x = this.scene.edge === "onset" ? left : left + width;
      context.fillStyle = colour("--accent");
      context.fillRect(x - 2.5, box.y, 5, box.height);
    }
  }

  drawLines(context, box) {
    const line = (sample, ink, dash = []) => {
      const x = Math.round(this.x(sample)) + 0.5;
      context.save();
      context.lineWidth = 3;
      context.strokeStyle = colour("--box-halo");
      context.beginPath();
      context.moveTo(x, box.y);
      context.lineTo(x, box.y + box.height);
      context.stroke();
      context.setLineDash(dash);
      context.lineWidth = 1.5;
      context.strokeStyle = ink;
      context.stroke();
      context.restore();
    };
    if (this.scene.splitAt !== null) line(this.scene.splitAt, colour("--bad"), [4, 3]);
    if (this.playhead !== null) line(this.playhead, colour("--accent"));
    if (this.held?.kind === "new") {
      const from = this.x(Math.min(this.held.from, this.held.to));
      const to = this.x(Math.max(this.held.from, this.held.to));
      context.strokeStyle = colour("--accent");
      context.lineWidth = 2;
      context.strokeRect(from, box.y + 2, to - from, box.height - 4);
    }
  }

  // ---- pointer ----

  edgeAt(event) {
    const { current } = this.scene ?? {};
    if (!current?.alive) return null;
    const reach = event.pointerType === "touch" ? 2 * GRAB : GRAB;
    const places = [
      ["onset", Math.abs(event.offsetX - this.x(current.onset))],
      ["offset", Math.abs(event.offsetX - this.x(current.offset))],
    ].sort((one, other) => one[1] - other[1]);
    return places[0][1] <= reach ? places[0][0] : null;
  }

  press(event) {
    if (!this.scene?.recording || event.button !== 0 || event.offsetX < LEFT) return;
    const edge = this.edgeAt(event);
    const at = this.sample(event.offsetX);
    this.held = { kind: edge ?? "new", from: at, to: at, x: event.offsetX };
    this.canvas.setPointerCapture(event.pointerId);
  }

  point(event) {
    if (!this.scene?.recording) return;
    if (!this.held) {
      this.canvas.style.cursor = this.edgeAt(event) ? "ew-resize" : "crosshair";
      return;
    }
    this.held.to = this.sample(event.offsetX);
    if (this.held.kind === "new") this.draw();
    else this.calls.drag(...this.dragged());
  }

  dragged() {
    const { current } = this.scene;
    const hop = this.scene.recording.hop_length;
    return this.held.kind === "onset"
      ? [Math.min(this.held.to, current.offset - hop), current.offset]
      : [current.onset, Math.max(this.held.to, current.onset + hop)];
  }

  release(event) {
    const { held } = this;
    if (!held) return;
    const moved = Math.abs(event.offsetX - held.x) >= DRAG;
    if (!moved) {
      this.drop();
      this.choose(event);
      return;
    }
    if (held.kind === "new") {
      this.held = null;
      this.calls.add(Math.min(held.from, held.to), Math.max(held.from, held.to));
    } else {
      const edges = this.dragged();
      this.held = null;
      this.calls.move(...edges);
    }
  }

  drop() {
    this.held = null;
    this.calls.cancel();
    this.draw();
  }

  choose(event) {
    const { first, last } = this.scene;
    const at = first + ((event.offsetX - LEFT) / this.width) * (last - first);
    const hit = this.scene.segments
      .filter((each) => each.onset <= at && at < each.offset)
      .sort((one, other) => one.offset - one.onset - (other.offset - other.onset));
    if (hit.length) this.calls.choose(hit[0]);
  }
}
