/* Draws what is known about the sound over and below the spectrogram. */

import { firstFrom } from "../model.js";
import { readable } from "../../text.js";

const LONGEST_SEGMENT_S = 120; // how far before the left edge one may begin

/** Line pattern of a segment's state, in pixels: no state differs by colour alone. */
export function stateOf(segment) {
  if (!segment.status) return segment.to === null ? "open" : "detected";
  if (segment.status !== "final") return segment.status;
  return segment.unit === "unknown" ? "unknown" : "final";
}
const DASHES = {
  open: [1, 3],
  detected: [],
  provisional: [4, 3],
  revised: [8, 3, 2, 3],
  final: [],
  unknown: [3, 3],
};
/** Sign behind a unit's name. */
export const SIGNS = { provisional: "?", revised: "~", final: "", unknown: "", open: "", detected: "" };

/** Maps times to pixels in a picture's plot. */
export class Scale {
  /** @param {number} left Time at x. */
  constructor(left, pixelsPerSecond, x, width) {
    Object.assign(this, { left, pixelsPerSecond, x, width });
    this.right = left + width / pixelsPerSecond;
  }

  at(time) {
    return this.x + (time - this.left) * this.pixelsPerSecond;
  }

  time(x) {
    return this.left + (x - this.x) / this.pixelsPerSecond;
  }
}

/** Call `act` for the items of a list by time that are visible. */
export function eachVisible(list, scale, longest, act) {
  for (let k = firstFrom(list, scale.left - longest); k < list.length; k += 1) {
    const item = list[k];
    if (item.from > scale.right) break;
    if ((item.to ?? Infinity) >= scale.left) act(item);
  }
}

/**
 * Draw segments: bars and units in a strip, brackets or boxes in the spectrogram.
 *
 * @returns {object[]} What was drawn: {segment, x0, x1, state}, in pixels.
 */
export function drawSegments(context, stream, scale, strip, boxes, style, selected) {
  const drawn = [];
  let textEnd = -Infinity;
  context.save();
  clip(context, scale.x, strip.y, scale.width, boxes.at(-1).y + boxes.at(-1).height - strip.y);
  context.textBaseline = "alphabetic";
  context.textAlign = "center";
  eachVisible(stream.segments, scale, LONGEST_SEGMENT_S, (segment) => {
    const state = stateOf(segment);
    const x0 = scale.at(segment.from);
    const x1 = segment.to === null ? Math.min(scale.at(stream.newest), scale.x + scale.width) : scale.at(segment.to);
    drawn.push({ segment, x0, x1, state });
    const colour = segment.mark < 0 ? style.ink : style.units[segment.mark];
    drawBar(context, x0, x1, strip, state, colour);
    const text = textOf(segment, state);
    if (text) {
      context.font = state === "final" ? style.strong : style.slanted;
      const half = context.measureText(text).width / 2;
      const middle = Math.min(Math.max((x0 + x1) / 2, scale.x + half), Math.max(scale.x + scale.width - half, scale.x + half));
      if (middle - half > textEnd) {
        context.fillStyle = state === "unknown" ? style.muted : colour;
        context.fillText(text, middle, strip.y + strip.height - 9);
        textEnd = middle + half + 2;
      }
    }
    for (const box of boxes) {
      drawBox(context, x0, x1, box, state, segment === selected, segment.to === null, style);
    }
  });
  context.restore();
  return drawn;
}

function textOf(segment, state) {
  if (segment.unit === null) return "";
  return segment.unit === "unknown" ? "?" : readable(segment.unit, 24) + SIGNS[state];
}

function drawBar(context, x0, x1, strip, state, colour) {
  const y = strip.y + strip.height - 5;
  const width = Math.max(x1 - x0, 1.5);
  if (state === "final" || state === "detected") {
    context.fillStyle = colour;
    context.globalAlpha = state === "final" ? 1 : 0.5;
    context.fillRect(x0, y, width, 4);
    context.globalAlpha = 1;
    return;
  }
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.setLineDash(DASHES[state]);
  if (state === "unknown") context.strokeRect(x0 + 0.5, y + 0.5, Math.max(width - 1, 1), 3);
  else {
    context.beginPath();
    context.moveTo(x0, y + 2);
    context.lineTo(x0 + width, y + 2);
    context.stroke();
  }
  context.setLineDash([]);
}

