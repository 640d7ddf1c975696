/* Axes of time and frequency: scales, ticks and their drawing. */

import { round, streamTime, timeOfDay } from "./format.js";

const melOfHz = (hz) => 2595 * Math.log10(1 + hz / 700);
const hzOfMel = (mel) => 700 * (10 ** (mel / 2595) - 1);

/**
 * Frequency of the bins of frames.
 *
 * Rows are places on the axis in bins: bin b covers rows [b, b + 1), its centre is
 * at b + 0.5. Rows are equally high on the screen, whatever the spacing.
 */
export class FrequencyAxis {
  /**
   * @param {object} frames `stats.values.frames`: n_bins, low_hz, high_hz (centres of
   *     the first and last bin) and spacing, "linear" or "mel".
   */
  constructor({ n_bins, low_hz, high_hz, spacing = "linear" }) {
    this.nBins = n_bins;
    this.known = Number.isFinite(low_hz) && Number.isFinite(high_hz);
    this.spacing = this.known ? spacing : "bins";
    const convert = this.spacing === "mel" ? melOfHz : (hz) => hz;
    this.low = this.known ? convert(low_hz) : 0;
    this.step = this.known ? (convert(high_hz) - this.low) / Math.max(n_bins - 1, 1) : 1;
  }

  /** Return the frequency at a row, Hz; the row where frequencies are not known. */
  hz(row) {
    const place = this.low + (row - 0.5) * this.step;
    return this.spacing === "mel" ? hzOfMel(place) : place;
  }

  /** Return the row of a frequency in Hz. */
  row(hz) {
    const place = this.spacing === "mel" ? melOfHz(hz) : hz;
    return this.step ? (place - this.low) / this.step + 0.5 : 0.5;
  }
}

