/* Draws the columns of a stream pixel by pixel, each pixel column once. */

/**
 * A strip of spectrogram.
 *
 * Pixel columns have whole numbers on the time axis of the stream: column p is the
 * time [p, p + 1) / pixelsPerSecond, whatever part of it is visible. The canvas is a
 * ring of as many columns as are visible: when the view moves only new columns are
 * computed, and two copies put the strip on the screen.
 */
export class SpectrogramStrip {
  /** @param {"frames"|"synthesis"} kind */
  constructor(kind) {
    this.kind = kind;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    this.drawnFrom = 0;
    this.drawnTo = 0; // columns [drawnFrom, drawnTo) are on the canvas
    this.stale = null; // columns of older data that came late
    this.signature = "";
    this.rows = null;
    this.computed = 0;
  }

  /** Compute all columns anew before they are next shown. */
  invalidate() {
    this.drawnFrom = 0;
    this.drawnTo = 0;
  }

  /** Compute the columns of the times [from, to) in seconds anew. */
  invalidateTimes(from, to, pixelsPerSecond) {
    const first = Math.floor(from * pixelsPerSecond) - 1;
    if (first >= this.drawnTo) return;
    const last = Math.ceil(to * pixelsPerSecond) + 1;
    if (last <= this.drawnFrom) return;
    // Live columns come at the right end: the few columns from there on are cut off.
    if (last >= this.drawnTo) {
      this.drawnTo = Math.max(first, this.drawnFrom);
      return;
    }
    const [low, high] = this.stale ?? [first, last];
    this.stale = [Math.min(first, low), Math.max(last, high)];
  }

  /**
   * Bring columns [from, from + width) up to date and copy them.
   *
   * @param {CanvasRenderingContext2D} target
   * @param {object} stream Stream of the model.
   * @param {object} how pixelsPerSecond, lowRow, highRow, colours (Uint32Array of 256),
   *     missing (colour of columns that are not there), version (changes with colours).
   * @param {number} from Number of the leftmost pixel column.
   * @param {object} box x, y, width, height in pixels of the target.
   */
  draw(target, stream, how, from, box) {
    const { width, height } = box;
    if (width < 1 || height < 1) return;
    const signature = [
      width, height, how.pixelsPerSecond, how.lowRow, how.highRow, how.version,
    ].join(" ");
    if (signature !== this.signature) {
      this.signature = signature;
      this.canvas.width = width;
      this.canvas.height = height;
      this.rows = null;
      this.invalidate();
    }
    const to = from + width;
    if (this.stale) {
      const first = Math.max(this.stale[0], from, this.drawnFrom);
      this.compute(stream, how, first, Math.min(this.stale[1], to, this.drawnTo));
      this.stale = null;
    }
    const overlaps = this.drawnTo > from && this.drawnFrom < to && this.drawnTo > this.drawnFrom;
    if (!overlaps) {
      this.compute(stream, how, from, to);
    } else {
      if (from < this.drawnFrom) this.compute(stream, how, from, this.drawnFrom);
      if (to > this.drawnTo) this.compute(stream, how, this.drawnTo, to);
    }
    this.drawnFrom = from;
    this.drawnTo = to;
    const split = ((from % width) + width) % width;
    const head = width - split;
    target.drawImage(this.canvas, split, 0, head, height, box.x, box.y, head, height);
    if (split) {
      target.drawImage(this.canvas, 0, 0, split, height, box.x + head, box.y, split, height);
    }
  }

  compute(stream, how, from, to) {
    const { width, height } = this.canvas;
    let column = from;
    while (column < to) {
      const place = ((column % width) + width) % width;
      const n = Math.min(to - column, width - place);
      const image = this.context.createImageData(n, height);
      const pixels = new Uint32Array(image.data.buffer);
      for (let k = 0; k < n; k += 1) this.fill(pixels, k, n, stream, how, column + k);
      this.context.putImageData(image, place, 0);
      column += n;
      this.computed += n;
    }
  }

  fill(pixels, x, stride, stream, how, column) {
    const { height } = this.canvas;
    const start = column / how.pixelsPerSecond;
    const epoch = stream.epochAt(start);
    const ring = epoch?.rings[this.kind];
    if (!ring) {
      for (let y = 0; y < height; y += 1) pixels[y * stride + x] = how.missing;
      return;
    }
    const values = this.valuesOf(ring, epoch, start, start + 1 / how.pixelsPerSecond);
    if (!values) {
      for (let y = 0; y < height; y += 1) pixels[y * stride + x] = how.missing;
      return;
    }
    if (!this.rows || this.rows.nBins !== ring.nBins) {
      this.rows = rowsOf(ring.nBins, how.lowRow, how.highRow, height);
    }
    const { data, at } = values;
    const { low, high, part, span } = this.rows;
    for (let y = 0; y < height; y += 1) {
      let value;
      if (span > 1) {
        value = 0;
        for (let bin = low[y]; bin <= high[y]; bin += 1) {
          if (data[at + bin] > value) value = data[at + bin];
        }
      } else {
        const below = data[at + low[y]];
        value = below + (data[at + high[y]] - below) * part[y];
      }
      pixels[y * stride + x] = how.colours[value | 0];
    }
  }

  /** Find the frame of a pixel column, or the maximum of several; null: none. */
  valuesOf(ring, epoch, start, stop) {
    // Frame k is drawn over the hop around its centre.
    const middle = epoch.frameLength / 2 - epoch.hop / 2;
    const first = Math.floor((epoch.sampleAt(start) - middle) / epoch.hop);
    const last = Math.max(Math.ceil((epoch.sampleAt(stop) - middle) / epoch.hop) - 1, first);
    if (last === first) {
      const at = ring.at(first);
      return at < 0 ? null : { data: ring.data, at };
    }
    // Of very many frames per pixel some are looked at.
    const step = Math.max(Math.floor((last - first + 1) / 24), 1);
    this.maximum = this.maximum?.length === ring.nBins ? this.maximum : new Uint8Array(ring.nBins);
    let found = 0;
    for (let frame = first; frame <= last; frame += step) {
      const at = ring.at(frame);
      if (at < 0) continue;
      if (!found) {
        this.maximum.set(ring.data.subarray(at, at + ring.nBins));
      } else {
        for (let bin = 0; bin < ring.nBins; bin += 1) {
          if (ring.data[at + bin] > this.maximum[bin]) this.maximum[bin] = ring.data[at + bin];
        }
      }
      found += 1;
    }
    return found ? { data: this.maximum, at: 0 } : null;
  }
}

/** Find for each row of pixels the bins that it shows. */
function rowsOf(nBins, lowRow, highRow, height) {
  const span = (highRow - lowRow) / height;
  const low = new Int32Array(height);
  const high = new Int32Array(height);
  const part = new Float32Array(height);
  for (let y = 0; y < height; y += 1) {
    const row = highRow - (y + 0.5) * span;
    if (span > 1) {
      low[y] = clamp(Math.round(row - span / 2), nBins);
      high[y] = clamp(Math.round(row + span / 2) - 1, nBins);
    } else {
      const centre = row - 0.5;
      low[y] = clamp(Math.floor(centre), nBins);
      high[y] = clamp(low[y] + 1, nBins);
      part[y] = Math.min(Math.max(centre - low[y], 0), 1);
    }
  }
  return { nBins, low, high, part, span };
}

const clamp = (bin, nBins) => Math.min(Math.max(bin, 0), nBins - 1);
