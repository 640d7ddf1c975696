/* What the review page knows and shows, and how its parts tell and take turns. */

import { UnitMarks } from "../colours.js";
import { byId, setText } from "../text.js";
import { ReviewError } from "./api.js";

export const marks = new UnitMarks();
export const recordings = new Map();

export const view = {
  segments: [],
  total: 0,
  index: -1,
  current: null, // the chosen segment
  recording: null, // the visible one
  nearby: [], // segments of the visible part
  first: 0,
  last: 1,
  zoom: 1,
  edge: null, // which edge the arrow keys move
  draft: null, // edges while they are moved
  splitAt: null,
  event: 0, // last change that the page knows
  lastUnit: "",
  units: [],
};

/** Show a sentence; kind is "good", "warn", "bad" or nothing. */
export function tell(sentence, kind = "") {
  const node = byId("status");
  node.className = `status ${kind}`;
  setText(node, sentence);
}

/** Run a task; a refusal is told on the page. */
export async function attempt(task) {
  try {
    return await task();
  } catch (error) {
    if (!(error instanceof ReviewError)) throw error;
    tell(error.message, "bad");
    return null;
  }
}

let queue = Promise.resolve();

/** Run a task after those before it: fast typing acts on one segment after another. */
export function inTurn(task) {
  const result = queue.then(task);
  queue = result.catch((error) => console.error(error));
  return result;
}

/** Keep a text for the next visit, where the browser allows it. */
export function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // The name holds until the page is closed.
  }
}

/** Return a text that was kept; "" if there is none. */
export function remembered(key) {
  try {
    return localStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}
