/* Dialog that asks for a unit. */

import { byId } from "../text.js";
import { tell, view } from "./state.js";

/** Ask for the unit of the chosen segment, beginning with a text. */
export function openLabel(text = "") {
  if (!view.current) return tell("Choose a segment first.");
  const input = byId("label-input");
  input.value = text;
  byId("label-dialog").showModal();
  input.focus();
  if (text === view.current.unit) input.select();
}

/** Let the dialog pass the unit that was entered to `onUnit`. */
export function wireLabelDialog(onUnit) {
  byId("label-form").addEventListener("submit", () => {
    const unit = byId("label-input").value.trim();
    if (unit) onUnit(unit);
  });
  byId("label-cancel").addEventListener("click", () => byId("label-dialog").close());
}
