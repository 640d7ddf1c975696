/* Panels of the review page: progress, units, the chosen segment, the changes. */

import { duration, posterior, timeOfDay } from "../format.js";
import { append, byId, element, fill, readable, setText } from "../text.js";
import { startOf } from "./list.js";
import { marks, view } from "./state.js";

const MOST_UNIT_BUTTONS = 40;
const MOST_CHANGES = 100;

const DONE = {
  label: "labelled",
  confirm: "confirmed",
  move: "moved",
  split: "split",
  merge: "merged with the next",
  delete: "deleted",
  add: "added",
  undo: "undone",
  redo: "done again",
};

/** Show how many segments are reviewed. */
export function showProgress({ reviewed, total }) {
  const bar = byId("progress");
  bar.max = Math.max(total, 1);
  bar.value = reviewed;
  setText(byId("progress-words"), `${reviewed} of ${total} reviewed`);
}

/** Show the units with their counts; `onLabel` takes the unit of a pressed button. */
export function showUnits(units, onLabel) {
  view.units = units.map(([unit]) => unit);
  const buttons = units.slice(0, MOST_UNIT_BUTTONS).map(([unit, number]) => {
    const key = keyOf(unit);
    return element(
      "button",
      { type: "button", title: readable(unit, 250), onclick: () => onLabel(unit) },
      `${marks.shape(unit)} ${readable(unit, 24)} `,
      element("span", {}, `${number} `),
      key ? element("kbd", {}, key) : null,
    );
  });
  fill(byId("units"), ...buttons);
  if (!buttons.length) append(byId("units"), ["No segment has a unit yet: type a letter, or F2."]);
  const select = byId("unit");
  const chosen = select.value;
  fill(
    select,
    element("option", { value: "" }, "all"),
    ...view.units.map((unit) => element("option", { value: unit }, readable(unit, 40))),
  );
  if (chosen && !view.units.includes(chosen)) {
    append(select, [element("option", { value: chosen }, readable(chosen, 40))]);
  }
  select.value = chosen;
  fill(byId("label-units"), ...view.units.map((unit) => element("option", { value: unit })));
}

/** Return the key that labels with a unit at once; "" if there is none. */
export function keyOf(unit) {
  const alone = view.units.filter((other) => other.startsWith(unit)).length === 1;
  return Array.from(unit).length === 1 && /[\p{L}\p{N}]/u.test(unit) && alone ? unit : "";
}

/** Show what is known of the chosen segment. */
export function showFacts() {
  const { current, recording } = view;
  if (!current) return;
  const isMiss = current.kind === "near_miss";
  const unit = isMiss ? "Near miss" : current.unit || "No unit";
  setText(byId("what"), `${isMiss ? "" : marks.shape(current.unit || "unknown")} ${readable(unit)}`);
  const rate = recording?.sample_rate ?? 1;
  const { onset, offset } = view.draft ?? current;
  const facts = [
    readable(recording?.name ?? "", 40),
    `${startOf({ ...current, onset }, recording)}, ${duration((offset - onset) / rate)}`,
    current.posterior === null ? "" : `posterior ${posterior(current.posterior)}`,
    current.surprise === null ? "" : `surprise ${current.surprise.toFixed(2)}`,
    isMiss ? `${current.reason}, score ${current.score?.toFixed(1)}` : "",
    !current.alive ? "deleted" : current.reviewed ? "reviewed" : "not yet reviewed",
    current.author ? `by ${readable(current.author, 30)}` : "",
  ];
  setText(byId("facts"), facts.filter(Boolean).join(" · "));
  const words = `Spectrogram: ${unit}, ${facts.filter(Boolean).join(", ")}`;
  byId("picture").setAttribute("aria-label", words);
}

/** Return a sentence about a change that the server has made. */
export function told(edit, answer) {
  const [first] = answer.segments;
  if (edit.action === "confirm" && first.kind === "near_miss") return "Confirmed: nothing is there.";
  if (edit.action === "label" || edit.action === "confirm") {
    return `${readable(first.unit, 40)}: ${DONE[edit.action]}.`;
  }
  return `${DONE[edit.action][0].toUpperCase()}${DONE[edit.action].slice(1)}.`;
}

/** Add changes to the list of them, the newest first. */
export function showHistory(events) {
  const rows = events.map((event) =>
    element(
      "li",
      { value: event.event },
      `${timeOfDay(event.utc_ms)} ${readable(event.author, 30)}: ${DONE[event.action]}`,
      event.unit ? ` ${readable(event.unit, 30)}` : "",
    ),
  );
  byId("history").prepend(...rows.reverse());
  while (byId("history").children.length > MOST_CHANGES) byId("history").lastElementChild.remove();
}
