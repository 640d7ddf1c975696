/* The picture of one stream: strips on a canvas, its heading, and what one points at. */

import { drawFrequencyAxis, drawTimeAxis, frequencyUnit, timeTicks } from "../../axes.js";
import { table } from "../../colours.js";
import { count, db, hz, round, streamTime, timeOfDay } from "../../format.js";
import { element, readable, setText } from "../../text.js";
import { colour, isDark } from "../../theme.js";
import { settings } from "../settings.js";
import {
  Scale, drawForecasts, drawLevels, drawMisses, drawSegments, drawSpans, drawTrace, rangeOfTrace,
} from "./overlay.js";
import { SpectrogramStrip } from "./spectrogram.js";
import { addGestures } from "./view.js";

const MARGIN = 50; // of the frequency axis
const AXIS = 22;
const LABELS = 24;

/** Colours and fonts for the canvases, read from style.css once per theme. */
export class Style {
  constructor() {
    this.version = 0;
    this.read();
  }

  read() {
    const names = {
      ink: "--ink", muted: "--muted", line: "--line", ground: "--surface", hatch: "--hatch",
      level: "--trace-level", floor: "--trace-floor", score: "--trace-score",
      threshold: "--trace-threshold", surprise: "--trace-surprise",
    };
    for (const [key, name] of Object.entries(names)) this[key] = colour(name);
    this.units = Array.from({ length: 8 }, (_, k) => colour(`--unit-${k}`));
    const family = colour("--font");
    this.font = `11px ${family}`;
    this.strong = `600 13px ${family}`;
    this.slanted = `italic 12px ${family}`;
    const map = settings.map || (isDark() ? "magma" : "grey");
    // On a bright picture lines are dark, on a dark one bright, whatever the page is.
    const bright = map === "grey" && !isDark();
    this.box = bright ? "#111418" : "#ffffff";
    this.halo = bright ? "rgba(255,255,255,0.75)" : "rgba(0,0,0,0.6)";
    this.map = map;
    this.bright = bright;
    this.missing = pixel(colour("--sunken"));
    this.version += 1;
  }

  /** Colours of a column's values, one number each. */
  table(rangeDb, quiet) {
    const key = `${this.version} ${rangeDb.toFixed(2)} ${quiet} ${settings.gain} ${settings.contrast}`;
    if (this.tableKey !== key) {
      this.tableKey = key;
      const bytes = table(this.map, settings.gain, this.bright, rangeDb, settings.contrast, quiet);
      this.tableNow = new Uint32Array(bytes.buffer);
    }
    return this.tableNow;
  }
}

function pixel(css) {
  const hex = /^#(..)(..)(..)$/.exec(css);
  const [red, green, blue] = hex ? hex.slice(1).map((part) => parseInt(part, 16)) : [128, 128, 128];
  return (255 << 24) | (blue << 16) | (green << 8) | red;
}

/** One stream's picture. */
export class Picture {
  /**
   * @param {object} stream Stream of the model.
   * @param {object} view The common view.
   * @param {Style} style
   * @param {object} calls `streams()`: those that are shown; `select(stream, segment)`.
   */
  constructor(stream, view, style, calls) {
    this.stream = stream;
    this.view = view;
    this.style = style;
    this.calls = calls;
    this.heard = new SpectrogramStrip("frames");
    this.synthesized = new SpectrogramStrip("synthesis");
    this.lowRow = 0;
    this.highRow = 0;
    this.selected = null;
    this.geometry = null;
    this.seen = "";
    this.build();
  }

