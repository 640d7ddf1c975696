/* Spectrograms that were read: the last ones are kept. */

import { readSpectrogram } from "./api.js";

const MOST_COLUMNS = 2000;
const MOST_KEPT = 16;

const kept = new Map(); // by recording, part and width

/** Return the spectrogram of a part, which may have been read before. */
export async function spectrogramOf(recording, first, last, pixels) {
  const width = Math.min(pixels, MOST_COLUMNS);
  const key = `${recording.id} ${first} ${last} ${width}`;
  let found = kept.get(key);
  if (!found) {
    found = readSpectrogram(recording.id, first, last, width);
    kept.set(key, found);
    found.catch(() => kept.delete(key));
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  }
  return { ...(await found), recording: recording.id };
}
