/* Colour maps of spectrograms, and marks that tell units apart. */

// Colours at equal distances, from matplotlib's maps of the same names (CC0).
const ANCHORS = {
  magma:
    "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf",
  viridis:
    "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
  inferno:
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4",
  cividis:
    "00224e 002e6a 1a386f 32436d 434e6c 535a6d 61656f 6f7073 7d7c78 8c8878 9b9476 aba072 bcae6c cdbb63 dec958 f0d846 fee838",
  grey: "000000 ffffff",
};

/** Colour maps by name: lists of [red, green, blue] at equal distances. */
export const MAPS = Object.fromEntries(
  Object.entries(ANCHORS).map(([name, text]) => [
    name,
    text.split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16))),
  ]),
);

/**
 * Colours of the 256 values of a column.
 *
 * @param {string} name Key of MAPS.
 * @param {number} gainDb Amplification of what is shown, dB.
 * @param {boolean} light Whether silence is white and loud dark (grey), or the map is
 *     kept and only begins at its own darkest colour (others).
 * @param {number} [rangeDb] Decibels from value 0 to value 255 (`high - low`).
 * @param {number} [contrast] Steepness; 1 shows the whole range.
 * @param {number} [quiet] Value that is shown as the quietest, such as the room's noise.
 * @returns {Uint8ClampedArray} Red, green, blue and alpha of each value, 1024 bytes.
 */
export function table(name, gainDb, light, rangeDb = 80, contrast = 1, quiet = 0) {
  const anchors = MAPS[name] ?? MAPS.magma;
  const colours = new Uint8ClampedArray(1024);
  const shift = gainDb / Math.max(rangeDb, 1);
  for (let value = 0; value < 256; value += 1) {
    // Contrast turns about the quietest value, which stays the background.
    const level = (value - quiet) / (255 - quiet);
    let place = Math.min(Math.max((level + shift) * contrast, 0), 1);
    if (light && name === "grey") place = 1 - place;
    const at = place * (anchors.length - 1);
    const below = Math.min(Math.floor(at), anchors.length - 2);
    for (let part = 0; part < 3; part += 1) {
      const from = anchors[below][part];
      colours[4 * value + part] = from + (anchors[below + 1][part] - from) * (at - below);
    }
    colours[4 * value + 3] = 255;
  }
  return colours;
}

/** Number of colours and shapes that units get in turn (`--unit-0` ... in style.css). */
export const N_UNIT_COLOURS = 8;
const SHAPES = ["●", "■", "▲", "◆", "▼", "✚", "★", "⬟", "○", "□", "△"];

/**
 * Gives units a colour and a shape each, by their names: the same on each page and visit.
 *
 * Units of one letter or digit never share a mark; of others, the one that is met later
 * takes the next free mark. Colour and shape have coprime cycles: 88 units differ in at
 * least one of them.
 */
export class UnitMarks {
  /** @param {number} [most] Units that are told apart; later ones share the last mark. */
  constructor(most = 88) {
    this.most = most;
    this.places = new Map();
    this.taken = new Set();
  }

  /** Return the place of a unit, a new one for a new unit; -1 for "unknown". */
  place(unit) {
    if (unit === "unknown") return -1;
    const known = this.places.get(unit);
    if (known !== undefined) return known;
    if (this.taken.size >= this.most) return this.most;
    let place = preferredPlace(unit) % this.most;
    while (this.taken.has(place)) place = (place + 1) % this.most;
    this.places.set(unit, place);
    this.taken.add(place);
    return place;
  }

  /** Return the index of the unit's CSS colour; -1 for "unknown". */
  colour(unit) {
    const place = this.place(unit);
    return place < 0 ? -1 : place % N_UNIT_COLOURS;
  }

  /** Return the unit's shape, one character. */
  shape(unit) {
    const place = this.place(unit);
    return place < 0 ? "?" : SHAPES[place % SHAPES.length];
  }
}

/** Return a place from a name: of a letter or digit by its order, else by all characters. */
function preferredPlace(unit) {
  if (/^[a-z0-9]$/.test(unit)) return parseInt(unit, 36);
  if (/^[A-Z]$/.test(unit)) return parseInt(unit, 36) + 26;
  let sum = 62;
  for (const char of unit) sum = (31 * sum + char.codePointAt(0)) % 65521;
  return sum;
}