  build() {
    const name = readable(this.stream.name);
    this.canvas = element("canvas", { role: "img", "aria-label": `Spectrogram of ${name}` });
    this.clock = element("span.clock");
    this.state = element("span.state");
    this.readout = element("span.readout.muted");
    this.frame = element(
      "div.frame",
      {
        tabindex: "0",
        role: "group",
        "aria-label": `Picture of ${name}: arrow keys move, plus and minus zoom, Enter plays the chosen segment`,
      },
      this.canvas,
    );
    this.heading = element("h2", {}, name);
    this.station = element("span.muted", {}, "");
    this.node = element(
      "article.stream.panel",
      { "aria-label": `Stream ${name}` },
      element("div.row.spread", {},
        element("div.row", {}, this.heading, this.station, this.state),
        element("div.row", {}, this.readout, this.clock)),
      this.frame,
    );
    this.context = this.canvas.getContext("2d", { alpha: false });
    new ResizeObserver(() => {
      this.seen = "";
    }).observe(this.frame);
    const streams = () => this.calls.streams();
    addGestures(this.frame, {
      pan: (pixels) => this.view.pan((pixels / this.plotWidth()) * this.view.span, streams()),
      zoomTime: (factor, x) =>
        this.view.zoom(factor, Math.min(Math.max((x - MARGIN) / this.plotWidth(), 0), 1), streams()),
      zoomFrequency: (factor, y) => this.zoomFrequency(factor, y),
      panFrequency: (pixels) => this.panFrequency(pixels),
      click: (x, y) => this.click(x, y),
      hover: (x, y) => this.hover(x, y),
      onAxis: (x) => x < MARGIN,
    });
  }

  plotWidth() {
    return Math.max(this.frame.clientWidth - MARGIN - 1, 10);
  }

  /** Zoom in frequency about y; factor above 1 shows more. */
  zoomFrequency(factor, y = null) {
    const nBins = this.stream.axis?.nBins;
    const box = this.boxes?.heard;
    if (!nBins || !box) return;
    const span = this.highRow - this.lowRow;
    const place = y === null ? 0.5 : Math.min(Math.max((y - box.y) / box.height, 0), 1);
    const fixed = this.highRow - place * span;
    const wanted = Math.min(Math.max(span * factor, 4), nBins);
    this.moveRows(fixed + place * wanted, wanted);
  }

  panFrequency(pixels) {
    const box = this.boxes?.heard;
    if (!box) return;
    const span = this.highRow - this.lowRow;
    this.moveRows(this.highRow + (pixels / box.height) * span, span);
  }

  /** Show all frequencies. */
  wholeBand() {
    this.highRow = 0;
    this.seen = "";
  }

  moveRows(high, span) {
    const nBins = this.stream.axis.nBins;
    this.highRow = Math.min(Math.max(high, span), nBins);
    this.lowRow = this.highRow - span;
    this.seen = "";
  }

  segmentAt(x) {
    const hit = this.geometry?.segments.filter((item) => x >= item.x0 - 3 && x <= item.x1 + 3) ?? [];
    const apart = (item) => Math.abs((item.x0 + item.x1) / 2 - x);
    return hit.sort((a, b) => apart(a) - apart(b))[0]?.segment ?? null;
  }

  click(x, y) {
    if (x < MARGIN) return;
    const segment = this.segmentAt(x);
    this.calls.select(this.stream, segment, segment !== null);
  }

  hover(x, y) {
    const scale = this.geometry?.scale;
    if (x === null || !scale || x < MARGIN) {
      setText(this.readout, "");
      return;
    }
    const time = scale.time(x);
    const epoch = this.stream.epochAt(time);
    if (!epoch) return;
    const sample = Math.round(epoch.sampleAt(time));
    const parts = [`${timeText(epoch, sample, 3)}`, `sample ${count(sample)}`];
    const box = this.boxes.heard;
    if (this.stream.axis?.known && y >= box.y && y <= box.y + box.height) {
      const row = this.highRow - ((y - box.y) / box.height) * (this.highRow - this.lowRow);
      parts.push(hz(Math.max(this.stream.axis.hz(row), 0)));
    }
    const segment = this.segmentAt(x);
    if (segment?.unit) parts.push(`${readable(segment.unit, 20)} ${segment.posterior?.toFixed(2) ?? ""}`);
    const miss = this.geometry.misses.find((item) => x >= item.x0 - 2 && x <= item.x1 + 2);
    if (!segment && miss) parts.push(`near miss: ${miss.miss.header.reason}`);
    setText(this.readout, parts.join(" · "));
  }