function drawBox(context, x0, x1, box, state, selected, open, style) {
  const width = x1 - x0;
  const whole = selected || width >= 28;
  const arm = whole ? box.height : Math.min(9, box.height / 4);
  const path = () => {
    context.beginPath();
    for (const [y, way] of [[box.y + 1, 1], [box.y + box.height - 1, -1]]) {
      context.moveTo(x0, y + way * (arm - 2));
      context.lineTo(x0, y);
      context.lineTo(x1, y);
      if (!open) context.lineTo(x1, y + way * (arm - 2));
      if (whole) break;
    }
    if (whole) {
      context.moveTo(x0, box.y + box.height - 1);
      context.lineTo(x1, box.y + box.height - 1);
    }
  };
  context.setLineDash([]);
  context.lineWidth = selected ? 5 : 3;
  context.strokeStyle = style.halo;
  path();
  context.stroke();
  context.setLineDash(DASHES[state]);
  context.lineWidth = selected ? 2.5 : 1.25;
  context.strokeStyle = style.box;
  path();
  context.stroke();
  context.setLineDash([]);
}

/** Draw sounds that became no segment: faint dotted brackets with a cross. */
export function drawMisses(context, stream, scale, box, style) {
  const drawn = [];
  context.save();
  clip(context, scale.x, box.y, scale.width, box.height);
  context.strokeStyle = style.box;
  context.fillStyle = style.box;
  context.lineWidth = 1;
  context.font = style.font;
  context.textAlign = "center";
  eachVisible(stream.misses, scale, LONGEST_SEGMENT_S, (miss) => {
    const x0 = scale.at(miss.from);
    const x1 = Math.max(scale.at(miss.to), x0 + 2);
    drawn.push({ miss, x0, x1 });
    context.globalAlpha = 0.55;
    context.setLineDash([1, 3]);
    context.strokeRect(x0, box.y + 14, x1 - x0, box.height - 18);
    context.setLineDash([]);
    context.globalAlpha = 0.8;
    context.fillText("×", (x0 + x1) / 2, box.y + 11);
  });
  context.restore();
  return drawn;
}

/** Draw forecasts: the unit that was expected, in brackets below the top. */
export function drawForecasts(context, stream, scale, box, style) {
  context.save();
  clip(context, scale.x, box.y, scale.width, box.height);
  context.font = style.slanted;
  context.textAlign = "left";
  let textEnd = -Infinity;
  eachVisible(stream.segments, scale, LONGEST_SEGMENT_S, (segment) => {
    if (!segment.forecast) return;
    const x = scale.at(segment.from) + 2;
    const right = segment.unit === null || segment.unit === segment.forecast.unit;
    const text = `(${readable(segment.forecast.unit, 12)}${right ? "" : " ≠"})`;
    const y = box.y + 26;
    if (x < textEnd) return;
    textEnd = x + context.measureText(text).width + 2;
    context.lineWidth = 3;
    context.strokeStyle = style.halo;
    context.strokeText(text, x, y);
    context.fillStyle = style.box;
    context.fillText(text, x, y);
  });
  context.restore();
}

const WORDS = {
  gap: (span) => `gap: ${span.reason}`,
  withheld: (span) => `withheld: ${span.reason}`,
  restart: (span) => span.reason,
};

