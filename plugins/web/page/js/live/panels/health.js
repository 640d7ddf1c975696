/* Says in plain words how sources, lanes and queues do. */

import { count, counted, duration, round } from "../../format.js";
import { byId, element, fill, readable } from "../../text.js";

const STATES = {
  healthy: "works",
  degraded: "works, but its signal is doubtful",
  lagging: "is behind",
  lossy: "loses data",
  stalled: "stands still",
  restarting: "is restarted",
  recovering: "is away and is tried again",
  failed: "has failed",
};
const BAD = new Set(["failed", "stalled", "lossy"]);
const SILENT_MS = 5000;

/**
 * Describe a stream's health.
 *
 * @returns {{level: "good"|"warn"|"bad"|"muted", words: string}[]} Most important first.
 */
export function sentences(stream, now) {
  const found = [];
  const add = (level, words) => found.push({ level, words });
  const { stats, station } = stream;
  const quiet = now - stream.activeAt;
  if (station.connected === false) add("bad", `No connection to the engine: ${station.detail || "it does not answer"}.`);
  else if (quiet > SILENT_MS) {
    add("muted", `Nothing has come for ${duration(quiet / 1000)}: the stream has ended, or its engine was stopped.`);
  }
  if (station.connected !== false && station.detail) {
    add("warn", `What was missed cannot be fetched: ${readable(station.detail, 300)}.`);
  }
  for (const header of stream.health.values()) {
    if (header.state === "healthy") continue;
    const detail = header.detail ? `: ${readable(header.detail, 300)}` : "";
    add(BAD.has(header.state) ? "bad" : "warn", `${capital(readable(header.stage, 80))} ${STATES[header.state] ?? header.state}${detail}.`);
  }
  if (stats) describeStats(stats, stream, add);
  if (!found.some(({ level }) => level === "warn" || level === "bad") && stats && quiet <= SILENT_MS) {
    found.unshift({ level: "good", words: "All stages work." });
  }
  return found;
}

function describeStats(stats, stream, add) {
  const rate = stream.epoch?.rate ?? 1;
  const source = stats.source ?? {};
  const gaps = stats.events?.gap ?? 0;
  const heard = Number.isFinite(source.heard) ? `${duration(source.heard / rate)} heard` : "";
  if (heard) add(source.lost ? "warn" : "muted", source.lost
    ? `${heard}, ${duration(source.lost / rate)} lost, ${counted(gaps, "gap")} in the stream.`
    : `${heard}, nothing lost${gaps ? `; ${counted(gaps, "join")} of recordings` : ""}.`);
  if (source.outages) add("warn", `${counted(source.outages, "outage")} of the source.`);
  if (source.unheard) add("bad", `${duration(source.unheard / rate)} of audio were not processed.`);
  for (const [name, queue] of Object.entries(stats.sinks ?? {})) {
    const dropped = (queue.events?.dropped ?? 0) + (queue.bulk?.dropped ?? 0);
    if (dropped) add("warn", `${readable(name, 60)}: ${counted(dropped, "message")} dropped by its full queue.`);
    if (queue.replaced) add("warn", `${readable(name, 60)} hung and was replaced ${counted(queue.replaced, "time")}.`);
  }
  for (const [name, stage] of Object.entries(stats.stages ?? {})) {
    if (stage.errors) add("warn", `${readable(name, 60)}: ${counted(stage.errors, "error")}.`);
  }
  const loads = Object.entries(stats.stages ?? {}).map(([name, stage]) => [name, stage.load ?? 0]);
  if (loads.length) {
    const sum = loads.reduce((total, [, load]) => total + load, 0);
    const [slowest, load] = loads.reduce((a, b) => (b[1] > a[1] ? b : a));
    add(sum > 0.8 ? "warn" : "muted", `The lane uses ${percent(sum)} of real time, most of it ${readable(slowest, 60)} (${percent(load)}); it is ${Math.round(stats.lag_ms ?? 0)} ms behind.`);
  }
  if (stats.drift_ppm) add("muted", `The source's clock drifts by ${round(stats.drift_ppm, 1)} ppm.`);
  if (stats.privacy) add("muted", "A privacy gate keeps human voices from all sinks.");
  if (stats.omitted_near_misses) add("muted", `${counted(stats.omitted_near_misses, "near miss", "near misses")} too many to tell.`);
  if (stats.process) {
    add("muted", `Engine: ${count(stats.process.rss_mb ?? 0)} MB, ${counted(stats.process.threads ?? 0, "thread")}, ${duration(stats.process.cpu_s ?? 0)} of processor time.`);
  }
}

const percent = (share) => `${round(100 * share, share < 0.1 ? 1 : 0)} %`;
const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const SHAPES = { good: "✓", warn: "!", bad: "✕", muted: "·" };

/** Worst of a stream's sentences: "good", "warn", "bad" or "muted". */
export function worst(list) {
  return ["bad", "warn", "good"].find((level) => list.some((item) => item.level === level)) ?? "muted";
}

/** The panel with the sentences of all streams. */
export class HealthPanel {
  constructor(model) {
    this.model = model;
    this.shown = "";
  }

  show(now, lost) {
    const streams = [...this.model.streams.values()];
    const parts = streams.map((stream) => [stream, sentences(stream, now)]);
    const key = JSON.stringify(parts.map(([stream, list]) => [stream.key, list])) + lost.join();
    if (key === this.shown) return;
    this.shown = key;
    fill(
      byId("health"),
      lost.map((words) => item("warn", words, "p")),
      parts.map(([stream, list]) =>
        element("section", {},
          element("h3", {}, readable(stream.name),
            this.model.stations.size > 1 && stream.station.name !== stream.name ? element("span.muted", {}, ` at ${readable(stream.station.name, 40)}`) : null),
          element("ul.plain", {}, list.map(({ level, words }) => item(level, words, "li"))))),
      streams.length ? null : element("p.muted", {}, "No stream yet."),
    );
  }
}

function item(level, words, tag) {
  return element(`${tag}.${level}`, {}, element("span.shape", { "aria-hidden": "true" }, SHAPES[level]), ` ${words}`);
}
