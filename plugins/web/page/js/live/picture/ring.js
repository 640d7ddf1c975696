/* Bounded memory of what is drawn: spectrogram columns and traces. */

/**
 * The newest columns of a stream's run, as unsigned bytes on one scale of dB.
 *
 * Memory is taken in steps as columns arrive, up to `mostFrames` columns; then the
 * oldest are overwritten. Columns that never came are known as missing.
 */
export class ColumnRing {
  /**
   * @param {number} nBins
   * @param {number} mostFrames Columns that are kept.
   */
  constructor(nBins, mostFrames) {
    this.nBins = nBins;
    this.most = mostFrames;
    this.size = Math.min(2048, mostFrames);
    this.data = new Uint8Array(this.size * nBins);
    // Frame number at each place, plus one; 0: nothing.
    this.frames = new Float64Array(this.size);
    this.newest = -1;
    this.oldest = -1;
    this.low = null;
    this.high = null;
    this.unit = null;
    this.quiet = 0; // value of the room's noise, as it is shown
    this.noise = null; // its running estimate
  }

  /** Decibels from value 0 to value 255; where the unit is another, as if it were 80. */
  get rangeDb() {
    return this.high === null || this.unit !== "dB" ? 80 : this.high - this.low;
  }

  /**
   * Add columns `first`, `first + 1`, ...
   *
   * @returns {boolean} Whether the scale changed, so that all is to be drawn again.
   */
  add(first, values, low, high, unit = "dB") {
    const n = values.length / this.nBins;
    const begun = this.unit !== null && this.unit !== unit;
    if (begun) {
      // Until the engine has told its scale, values are on another one: not comparable.
      this.frames.fill(0);
      this.low = null;
      this.noise = null;
    }
    this.unit = unit;
    if (this.oldest < 0) this.oldest = first;
    this.oldest = Math.min(this.oldest, first);
    const needed = Math.min(Math.max(this.newest, first + n - 1) - this.oldest + 1, this.most);
    if (needed > this.size) this.grow(needed);
    const rescaled = this.fitScale(low, high);
    const map = this.mapFrom(low, high);
    for (let k = 0; k < n; k += 1) {
      const frame = first + k;
      if (frame <= this.newest - this.size) continue; // older than what is kept
      const place = frame % this.size;
      const at = place * this.nBins;
      const from = k * this.nBins;
      if (map) {
        for (let bin = 0; bin < this.nBins; bin += 1) this.data[at + bin] = map[values[from + bin]];
      } else {
        this.data.set(values.subarray(from, from + this.nBins), at);
      }
      this.frames[place] = frame + 1;
    }
    this.newest = Math.max(this.newest, first + n - 1);
    this.oldest = Math.max(this.oldest, this.newest - this.size + 1);
    const seconds = this.secondsOf(n);
    return this.followNoise(values, map, n, seconds) || rescaled || begun;
  }

  /**
   * Follow the level of the quiet parts, so that the room's noise is just visible.
   *
   * What is shown follows in steps, because each step draws all columns again.
   *
   * @returns {boolean} Whether what is shown has changed.
   */
  followNoise(values, map, n, seconds) {
    const sample = [];
    const stride = Math.max(Math.floor(values.length / 400), 1);
    for (let at = 0; at < values.length; at += stride) {
      sample.push(map ? map[values[at]] : values[at]);
    }
    sample.sort((a, b) => a - b);
    const now = sample[Math.floor(0.3 * sample.length)] ?? 0;
    if (this.noise === null) this.noise = now;
    // Down within a second, up within half a minute: sounds are no noise.
    const pace = now < this.noise ? 1 : 30;
    this.noise += (now - this.noise) * (1 - Math.exp(-seconds / pace));
    const wanted = Math.max(Math.min(this.noise - 8, 180), 0);
    if (Math.abs(wanted - this.quiet) < 14) return false;
    this.quiet = Math.round(wanted);
    return true;
  }