/** Draw gaps, withheld audio and restarts: hatched, with words. */
export function drawSpans(context, stream, scale, box, style) {
  const drawn = [];
  context.save();
  clip(context, scale.x, box.y, scale.width, box.height);
  context.font = style.font;
  context.textBaseline = "middle";
  eachVisible(stream.spans, scale, Infinity, (span) => {
    const x0 = scale.at(span.from);
    const width = Math.max(scale.at(span.to) - x0, 2);
    drawn.push({ span, x0, x1: x0 + width });
    context.fillStyle = style.ground;
    context.fillRect(x0, box.y, width, box.height);
    context.save();
    clip(context, x0, box.y, width, box.height);
    context.strokeStyle = style.hatch;
    context.lineWidth = 1.5;
    const step = span.kind === "withheld" ? 6 : 10;
    context.beginPath();
    const from = Math.max(x0, scale.x);
    const to = Math.min(x0 + width, scale.x + scale.width);
    const first = Math.floor((from - box.height) / step) * step;
    for (let x = first; x < to; x += step) {
      context.moveTo(x, box.y + box.height);
      context.lineTo(x + box.height, box.y);
      if (span.kind === "withheld") {
        context.moveTo(x, box.y);
        context.lineTo(x + box.height, box.y + box.height);
      }
    }
    context.stroke();
    context.restore();
    const words = readable(WORDS[span.kind](span), 48);
    const size = context.measureText(words).width;
    const inside = width > size + 12;
    const x = inside ? Math.max(x0, scale.x) + 6 : x0 + width + 4;
    const y = box.y + box.height / 2;
    context.fillStyle = style.ground;
    context.globalAlpha = 0.85;
    context.fillRect(x - 3, y - 9, size + 6, 18);
    context.globalAlpha = 1;
    context.fillStyle = style.ink;
    context.fillText(words, x, y);
  });
  context.restore();
  return drawn;
}

/** Draw a trace as a line; values outside of [low, high] are cut off. */
export function drawTrace(context, stream, scale, box, trace) {
  const { kind, column, low, high, colour, dash } = trace;
  context.save();
  clip(context, scale.x, box.y, scale.width, box.height);
  context.strokeStyle = colour;
  context.lineWidth = 1.25;
  context.setLineDash(dash ?? []);
  context.beginPath();
  let pen = false;
  eachColumn(stream, scale, kind, column, (x, value) => {
    if (Number.isNaN(value)) {
      pen = false;
      return;
    }
    const y = box.y + box.height * (1 - (value - low) / (high - low));
    if (pen) context.lineTo(x, y);
    else context.moveTo(x, y);
    pen = true;
  });
  context.stroke();
  context.restore();
}

/** Return the smallest and largest visible value of a trace; null: there is none. */
export function rangeOfTrace(stream, scale, kind, column) {
  let low = Infinity;
  let high = -Infinity;
  eachColumn(stream, scale, kind, column, (_, value) => {
    if (value < low) low = value;
    if (value > high) high = value;
  });
  return low <= high ? [low, high] : null;
}

function eachColumn(stream, scale, kind, column, act) {
  for (let x = 0; x < scale.width; x += 1) {
    const start = scale.left + x / scale.pixelsPerSecond;
    const epoch = stream.epochAt(start);
    const ring = epoch?.rings[kind];
    if (!ring) {
      act(scale.x + x, NaN);
      continue;
    }
    const first = Math.floor(epoch.sampleAt(start) / ring.step);
    const stop = epoch.sampleAt(start + 1 / scale.pixelsPerSecond) / ring.step;
    let largest = NaN;
    const stride = Math.max(Math.floor((stop - first) / 16), 1);
    for (let row = first; row < stop; row += stride) {
      const value = ring.value(row, column);
      if (Number.isNaN(largest) || value > largest) largest = value;
    }
    act(scale.x + x, largest);
  }
}

/** Draw the level that `stats` have, one step a second. */
export function drawLevels(context, stream, scale, box, { low, high, colour }) {
  context.save();
  clip(context, scale.x, box.y, scale.width, box.height);
  context.strokeStyle = colour;
  context.lineWidth = 1.25;
  context.beginPath();
  const list = stream.levels;
  let before = null;
  for (let k = Math.max(firstFrom(list, scale.left - 3) - 1, 0); k < list.length; k += 1) {
    const level = list[k];
    if (!Number.isFinite(level.db)) continue;
    const y = box.y + box.height * (1 - (level.db - low) / (high - low));
    const start = before !== null && level.from - before < 3 ? before : level.from - 1;
    if (before === null || start !== before) context.moveTo(scale.at(start), y);
    else context.lineTo(scale.at(start), y);
    context.lineTo(scale.at(level.from), y);
    before = level.from;
    if (level.from > scale.right + 2) break;
  }
  context.stroke();
  context.restore();
}

function clip(context, x, y, width, height) {
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
}