  /** Draw if something has changed; returns whether it was drawn. */
  draw() {
    const { stream, view, style } = this;
    const ratio = window.devicePixelRatio || 1;
    const width = this.frame.clientWidth;
    if (!width) return false;
    const axis = stream.axis;
    if (axis && (this.highRow <= 0 || this.highRow > axis.nBins)) {
      this.lowRow = 0;
      this.highRow = axis.nBins;
    }
    this.dropStale(ratio);
    const right = view.rightOf(stream);
    const seen = [
      width, ratio, right, view.span, stream.version, style.version, settings.gain,
      settings.contrast, this.lowRow, this.highRow, this.selected?.number,
    ].join(" ");
    if (seen === this.seen && !this.pending) return false;
    this.seen = seen;
    this.pending = false;
    this.boxes = this.layout(width);
    this.paint(ratio, width, right);
    this.describe(right);
    return true;
  }

  dropStale(ratio) {
    const { stream } = this;
    const pixelsPerSecond = this.pixelsPerSecond(ratio);
    if (stream.rescaled) {
      this.heard.invalidate();
      this.synthesized.invalidate();
      stream.rescaled = false;
    }
    if (stream.fresh.from < stream.fresh.to) {
      this.heard.invalidateTimes(stream.fresh.from, stream.fresh.to, pixelsPerSecond);
      this.synthesized.invalidateTimes(stream.fresh.from, stream.fresh.to, pixelsPerSecond);
      stream.fresh = { from: Infinity, to: -Infinity };
    }
  }

  pixelsPerSecond(ratio) {
    return (Math.round(this.plotWidth() * ratio)) / this.view.span;
  }

  layout(width) {
    const rings = this.stream.epoch?.rings ?? {};
    const narrow = width < 560;
    const factor = settings.size * (narrow ? 0.8 : 1);
    const boxes = {};
    let y = 0;
    const add = (name, height, space = 0) => {
      boxes[name] = { x: MARGIN, y: y + space, width: this.plotWidth(), height: Math.round(height) };
      y += Math.round(height) + space;
    };
    add("labels", LABELS);
    add("heard", 210 * factor);
    if (settings.synthesis && rings.synthesis) add("synthesis", 96 * factor, 4);
    if (settings.surprise && rings.surprise) add("surprise", 42, 6);
    if (settings.trace && rings.trace) add("score", 50, 6);
    if (settings.level && (rings.trace || this.stream.levels.length)) add("level", 42, 6);
    add("axis", AXIS);
    boxes.total = y;
    return boxes;
  }

