/* List of the segments that the filters select. */

import { posterior, streamTime, timeOfDay } from "../format.js";
import { byId, element, fill, readable, setText } from "../text.js";

/** Listbox of segments. */
export class SegmentList {
  /**
   * @param {HTMLElement} node The element with role listbox.
   * @param {UnitMarks} marks
   * @param {(id: string) => object|undefined} recordingOf
   * @param {(index: number) => void} onChoose
   */
  constructor(node, marks, recordingOf, onChoose) {
    this.node = node;
    this.marks = marks;
    this.recordingOf = recordingOf;
    this.segments = [];
    node.addEventListener("click", (event) => {
      const row = event.target.closest("li");
      if (row) onChoose(Number(row.dataset.index));
    });
  }

  /** Show segments; `chosen` is the index of the chosen one, or -1. */
  show(segments, chosen) {
    this.segments = segments;
    fill(this.node, ...segments.map((segment, index) => this.row(segment, index)));
    this.choose(chosen);
  }

  /** Show one row anew. */
  update(index) {
    const row = this.node.children[index];
    if (!row) return;
    const made = this.row(this.segments[index], index);
    made.setAttribute("aria-selected", row.getAttribute("aria-selected"));
    row.replaceWith(made);
  }

  /** Mark the chosen row and bring it into view. */
  choose(index) {
    for (const row of this.node.querySelectorAll('[aria-selected="true"]')) {
      row.setAttribute("aria-selected", "false");
    }
    const row = this.node.children[index];
    if (!row) {
      this.node.removeAttribute("aria-activedescendant");
      return;
    }
    row.setAttribute("aria-selected", "true");
    row.scrollIntoView({ block: "nearest" });
    this.node.setAttribute("aria-activedescendant", row.id);
  }

  row(segment, index) {
    const recording = this.recordingOf(segment.recording);
    const isMiss = segment.kind === "near_miss";
    const unit = isMiss ? `near miss (${segment.reason})` : segment.unit || "no unit";
    const state = !segment.alive ? "deleted" : segment.reviewed ? "reviewed" : "not reviewed";
    const value = isMiss ? segment.score?.toFixed(1) : posterior(segment.posterior);
    const row = element(
      segment.alive ? "li" : "li.gone",
      { role: "option", id: `segment-${index}`, "aria-selected": "false", "data-index": index },
      element("span", { "aria-hidden": "true" }, segment.reviewed ? "✓" : "·"),
      element(
        "span.unit-name",
        { title: readable(`${unit}, ${recording?.name ?? ""}`, 200) },
        isMiss ? "" : `${this.marks.shape(segment.unit || "unknown")} `,
        readable(unit, 40),
        element("span.hidden-text", {}, `, ${state}`),
      ),
      element("span", {}, startOf(segment, recording)),
      element("span", {}, value ?? "–"),
    );
    return row;
  }
}

/** Return when a segment began: time of day, or time in its recording. */
export function startOf(segment, recording) {
  if (!recording) return "";
  const seconds = segment.onset / recording.sample_rate;
  return recording.utc_ms === null
    ? streamTime(seconds, 2)
    : timeOfDay(recording.utc_ms + 1000 * seconds, 2);
}

/** Show how many segments there are. */
export function showCount(node, shown, total) {
  setText(node, shown < total ? `${shown} of ${total}` : `${total}`);
}

/** Return the order and the filters that are chosen. */
export function query() {
  const order = byId("order").value;
  return {
    order,
    kind: order === "near_miss" ? "near_miss" : "segment",
    unit: byId("unit").value,
    recording: byId("recording").value,
    unreviewed: byId("unreviewed").checked ? 1 : "",
  };
}

/** Return whether a segment belongs to what the filters select. */
export function fits(segment) {
  const { recording, unit, kind } = query();
  return (
    kind === segment.kind &&
    (!recording || recording === segment.recording) &&
    (!unit || unit === segment.unit)
  );
}