/** Return 1, 2 or 5 times a power of ten: the smallest that is at least `least`. */
export function niceStep(least) {
  if (!(least > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(least));
  for (const factor of [1, 2, 5]) {
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

/**
 * Choose ticks of a frequency axis.
 *
 * @param {FrequencyAxis} axis
 * @param {number} lowRow Row at the bottom.
 * @param {number} highRow Row at the top.
 * @param {number} height Pixels.
 * @param {number} [apart] Least distance of two ticks, pixels.
 * @returns {{row: number, text: string}[]} In kHz (or Hz below 1 kHz in all); in bins
 *     where frequencies are not known.
 */
export function frequencyTicks(axis, lowRow, highRow, height, apart = 26) {
  const ticks = [];
  const perRow = height / (highRow - lowRow);
  const low = axis.hz(lowRow);
  const high = axis.hz(highRow);
  const most = Math.max(Math.floor(height / apart), 1);
  // On a mel axis ticks are close together at the top: there some are left out.
  const step = niceStep((high - low) / (axis.spacing === "mel" ? 4 * most : most));
  let lastRow = -Infinity;
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + 1e-9 * step; n += 1) {
    const hz = n * step;
    if (axis.spacing === "mel" && hz > 0 && !isRound(hz)) continue;
    const row = axis.row(hz);
    if ((row - lastRow) * perRow < apart) continue;
    lastRow = row;
    ticks.push({ row, hz });
  }
  const scale = axis.known && high >= 1000 ? 1000 : 1;
  return ticks.map(({ row, hz }) => ({ row, text: round(hz / scale, 3) }));
}

function isRound(hz) {
  const digit = hz / 10 ** Math.floor(Math.log10(hz) + 1e-9);
  return [1, 2, 3, 4, 5, 6, 8].some((nice) => Math.abs(digit - nice) < 1e-6);
}

/** Return the unit of the numbers that `frequencyTicks` gives: "kHz", "Hz" or "bin". */
export function frequencyUnit(axis, highRow) {
  if (!axis.known) return "bin";
  return axis.hz(highRow) >= 1000 ? "kHz" : "Hz";
}

const TIME_STEPS_S = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300,
  600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400,
];

/**
 * Choose ticks of a time axis.
 *
 * @param {number} first Sample at the left.
 * @param {number} last Sample at the right.
 * @param {number} sampleRate Hz.
 * @param {number} width Pixels.
 * @param {"utc"|"stream"|"sample"} mode What the texts say.
 * @param {number|null} [zeroMs] UTC of sample 0 in ms since 1970; null: not known,
 *     "utc" is then "stream".
 * @param {number} [apart] Least distance of two ticks, pixels.
 * @returns {{sample: number, text: string}[]}
 */
export function timeTicks(first, last, sampleRate, width, mode, zeroMs = null, apart = 84) {
  const ticks = [];
  const most = Math.max(Math.floor(width / apart), 1);
  if (mode === "sample") {
    const step = Math.max(niceStep((last - first) / most), 1);
    for (let n = Math.ceil(first / step); n * step <= last; n += 1) {
      ticks.push({ sample: n * step, text: grouped(n * step) });
    }
    return ticks;
  }
  const least = (last - first) / sampleRate / most;
  const step = TIME_STEPS_S.find((s) => s >= least * (1 - 1e-9)) ?? 86400;
  const digits = step >= 1 ? 0 : Math.ceil(-Math.log10(step) - 1e-9);
  const utc = mode === "utc" && zeroMs !== null;
  const zero = utc ? (((zeroMs / 1000) % 86400) + 86400) % 86400 : 0;
  const text = (seconds) =>
    utc ? timeOfDay(seconds * 1000, digits) : streamTime(seconds, digits);
  const from = zero + first / sampleRate;
  const to = zero + last / sampleRate;
  for (let n = Math.ceil(from / step - 1e-9); n * step <= to + 1e-9; n += 1) {
    ticks.push({ sample: (n * step - zero) * sampleRate, text: text(n * step) });
  }
  return ticks;
}

const grouped = (value) => String(value).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");

/**
 * Draw a frequency axis at the left of a picture.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {FrequencyAxis} axis
 * @param {{lowRow: number, highRow: number}} view
 * @param {{x: number, y: number, width: number, height: number}} box The axis; its
 *     right edge is the picture's left one.
 * @param {{ink: string, faint: string, font: string}} style
 */
export function drawFrequencyAxis(context, axis, view, box, style) {
  const right = box.x + box.width;
  context.save();
  context.font = style.font;
  context.fillStyle = style.ink;
  context.strokeStyle = style.faint;
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.beginPath();
  for (const { row, text } of frequencyTicks(axis, view.lowRow, view.highRow, box.height)) {
    const place = (view.highRow - row) / (view.highRow - view.lowRow);
    const y = Math.round(box.y + place * box.height) + 0.5;
    context.moveTo(right - 4, y);
    context.lineTo(right, y);
    const inside = Math.min(Math.max(y, box.y + 6), box.y + box.height - 6);
    context.fillText(text, right - 7, inside);
  }
  context.stroke();
  context.restore();
}

/**
 * Draw a time axis below a picture.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {{sample: number, text: string}[]} ticks As `timeTicks` gives them.
 * @param {{first: number, last: number}} view Samples at the left and right edge.
 * @param {{x: number, y: number, width: number, height: number}} box The axis; its
 *     top is the picture's bottom.
 * @param {{ink: string, faint: string, font: string}} style
 */
export function drawTimeAxis(context, ticks, view, box, style) {
  context.save();
  context.font = style.font;
  context.fillStyle = style.ink;
  context.strokeStyle = style.faint;
  context.textBaseline = "top";
  context.textAlign = "left";
  context.beginPath();
  for (const { sample, text } of ticks) {
    const x = box.x + ((sample - view.first) / (view.last - view.first)) * box.width;
    if (x < box.x - 0.5 || x > box.x + box.width + 0.5) continue;
    const line = Math.round(x) + 0.5;
    context.moveTo(line, box.y);
    context.lineTo(line, box.y + 4);
    const half = context.measureText(text).width / 2;
    const left = Math.min(Math.max(x - half, box.x - 40), box.x + box.width - 2 * half);
    context.fillText(text, left, box.y + 6);
  }
  context.stroke();
  context.restore();
}