  paint(ratio, width, right) {
    const { stream, style, context, boxes } = this;
    const wanted = [Math.round(width * ratio), Math.round(boxes.total * ratio)];
    if (this.canvas.width !== wanted[0] || this.canvas.height !== wanted[1]) {
      [this.canvas.width, this.canvas.height] = wanted;
      this.canvas.dataset.height = String(boxes.total);
      this.canvas.style.height = `${boxes.total}px`;
    }
    const pixelsPerSecond = this.pixelsPerSecond(ratio);
    const columns = Math.round(this.plotWidth() * ratio);
    // Whole pixel columns: what was drawn once moves without being computed again.
    const from = Math.ceil(right * pixelsPerSecond) - columns;
    const scale = new Scale(from / pixelsPerSecond, pixelsPerSecond / ratio, MARGIN, this.plotWidth());
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = style.ground;
    context.fillRect(0, 0, ...wanted);
    this.paintStrip(this.heard, "frames", boxes.heard, from, ratio, pixelsPerSecond);
    if (boxes.synthesis) {
      this.paintStrip(this.synthesized, "synthesis", boxes.synthesis, from, ratio, pixelsPerSecond);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.paintTraces(scale);
    const whole = { ...boxes.heard, height: boxes.axis.y - boxes.heard.y };
    const spans = drawSpans(context, stream, scale, whole, style);
    const misses = settings.misses ? drawMisses(context, stream, scale, boxes.heard, style) : [];
    const picture = boxes.synthesis ? [boxes.heard, boxes.synthesis] : [boxes.heard];
    const segments = drawSegments(context, stream, scale, boxes.labels, picture, style, this.selected);
    if (settings.forecasts) drawForecasts(context, stream, scale, boxes.heard, style);
    this.paintAxes(scale);
    this.geometry = { scale, segments, misses, spans };
  }

  paintStrip(strip, kind, box, from, ratio, pixelsPerSecond) {
    const ring = this.stream.epoch?.rings[kind] ?? this.stream.epoch?.rings.frames;
    const scaled = {
      x: Math.round(box.x * ratio),
      y: Math.round(box.y * ratio),
      width: Math.round(this.plotWidth() * ratio),
      height: Math.round(box.height * ratio),
    };
    // What is synthesized is shown as what is heard would be.
    const quiet = this.stream.epoch?.rings.frames?.quiet ?? 0;
    const colours = this.style.table(ring?.rangeDb ?? 80, quiet);
    strip.draw(this.context, this.stream, {
      pixelsPerSecond, lowRow: this.lowRow, highRow: this.highRow || 1, colours,
      missing: this.style.missing, version: this.style.tableKey,
    }, from, scaled);
  }

  paintTraces(scale) {
    const { context, stream, style, boxes } = this;
    const strip = (box, name, low, high) => {
      context.strokeStyle = style.line;
      context.lineWidth = 1;
      context.strokeRect(box.x + 0.5, box.y + 0.5, box.width - 1, box.height - 1);
      context.font = style.font;
      context.fillStyle = style.muted;
      context.textAlign = "right";
      context.textBaseline = "top";
      context.fillText(round(high, Math.abs(high) < 10 ? 1 : 0).replace("-", "−"), box.x - 5, box.y);
      context.textBaseline = "bottom";
      context.fillText(round(low, Math.abs(low) < 10 ? 1 : 0).replace("-", "−"), box.x - 5, box.y + box.height);
      this.title(name, box);
    };
    if (boxes.surprise) {
      const range = rangeOfTrace(stream, scale, "surprise", 0) ?? [0, 1];
      const low = Math.min(range[0], 0);
      const high = Math.max(niceAbove(range[1]), low + 1);
      strip(boxes.surprise, "surprise", low, high);
      drawTrace(context, stream, scale, boxes.surprise, { kind: "surprise", column: 0, low, high, colour: style.surprise });
    }
    if (boxes.score) {
      const range = rangeOfTrace(stream, scale, "trace", 0) ?? [0, 1];
      const bar = rangeOfTrace(stream, scale, "trace", 1) ?? range;
      const low = Math.min(0, range[0]);
      const high = Math.max(niceAbove(Math.max(range[1], bar[1])), low + 1);
      const unit = stream.epoch?.traceUnit;
      strip(boxes.score, `score${unit ? `, ${readable(unit, 40)}` : ""} (dashed: thresholds)`, low, high);
      const trace = { kind: "trace", low, high };
      drawTrace(context, stream, scale, boxes.score, { ...trace, column: 2, colour: style.floor, dash: [2, 3] });
      drawTrace(context, stream, scale, boxes.score, { ...trace, column: 1, colour: style.threshold, dash: [5, 3] });
      drawTrace(context, stream, scale, boxes.score, { ...trace, column: 0, colour: style.score });
    }
    if (boxes.level) {
      const floor = rangeOfTrace(stream, scale, "trace", 3);
      const low = floor && floor[0] > -1000 ? Math.min(-80, 20 * Math.floor(floor[0] / 20)) : -80;
      const words = floor ? "level, dB re full scale (dashed: noise floor)" : "level, dB re full scale";
      strip(boxes.level, words, low, 0);
      if (floor) {
        drawTrace(context, stream, scale, boxes.level, { kind: "trace", column: 3, low, high: 0, colour: style.floor, dash: [4, 3] });
      }
      drawLevels(context, stream, scale, boxes.level, { low, high: 0, colour: style.level });
    }
  }

  title(words, box) {
    const { context, style } = this;
    context.font = style.font;
    context.textAlign = "left";
    context.textBaseline = "top";
    const width = context.measureText(words).width;
    context.globalAlpha = 0.8;
    context.fillStyle = style.ground;
    context.fillRect(box.x + 2, box.y + 2, width + 6, 13);
    context.globalAlpha = 1;
    context.fillStyle = style.muted;
    context.fillText(words, box.x + 5, box.y + 3);
  }

  paintAxes(scale) {
    const { context, stream, style, boxes } = this;
    const look = { ink: style.ink, faint: style.muted, font: style.font };
    const view = { lowRow: this.lowRow, highRow: this.highRow };
    const axis = stream.axis;
    if (axis) {
      for (const name of ["heard", "synthesis"]) {
        const box = boxes[name];
        if (!box) continue;
        drawFrequencyAxis(context, axis, view, { x: 0, y: box.y, width: MARGIN, height: box.height }, look);
      }
      context.font = style.font;
      context.fillStyle = style.muted;
      context.textAlign = "right";
      context.textBaseline = "bottom";
      context.fillText(frequencyUnit(axis, this.highRow), MARGIN - 7, boxes.heard.y - 3);
    }
    if (boxes.synthesis) this.title("synthesized: what the RNN-RBM expects", { ...boxes.synthesis, y: boxes.synthesis.y + 10 });
    this.paintTime(scale, look);
  }

  paintTime(scale, look) {
    const { context, stream, boxes, style } = this;
    for (let k = 0; k < stream.epochs.length; k += 1) {
      const epoch = stream.epochs[k];
      const start = Math.max(scale.left, epoch.base);
      const stop = Math.min(scale.right, stream.epochs[k + 1]?.base ?? Infinity);
      if (stop - start <= 0) continue;
      const x = scale.at(start);
      const width = scale.at(stop) - x;
      const ticks = timeTicks(
        epoch.sampleAt(start), epoch.sampleAt(stop), epoch.rate, width, settings.axis, epoch.zeroMs,
      );
      drawTimeAxis(context, ticks, { first: epoch.sampleAt(start), last: epoch.sampleAt(stop) }, {
        x, y: boxes.axis.y, width, height: AXIS,
      }, look);
    }
    const utc = settings.axis === "utc" && stream.epoch?.zeroMs != null;
    context.font = style.font;
    context.fillStyle = style.muted;
    context.textAlign = "right";
    context.textBaseline = "top";
    const unit = settings.axis === "sample" ? "sample" : utc ? "UTC" : "time";
    context.fillText(unit, MARGIN - 7, boxes.axis.y + 6);
  }

  describe(right) {
    const { stream } = this;
    const epoch = stream.epochAt(right);
    const several = this.calls.several();
    const other = several && stream.station.name !== stream.name;
    setText(this.station, other ? `at ${readable(stream.station.name, 40)}` : "");
    if (epoch) setText(this.clock, timeText(epoch, Math.round(epoch.sampleAt(right)), 0));
    const level = stream.stats?.level_db;
    setText(this.state, Number.isFinite(level) ? `level ${db(level)}` : "");
  }

  /** What a test or a person may ask: where things were drawn, in CSS pixels. */
  report() {
    const { scale, segments, misses, spans } = this.geometry ?? {};
    if (!scale) return null;
    return {
      left: scale.left, pixelsPerSecond: scale.pixelsPerSecond, x: scale.x, width: scale.width,
      segments: segments.map(({ segment, x0, x1, state }) => ({
        segment: segment.segment, run: segment.run, onset: segment.onset, offset: segment.offset,
        unit: segment.unit, state, x0, x1,
        timeOnset: segment.epoch.timeOf(segment.onset),
      })),
      misses: misses.length,
      spans: spans.map(({ span, x0, x1 }) => ({ ...span, x0, x1 })),
      computed: this.heard.computed,
    };
  }
}

/** Time of a sample in words: UTC with the date where known, else stream time. */
export function timeText(epoch, sample, digits) {
  if (settings.axis === "sample") return `sample ${count(sample)}`;
  if (epoch.zeroMs !== null && settings.axis === "utc") {
    return `${timeOfDay(epoch.zeroMs + (sample / epoch.rate) * 1000, digits)} UTC`;
  }
  return streamTime(sample / epoch.rate, digits);
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  return [1, 2, 3, 5, 10].map((factor) => factor * power).find((nice) => nice >= value) ?? value;
}


