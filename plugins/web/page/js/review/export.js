/* Dialog of the export. */

import { counted, duration } from "../format.js";
import { byId, element, fill, readable, setText } from "../text.js";
import { ReviewError, read, send } from "./api.js";
import { attempt } from "./state.js";

/** Let the buttons of the dialog work. */
export function wireExport() {
  byId("export-open").addEventListener("click", async () => {
    setText(byId("export-result"), "");
    const state = await attempt(() => read("state"));
    if (state) setText(byId("export-folder"), state.export);
    byId("export-dialog").showModal();
  });
  byId("export-close").addEventListener("click", () => byId("export-dialog").close());
  byId("export-go").addEventListener("click", async () => {
    const button = byId("export-go");
    const result = byId("export-result");
    const format = byId("export-format").value;
    button.disabled = true;
    setText(result, "Writing …");
    try {
      const done = await send("export", { format, everything: byId("export-all").checked });
      const units = Object.entries(done.units).map(([unit, n]) => `${readable(unit, 20)} ${n}`);
      const how = format === "csv" ? "" : ` --format ${format}`;
      fill(
        result,
        `Wrote ${counted(done.segments, "segment")} (${units.join(", ")}), ${duration(done.seconds)} of audio. `,
        ...done.notes.map((note) => `${note}. `),
        "Now: ",
        element("code", {}, `neurovocal train ${done.folder}${how} --out BUNDLE`),
      );
    } catch (error) {
      if (!(error instanceof ReviewError)) throw error;
      setText(result, error.message);
    }
    button.disabled = false;
  });
}
