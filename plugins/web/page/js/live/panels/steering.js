/* Commands to the engines: synthesis, temperature, swap, stop. Only with `control`. */

import { byId, element, fill, readable, setText } from "../../text.js";

const MODES = ["off", "predict", "continue", "free"];

/** Return what can be set of a model, as on the command line. */
function optionsOf({ options }) {
  if (!options) return "takes no commands";
  const set = Object.entries(options).filter(([, value]) => value !== null);
  return set.map(([name, value]) => `${name}=${value}`).join(" ");
}

/** The panel of commands of all stations that accept them. */
export class Steering {
  /**
   * @param {object} connection
   * @param {object} model
   */
  constructor(connection, model) {
    this.connection = connection;
    this.model = model;
    this.forms = new Map();
    this.confirm = byId("confirm");
    byId("confirm-no").addEventListener("click", () => this.confirm.close("no"));
    byId("confirm-yes").addEventListener("click", () => this.confirm.close("yes"));
  }

  /** Show a form for each station that accepts commands. */
  show(allowed) {
    const open = [...this.model.stations.values()].filter((station) => allowed && station.control);
    byId("steering-panel").hidden = !open.length;
    const ids = open.map((station) => station.id).join("\u0000");
    if (ids === this.shown) return;
    this.shown = ids;
    fill(byId("steering"), open.map((station) => this.form(station)));
  }

  form(station) {
    const said = element("p.said", { role: "status" });
    const mode = element("select", {}, MODES.map((name) => element("option", { value: name }, name)));
    const temperature = element("input", { type: "number", min: "0.05", max: "10", step: "0.05", value: "1" });
    const config = element("input", { type: "text", placeholder: "the run's own, read again", size: "24" });
    const shadow = element("input", { type: "number", min: "0", max: "3600", step: "1", value: "5" });
    const agreement = element("input", { type: "number", min: "0", max: "1", step: "0.05", value: "0" });
    this.showPresent(station, mode, temperature);
    const send = async (command, fields, words) => {
      setText(said, `${words} …`);
      const reply = await this.connection.command(station.id, command, fields);
      setText(said, reply.ok ? `${words}: done.` : `${words}: ${readable(reply.error ?? "refused", 300)}`);
      said.classList.toggle("bad", !reply.ok);
      return reply;
    };
    const set = (values, words) => send("set", { arguments: values }, words);
    const name = readable(station.name, 60);
    const node = element("section.steer", { "aria-label": `Commands to ${name}` },
      this.model.stations.size > 1 ? element("h3", {}, name) : null,
      element("div.row", {},
        element("label", {}, "Synthesis ", mode),
        element("button", { type: "button", onclick: () => set({ synthesis: mode.value }, `Synthesis ${mode.value}`) }, "Set mode"),
        element("label", {}, "Temperature ", temperature),
        element("button", {
          type: "button",
          onclick: () => set({ temperature: Number(temperature.value) }, `Temperature ${temperature.value}`),
        }, "Set temperature")),
      element("details", {},
        element("summary", {}, "Swap the configuration, or stop the run"),
        element("div.row", {},
          element("label", {}, "Configuration ", config),
          element("label", {}, "Shadow, s ", shadow),
          element("label", {}, "Least agreement ", agreement),
          element("button", {
            type: "button",
            onclick: () => {
              const values = { shadow_s: Number(shadow.value), min_agreement: Number(agreement.value) };
              if (config.value.trim()) values.config = config.value.trim();
              send("swap", { arguments: values }, "Swap");
            },
          }, "Swap"),
          element("button", { type: "button", onclick: () => send("swap", { arguments: { cancel: true } }, "Cancel the swap") }, "Cancel swap"),
          element("button", {
            type: "button",
            title: "Runs the configuration beside the present one and compares both, until it is promoted or dropped",
            onclick: () => {
              const values = { shadow: true };
              if (config.value.trim()) values.config = config.value.trim();
              send("swap", { arguments: values }, "Shadow");
            },
          }, "Run as shadow"),
          element("button", { type: "button", onclick: () => this.status(station, send, said) }, "Status"),
          element("button.danger", { type: "button", onclick: () => this.stop(name, send) }, "Stop the run"))),
      said);
    return node;
  }

  /** Show the present mode and temperature, unless a person was quicker. */
  async showPresent(station, mode, temperature) {
    let touched = false;
    const touch = () => {
      touched = true;
    };
    mode.addEventListener("input", touch);
    temperature.addEventListener("input", touch);
    const reply = await this.connection.command(station.id, "status", {});
    if (!reply.ok || touched) return;
    const models = (reply.lanes ?? []).flatMap((lane) => lane.models ?? []);
    const present = models.find((model) => model.options?.synthesis)?.options;
    if (!present) return;
    if (MODES.includes(present.synthesis)) mode.value = present.synthesis;
    if (present.temperature) temperature.value = String(present.temperature);
  }

  async status(station, send, said) {
    const reply = await send("status", {}, "Status");
    if (!reply.ok) return;
    const swap = reply.swap ? `, swap: ${reply.swap.state}` : "";
    const lanes = (reply.lanes ?? []).map((lane) =>
      `${readable(lane.lane, 40)}: ${lane.ended ? "ended" : "runs"}${(lane.models ?? [])
        .map((model) => `, ${readable(model.model, 30)} ${optionsOf(model)}`)
        .join("")}`);
    setText(said, readable(`Run ${reply.run ?? "?"}${swap}. ${lanes.join("; ")}`, 1200));
  }

  stop(name, send) {
    setText(byId("confirm-words"), `Stop the run of ${name}? It ends in order; it is not started again from here.`);
    setText(byId("confirm-yes"), "Stop the run");
    this.confirm.returnValue = "no";
    this.confirm.showModal();
    this.confirm.addEventListener(
      "close",
      () => this.confirm.returnValue === "yes" && send("stop", {}, "Stop"),
      { once: true },
    );
  }
}
