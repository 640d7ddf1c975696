/* Keys of the review page, and the table that explains them. */

import { element, fill } from "../text.js";

const KEYS = [
  ["↓ ↑", "next, previous segment (also Tab to the list)"],
  ["a … z, 0 … 9", "label with the unit of that letter; of several, or a new one, a field opens"],
  ["F2", "type the name of a unit"],
  [".", "label as the last one"],
  ["Enter", "confirm the label as it is; of a near miss: that nothing is there"],
  ["Space", "play (ultrasound slowed down)"],
  ["Shift Space", "play slowly"],
  ["[ ]", "choose the onset, the offset; then ← → move it by a hop (Shift: ten)"],
  ["/", "split: ← → move the line, Enter splits"],
  ["+", "merge with the next segment"],
  ["Delete", "delete"],
  ["Insert", "add a segment in the middle of the picture"],
  ["Escape", "stop moving or splitting"],
  ["Ctrl Z, Ctrl Y", "undo, redo your own changes"],
  ["← →", "earlier, later part of the recording"],
  ["< >", "longer, shorter time"],
  ["?", "this help"],
];

/** Fill the table of the help. */
export function showKeys(table) {
  fill(
    table,
    element(
      "tbody",
      {},
      ...KEYS.map(([key, what]) =>
        element("tr", {}, element("td", {}, element("kbd", {}, key)), element("td", {}, what)),
      ),
    ),
  );
}

const TYPING = new Set(["INPUT", "TEXTAREA", "SELECT"]);
const PRESSED = new Set(["BUTTON", "A", "SUMMARY"]);

/** Return whether a key belongs to the control that has the focus. */
function belongsToControl(event) {
  const { target } = event;
  if (document.querySelector("dialog[open]")) return true;
  if (TYPING.has(target.tagName)) {
    const box = target.type === "checkbox" || target.type === "range";
    return !box || event.key === " " || event.key.startsWith("Arrow");
  }
  return PRESSED.has(target.tagName) && (event.key === " " || event.key === "Enter");
}

/**
 * Listen to keys.
 *
 * @param {object} act What can be done, by name: next, previous, confirm, letter(text),
 *     nameUnit, again, play(slowly), edge(name), step(hops), split, merge, remove, add,
 *     escape, undo, redo, zoom(factor), help, released.
 */
export function listenToKeys(act) {
  const named = {
    ArrowDown: () => act.next(),
    ArrowUp: () => act.previous(),
    ArrowLeft: (event) => act.step(event.shiftKey ? -10 : -1),
    ArrowRight: (event) => act.step(event.shiftKey ? 10 : 1),
    Enter: () => act.confirm(),
    " ": (event) => act.play(event.shiftKey),
    F2: () => act.nameUnit(),
    Delete: () => act.remove(),
    Insert: () => act.add(),
    Escape: () => act.escape(),
    ".": () => act.again(),
    "[": () => act.edge("onset"),
    "]": () => act.edge("offset"),
    "/": () => act.split(),
    "+": () => act.merge(),
    "<": () => act.zoom(1.5),
    ">": () => act.zoom(1 / 1.5),
    "?": () => act.help(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || belongsToControl(event)) return;
    const letter = event.key.length === 1 ? event.key.toLowerCase() : "";
    let done = null;
    if (event.ctrlKey || event.metaKey) {
      if (letter === "z") done = event.shiftKey ? act.redo : act.undo;
      else if (letter === "y") done = act.redo;
      if (done) done = done.bind(act);
    } else if (named[event.key]) {
      done = () => named[event.key](event);
    } else if (event.key.length === 1) {
      done = () => act.letter(event.key);
    }
    if (!done) return;
    event.preventDefault();
    done();
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") act.released();
  });
}