  secondsOf(n) {
    return this.columnsPerSecond ? n / this.columnsPerSecond : 0.03;
  }

  /** Return where the values of a frame begin in `data`; -1: not here. */
  at(frame) {
    if (frame < 0) return -1;
    const place = frame % this.size;
    return this.frames[place] === frame + 1 ? place * this.nBins : -1;
  }

  grow(needed) {
    let size = this.size;
    while (size < needed) size *= 2;
    size = Math.min(size, this.most);
    const data = new Uint8Array(size * this.nBins);
    const frames = new Float64Array(size);
    for (let place = 0; place < this.size; place += 1) {
      const frame = this.frames[place] - 1;
      if (frame < 0) continue;
      const to = frame % size;
      data.set(this.data.subarray(place * this.nBins, (place + 1) * this.nBins), to * this.nBins);
      frames[to] = frame + 1;
    }
    this.data = data;
    this.frames = frames;
    this.size = size;
  }

  fitScale(low, high) {
    if (this.low === null) {
      this.low = low;
      this.high = high;
      return false;
    }
    if (low >= this.low - 0.01 && high <= this.high + 0.01) return false;
    // A wider scale than before, with reserve, so that this happens a few times only.
    const reserve = 0.1 * (high - low);
    const newLow = low < this.low ? low - reserve : this.low;
    const newHigh = high > this.high ? high + reserve : this.high;
    const map = scaleMap(this.low, this.high, newLow, newHigh);
    for (let at = 0; at < this.data.length; at += 1) this.data[at] = map[this.data[at]];
    this.low = newLow;
    this.high = newHigh;
    return true;
  }

  mapFrom(low, high) {
    if (Math.abs(low - this.low) < 0.01 && Math.abs(high - this.high) < 0.01) return null;
    return scaleMap(low, high, this.low, this.high);
  }
}

function scaleMap(low, high, toLow, toHigh) {
  const map = new Uint8Array(256);
  for (let value = 0; value < 256; value += 1) {
    const level = low + (value / 255) * (high - low);
    map[value] = Math.min(Math.max(Math.round(((level - toLow) / (toHigh - toLow)) * 255), 0), 255);
  }
  return map;
}

/**
 * The newest rows of a trace, float32[n, width], at most about 200 a second.
 *
 * Rows that come faster are joined: of the first value (score, surprise) the largest
 * is kept, of the others the last.
 */
export class TraceRing {
  /**
   * @param {number} width Values of a row.
   * @param {number} hopLength Samples from a row to the next.
   * @param {number} sampleRate Hz.
   * @param {number} seconds What is kept.
   */
  constructor(width, hopLength, sampleRate, seconds) {
    this.width = width;
    this.hop = hopLength;
    this.joined = Math.max(Math.round(sampleRate / hopLength / 200), 1);
    this.step = this.joined * hopLength;
    this.size = Math.ceil((seconds * sampleRate) / this.step);
    this.values = new Float32Array(this.size * width).fill(NaN);
    this.rows = new Float64Array(this.size);
    this.newest = -1;
  }

  /** Add rows `first`, `first + 1`, ... as they came. */
  add(first, values) {
    const n = values.length / this.width;
    for (let k = 0; k < n; k += 1) {
      const row = Math.floor((first + k) / this.joined);
      const place = row % this.size;
      const at = place * this.width;
      const fresh = this.rows[place] !== row + 1;
      this.rows[place] = row + 1;
      for (let column = 0; column < this.width; column += 1) {
        const value = values[k * this.width + column];
        const old = this.values[at + column];
        this.values[at + column] =
          fresh || column > 0 || Number.isNaN(old) || value > old ? value : old;
      }
    }
    this.newest = Math.max(this.newest, Math.floor((first + n - 1) / this.joined));
  }

  /** Return a value of a joined row; NaN: not here. */
  value(row, column) {
    if (row < 0) return NaN;
    const place = row % this.size;
    return this.rows[place] === row + 1 ? this.values[place * this.width + column] : NaN;
  }
}
