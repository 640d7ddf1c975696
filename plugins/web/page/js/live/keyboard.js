/* Keys for everything, the help that lists them, and what is read aloud. */

import { byId, element, fill, setText } from "../text.js";
import { settings } from "./settings.js";

const ANNOUNCE_MS = 8000; // between two summaries of labels
const MOST_NAMES = 6;

/**
 * Listen to keys.
 *
 * @param {Array<[string[], string, function]>} keys Keys (as `event.key`), words of the
 *     help, and what they do; the function gets the event.
 */
export function listenToKeys(keys) {
  const byKey = new Map(keys.flatMap(([names, , act]) => names.map((name) => [name, act])));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    if (target.closest("input:not([type=checkbox]), textarea, select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    // On a button, space and Enter are the button's own.
    if ((event.key === " " || event.key === "Enter") && target.closest("button, a, summary, input")) return;
    if (target.closest("audio")) return;
    const act = byKey.get(event.key);
    if (!act) return;
    event.preventDefault();
    act(event);
  });
  const shown = { " ": "Space", ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };
  fill(
    byId("help-keys"),
    keys.map(([names, words]) =>
      element("tr", {},
        element("th", { scope: "row" }, names.filter((name, k) => k === 0 || name.toLowerCase() !== names[k - 1].toLowerCase())
          .map((name) => element("kbd", {}, shown[name] ?? name))),
        element("td", {}, words))),
  );
}

/** Reads labels aloud, as one sentence from time to time, and news at once. */
export class Announcer {
  constructor() {
    this.labels = byId("said-labels");
    this.news = byId("said-news");
    this.counts = new Map();
    this.unknown = 0;
    this.at = 0;
  }

  /** Note a final label for the next sentence. */
  label(unit) {
    if (!settings.announce) return;
    if (unit === "unknown") this.unknown += 1;
    else if (this.counts.size < 100 || this.counts.has(unit)) {
      this.counts.set(unit, (this.counts.get(unit) ?? 0) + 1);
    }
  }

  /** Say what is important, such as a lost connection. */
  tell(words) {
    setText(this.news, words);
  }

  /** Say what was labelled, if it is time. */
  tick(now) {
    if (!settings.announce || now - this.at < ANNOUNCE_MS) return;
    if (!this.counts.size && !this.unknown) return;
    this.at = now;
    const ranking = [...this.counts].sort((a, b) => b[1] - a[1]);
    const parts = ranking.slice(0, MOST_NAMES).map(([unit, n]) => (n > 1 ? `${unit}, ${n} times` : unit));
    if (ranking.length > MOST_NAMES) parts.push(`${ranking.length - MOST_NAMES} other units`);
    if (this.unknown) parts.push(`${this.unknown} unknown`);
    setText(this.labels, parts.join("; "));
    this.counts.clear();
    this.unknown = 0;
  }
}
