/* The live page: receives, keeps, and draws what is due. */

import { MAPS } from "../colours.js";
import { count, counted, duration, utcMs } from "../format.js";
import { byId, element, fill, openAtTop, readable, setText } from "../text.js";
import { chosenTheme, onTheme, setTheme } from "../theme.js";
import { Connection } from "./connection.js";
import { HealthPanel, sentences, worst } from "./panels/health.js";
import { HoleFiller, PictureHistory, Received } from "./history.js";
import { Announcer, listenToKeys } from "./keyboard.js";
import { Log } from "./log.js";
import { LogList } from "./loglist.js";
import { Model } from "./model.js";
import { Panels } from "./panels/counts.js";
import { Picture, Style } from "./picture/picture.js";
import { View } from "./picture/view.js";
import { Player } from "./panels/player.js";
import { choose, onChoice, settings } from "./settings.js";
import { ShadowPanel } from "./panels/shadow.js";
import { Steering } from "./panels/steering.js";
import { SummaryPanel } from "./panels/summary.js";
import { Tallies, total } from "./panels/tallies.js";

const MOST_SHOWN = 3; // streams, unless the user chooses
const ACTIVE_MS = 10000;
const MOST_DRAWN = 2000; // labels whose moment of drawing is kept
const PANELS_MS = 1000; // between two pictures of the counts
const DRAW_MS = 25; // columns come thirty times a second: so often are they drawn
const MOST_WAIT_MS = 80; // between two pictures of a slow machine
const CALM_MS = 500; // between two pictures where motion is to be reduced
const NARROW = window.matchMedia("(max-width: 52rem)");
const CALM = window.matchMedia("(prefers-reduced-motion: reduce)");

class Page {
  constructor() {
    this.model = new Model();
    this.received = new Received();
    this.filler = new HoleFiller(this.received, (station, headers) => this.takeMissed(station, headers));
    this.pictureHistory = new PictureHistory();
    this.log = new Log();
    this.tallies = new Tallies();
    this.view = new View(NARROW.matches ? 3 : 6);
    this.style = new Style();
    this.pictures = new Map();
    this.chosen = null; // keys of the streams that the user chose; null: by themselves
    this.control = false;
    this.lost = new Map(); // messages that a monitor lost, by station and topic
    this.connected = false;
    this.arrived = []; // labels that are not drawn yet
    this.drawn = [];
    this.selected = null; // {stream, segment}
    this.player = new Player();
    this.announcer = new Announcer();
    this.panels = new Panels(this.tallies, this.model.marks);
    this.health = new HealthPanel(this.model);
    this.list = new LogList(this.log, this.model, {
      select: (row) => this.selectRow(row),
      play: (row) => this.playRow(row),
    });
    this.connection = new Connection({
      onmessage: (message) => this.receive(message),
      oncolumns: (header, payload) => this.takeColumns(header, payload),
      onstate: (state) => this.setState(state),
    });
    this.steering = new Steering(this.connection, this.model);
    this.shadow = new ShadowPanel(this.connection, this.model, (station, header) => {
      const stream = this.model.stream(station.id, header.stream);
      this.play(stream, header.run, header.onset, header.offset, header.unit || "difference");
    });
    this.summary = new SummaryPanel(this.model);
    this.bind();
  }

  // --- messages ---------------------------------------------------------------

  receive(message) {
    switch (message.type) {
      case "hello":
        this.greet(message);
        break;
      case "event":
        this.takeEvent(message.station, message.header);
        break;
      case "station":
        this.setStation(message.station);
        break;
      case "dropped":
        this.model.columnsDropped = message.columns;
        this.showLosses();
        break;
      case "lost":
        this.lost.set(`${message.station}\u0000${message.topic}`, message);
        if (this.lost.size > 100) this.lost.delete(this.lost.keys().next().value);
        this.showLosses();
        break;
      default: // of a later version
    }
  }

  greet(message) {
    const again = this.connected;
    this.connected = true;
    this.control = message.control;
    for (const station of message.stations) this.model.setStation(station);
    this.steering.show(this.control);
    this.shadow.greet();
    this.showPages(message.pages ?? []);
    if (again) for (const station of message.stations) this.filler.catchUp(station.id);
    this.due = 0;
  }

  setStation(station) {
    const before = this.model.stations.get(station.id);
    this.model.setStation(station);
    this.steering.show(this.control);
    if (before && before.connected !== station.connected) {
      const words = station.connected ? "is connected again" : `is not connected: ${station.detail}`;
      this.announcer.tell(`${station.name} ${words}`);
      if (station.connected) this.filler.catchUp(station.id);
      if (!station.connected) this.received.mark();
    }
    this.due = 0;
  }

  takeEvent(stationId, header) {
    const { fresh, hole } = this.received.note(stationId, header);
    const stream = this.model.stream(stationId, header.stream);
    if (hole) this.filler.fill(hole);
    if (!fresh) return;
    stream.activeAt = Date.now();
    stream.addEvent(header, "live");
    this.shadow.follow(stream.station, header);
    this.keep(stream, header);
    if (header.kind === "label") {
      this.arrived.push({ stream, header, arrivedMs: Date.now() });
      if (this.arrived.length > MOST_DRAWN) this.arrived.shift();
      if (header.status === "final") this.announcer.label(header.unit);
    }
  }

  takeMissed(stationId, headers) {
    for (const header of headers) {
      const stream = this.model.stream(stationId, header.stream);
      stream.addEvent(header, "missed");
      this.keep(stream, header);
    }
  }

  keep(stream, header) {
    this.shadow.take(stream.station, header);
    this.log.add(stream.station, header);
    this.tallies.add(stream.key, header, utcMs(header.utc_ns) ?? Date.now());
  }

  takeColumns(header, payload) {
    const stream = this.model.stream(header.station, header.stream);
    stream.activeAt = Date.now();
    stream.addColumns(header, payload);
  }

  setState({ state, retryAt, attempt }) {
    this.state = { state, retryAt, attempt };
    if (state === "waiting" && attempt <= 1) {
      this.announcer.tell("The connection to the page's server was lost; it is tried again.");
      this.received.mark();
      for (const stream of this.model.streams.values()) stream.mark();
    }
    if (state === "open" && this.connected) this.announcer.tell("Connected again.");
    this.showState();
  }

  // --- choice of streams ------------------------------------------------------

  shown() {
    const streams = [...this.model.streams.values()];
    if (this.chosen) return streams.filter((stream) => this.chosen.has(stream.key));
    const now = Date.now();
    const score = (stream) => (now - stream.activeAt < ACTIVE_MS ? now + ACTIVE_MS : stream.activeAt);
    const best = [...streams].sort((a, b) => score(b) - score(a)).slice(0, MOST_SHOWN);
    return streams.filter((stream) => best.includes(stream));
  }

  toggle(stream) {
    const keys = new Set(this.shown().map(({ key }) => key));
    if (keys.has(stream.key)) keys.delete(stream.key);
    else keys.add(stream.key);
    this.chosen = keys;
    this.due = 0;
  }

  arrange() {
    const shown = this.shown();
    const host = byId("streams");
    byId("waiting").hidden = shown.length > 0;
    for (const [key, picture] of this.pictures) {
      if (shown.some((stream) => stream.key === key)) continue;
      picture.node.remove();
      this.pictures.delete(key);
    }
    let before = byId("waiting");
    for (const stream of shown) {
      let picture = this.pictures.get(stream.key);
      if (!picture) {
        picture = new Picture(stream, this.view, this.style, {
          streams: () => this.shown(),
          several: () => this.model.stations.size > 1,
          select: (of, segment, play) => this.select(of, segment, play),
        });
        this.pictures.set(stream.key, picture);
      }
      if (before.nextElementSibling !== picture.node) before.after(picture.node);
      before = picture.node;
    }
    this.showStations(shown);
    this.list.offer(this.tallies.ranking().map(([unit]) => unit).sort(), [...this.model.streams.values()]);
  }

  showStations(shown) {
    const now = Date.now();
    const parts = [...this.model.stations.values()].map((station) => {
      const streams = [...this.model.streams.values()].filter((stream) => stream.station.id === station.id);
      return [station, streams.map((stream) => [stream, shown.includes(stream), worst(sentences(stream, now))])];
    });
    const key = JSON.stringify(parts.map(([station, streams]) => [station, streams.map(([s, on, level]) => [s.key, on, level])]));
    if (key === this.stationsKey) return;
    this.stationsKey = key;
    const focused = document.activeElement?.dataset?.stream;
    const signs = { good: "✓", warn: "!", bad: "✕", muted: "·" };
    const words = { good: "works", warn: "has a warning", bad: "has a failure", muted: "is silent" };
    fill(
      byId("stations"),
      parts.map(([station, streams]) => [
        element("span.station", {}, readable(station.name, 40),
          station.connected === false ? element("span.bad", {}, ` ✕ ${readable(station.detail || "not connected", 120)}`) : null),
        streams.map(([stream, on, level]) =>
          element("button", {
            type: "button", "aria-pressed": String(on), "data-stream": stream.key,
            title: `${on ? "Hide" : "Show"} this stream, which ${words[level]}`,
            onclick: () => this.toggle(stream),
          },
          element("span.shape", { "aria-hidden": "true" }, signs[level]),
          readable(stream.name, 40),
          element("span.hidden-text", {}, ` ${words[level]}`))),
      ]),
    );
    if (focused !== undefined) {
      [...byId("stations").querySelectorAll("button")].find((node) => node.dataset.stream === focused)?.focus();
    }
  }

  showPages(pages) {
    const known = { review: "Review", discover: "Discover" };
    const links = pages.filter((page) => page in known);
    fill(
      byId("pages"),
      links.length ? element("span", { "aria-current": "page" }, "Live") : null,
      links.map((page) => element("a", { href: page }, known[page])),
    );
  }

  // --- choosing and playing ---------------------------------------------------

  select(stream, segment, play = false) {
    for (const picture of this.pictures.values()) picture.selected = null;
    this.selected = segment ? { stream, segment } : null;
    const picture = this.pictures.get(stream.key);
    if (picture) picture.selected = segment;
    if (!segment) {
      this.list.mark(null);
      return;
    }
    this.list.mark(`${stream.station.id}\u0000${stream.name}\u0000${segment.run}\u0000s${segment.segment}`);
    if (play) this.play(stream, segment.run, segment.onset, segment.offset, segment.unit);
  }

  selectRow(row) {
    const stream = this.model.streams.get(row.streamKey);
    const epoch = stream?.epochOf(row.run);
    if (!epoch) return;
    const time = epoch.timeOf(row.sample);
    for (const picture of this.pictures.values()) picture.selected = null;
    const number = row.key.split("\u0000s").at(-1);
    const segment = row.kind === "segment" ? stream.byNumber.get(`${row.run}\u0000${number}`) : null;
    if (segment && this.pictures.has(stream.key)) this.pictures.get(stream.key).selected = segment;
    this.selected = segment ? { stream, segment } : null;
    const right = this.view.rightOf(stream);
    if (time < right - this.view.span || time > right) this.view.show(time, stream, this.shown());
  }

  playRow(row) {
    const stream = this.model.streams.get(row.streamKey);
    if (!row.playable || !stream) {
      this.player.refuse("There is no sound of this row.");
      return;
    }
    this.play(stream, row.run, row.sample, row.stop, row.unit ?? row.words);
  }

  play(stream, run, start, stop, name) {
    if (!stream.station.sound) this.player.refuse(`${readable(stream.station.name, 40)} sends no sound to this page.`);
    else if (stop === null) this.player.refuse("The sound lasts: it can be played when it has ended.");
    else if (run !== stream.epoch?.run) this.player.refuse("The sound is of an earlier run; its clips, if kept, are on the station's disk.");
    else {
      const { axis } = stream;
      const { rate } = stream.epoch;
      const highest = axis?.known ? Math.min(axis.hz(axis.nBins), rate / 2) : 0;
      this.player.play({
        stationId: stream.station.id, stream: stream.name, rate,
        start, stop, name: name ?? "segment", highestHz: highest,
      });
    }
  }

  /** Choose the next or the previous segment of the stream that was last used. */
  step(way) {
    const stream = this.selected?.stream ?? this.shown()[0];
    if (!stream?.segments.length) return;
    const at = this.selected ? stream.segments.indexOf(this.selected.segment) : stream.segments.length;
    const segment = stream.segments[Math.min(Math.max(at + way, 0), stream.segments.length - 1)];
    this.view.pause(this.shown());
    this.select(stream, segment);
    const right = this.view.rightOf(stream);
    if (segment.from < right - this.view.span || segment.from > right) {
      this.view.show(segment.from, stream, this.shown());
    }
    this.announcer.tell(
      `${segment.unit ?? "segment"} ${segment.status}, ${segment.to === null ? "lasts" : duration(segment.to - segment.from)}`,
    );
  }

  // --- words ------------------------------------------------------------------

  showState() {
    const { state, retryAt, attempt } = this.state;
    const node = byId("connection");
    const waiting = state !== "open";
    node.classList.toggle("waiting", waiting);
    byId("connection-now").hidden = state !== "waiting";
    if (state === "open") setText(node, this.view.live ? "live" : "connected");
    else if (state === "connecting") setText(node, attempt > 1 || this.connected ? "connecting again …" : "connecting …");
    else if (state === "refused") fill(node, "signed out: ", element("a", { href: "login" }, "sign in"));
    else {
      const seconds = Math.max(Math.ceil((retryAt - Date.now()) / 1000), 1);
      setText(node, `not connected (the run has ended, or the network is cut); next try in ${seconds} s`);
    }
  }

  lostWords() {
    const words = [];
    if (this.model.columnsDropped) {
      words.push(`${counted(this.model.columnsDropped, "column")} of spectrogram left out, because this page could not keep up; no label was.`);
    }
    for (const { station, topic, count: n } of this.lost.values()) {
      words.push(`${counted(n, "message")} of ${readable(topic, 60)} lost on the way from ${readable(this.model.stations.get(station)?.name ?? station, 40)}.`);
    }
    return words;
  }

  showLosses() {
    const words = this.lostWords();
    // Read aloud once: the numbers grow.
    if (words.length && byId("losses").hidden) this.announcer.tell(words[0]);
    byId("losses").hidden = !words.length;
    setText(byId("losses"), words.slice(0, 3).join(" "));
  }

  showNumbers() {
    const { labels, unknown, misses } = this.tallies;
    setText(byId("heard"), `${count(labels)} heard · ${count(unknown + misses)} rejected`);
    setText(byId("span"), duration(this.view.span));
    setText(byId("pause"), this.view.live ? "Pause" : "Follow");
    byId("pause").setAttribute("aria-pressed", String(!this.view.live));
    byId("forward").disabled = this.view.live;
  }

  // --- controls ---------------------------------------------------------------

  bind() {
    const streams = () => this.shown();
    const act = {
      pause: () => (this.view.live ? this.view.pause(streams()) : this.view.follow(streams())),
      back: () => this.view.pan(-this.view.span / 4, streams()),
      forward: () => this.view.pan(this.view.span / 4, streams()),
      longer: () => this.view.zoom(1.5, 0.5, streams()),
      shorter: () => this.view.zoom(1 / 1.5, 0.5, streams()),
      band: (factor) => this.pictures.forEach((picture) => picture.zoomFrequency(factor)),
      whole: () => {
        this.pictures.forEach((picture) => picture.wholeBand());
        this.view.span = NARROW.matches ? 3 : 6;
        this.view.changed();
      },
    };
    const click = (id, call) => byId(id).addEventListener("click", call);
    click("pause", act.pause);
    click("back", act.back);
    click("forward", act.forward);
    click("time-out", act.longer);
    click("time-in", act.shorter);
    click("band-out", () => act.band(1.5));
    click("band-in", () => act.band(1 / 1.5));
    click("band-all", () => this.pictures.forEach((picture) => picture.wholeBand()));
    click("connection-now", () => this.connection.open());
    click("help-open", () => openAtTop(byId("help")));
    click("announce", () => choose("announce", !settings.announce));
    this.bindSettings();
    this.view.listeners.add(() => {
      if (this.view.live) this.pictureHistory.reset();
      this.showNumbers();
      if (this.state) this.showState();
    });
    document.addEventListener("visibilitychange", () => this.connection.columns(!document.hidden));
    document.addEventListener("click", (event) => {
      const display = document.querySelector("details.display[open]");
      if (display && !display.contains(event.target)) display.open = false;
    });
    this.bindKeys(act);
    fill(
      byId("legend"),
      ["a final", "a? provisional", "a~ revised", "? unknown", "× near miss", "▨ gap"].map((words) => element("span", {}, words)),
    );
  }

  bindSettings() {
    const map = byId("map");
    map.append(element("option", { value: "" }, "of the theme"));
    for (const name of Object.keys(MAPS)) map.append(element("option", { value: name }, name));
    const bind = (id, name, convert, event = "input") => {
      const node = byId(id);
      node.addEventListener(event, () => choose(name, convert(node)));
      const show = () => {
        if (node.type === "checkbox") node.checked = settings[name];
        else node.value = String(settings[name]);
      };
      show();
      onChoice(show);
    };
    bind("map", "map", (node) => node.value);
    bind("gain", "gain", (node) => Number(node.value));
    bind("contrast", "contrast", (node) => Number(node.value));
    bind("axis", "axis", (node) => node.value);
    bind("size", "size", (node) => Number(node.value));
    for (const name of ["synthesis", "surprise", "trace", "level", "misses", "forecasts"]) {
      bind(`show-${name}`, name, (node) => node.checked, "change");
    }
    byId("theme").value = chosenTheme();
    byId("theme").addEventListener("change", (event) => setTheme(event.target.value));
    const redraw = () => {
      this.style.read();
      this.panels.show(true);
    };
    onTheme(redraw);
    onChoice(() => {
      redraw();
      this.showChoices();
    });
    this.showChoices();
  }

  showChoices() {
    setText(byId("gain-words"), `${settings.gain > 0 ? "+" : ""}${String(settings.gain).replace("-", "−")} dB`);
    byId("announce").setAttribute("aria-pressed", String(settings.announce));
  }

  bindKeys(act) {
    const inPicture = () => document.activeElement?.closest(".frame");
    const cycle = (name, values) =>
      choose(name, values[(values.indexOf(settings[name]) + 1) % values.length]);
    const themes = ["auto", "light", "dark"];
    listenToKeys([
      [[" "], "pause, or follow the newest sound", act.pause],
      [["ArrowLeft"], "earlier, through what was heard and what the journal has", act.back],
      [["ArrowRight"], "later", act.forward],
      [["End"], "follow the newest sound", () => this.view.follow(this.shown())],
      [["+", "="], "show a shorter time", act.shorter],
      [["-", "_"], "show a longer time", act.longer],
      [["f"], "show fewer frequencies", () => act.band(1 / 1.5)],
      [["F"], "show more frequencies", () => act.band(1.5)],
      [["u"], "move to higher frequencies", () => this.pictures.forEach((p) => p.panFrequency(30))],
      [["d"], "move to lower frequencies", () => this.pictures.forEach((p) => p.panFrequency(-30))],
      [["0"], "the usual time and all frequencies", act.whole],
      [["p"], "choose the previous segment", () => this.step(-1)],
      [["n"], "choose the next segment", () => this.step(1)],
      [["Enter"], "play the chosen segment", () => {
        if (this.selected) this.select(this.selected.stream, this.selected.segment, true);
        else if (inPicture()) this.player.refuse("Choose a segment first: p and n.");
      }],
      [["Escape"], "choose none", () => this.selected && this.select(this.selected.stream, null)],
      [["g"], "brighter", () => choose("gain", Math.min(settings.gain + 3, 40))],
      [["G"], "darker", () => choose("gain", Math.max(settings.gain - 3, -40))],
      [["m"], "next colours", () => cycle("map", ["", ...Object.keys(MAPS)])],
      [["a"], "time axis: UTC, time in the stream, sample", () => cycle("axis", ["utc", "stream", "sample"])],
      [["s"], "synthesized frames on or off", () => choose("synthesis", !settings.synthesis)],
      [["o"], "forecasts on or off", () => choose("forecasts", !settings.forecasts)],
      [["l"], "to the log (↑ ↓ choose, Enter plays, Home newest)", () => byId("log").focus()],
      [["/"], "to the log's text filter", () => byId("filter-text").focus()],
      [["r"], "read labels to a screen reader, on or off", () => {
        choose("announce", !settings.announce);
        this.announcer.tell(settings.announce ? "Labels are read." : "Labels are not read.");
      }],
      [["t"], "theme: system, light, dark", () => {
        setTheme(themes[(themes.indexOf(chosenTheme()) + 1) % 3]);
        byId("theme").value = chosenTheme();
      }],
      [["1", "2", "3", "4", "5", "6", "7", "8", "9"], "show or hide a stream", (event) => {
        const stream = [...this.model.streams.values()][Number(event.key) - 1];
        if (stream) this.toggle(stream);
      }],
      [["?"], "this list", () => openAtTop(byId("help"))],
    ]);
  }

  // --- drawing ----------------------------------------------------------------

  /** Draw what is due; called before each picture of the screen. */
  frame(now) {
    if (now >= (this.due ?? 0)) {
      this.due = now + 250;
      this.arrange();
      this.list.show();
      this.showNumbers();
      if (now >= (this.panelsDue ?? 0)) {
        this.panelsDue = now + PANELS_MS;
        this.panels.show();
      }
      this.shadow.show(this.control);
      this.summary.show();
      this.announcer.tick(Date.now());
      if (this.state?.state === "waiting") this.showState();
      this.health.show(Date.now(), this.lostWords());
    }
    if (now < (this.pictureDue ?? 0)) return;
    const begun = performance.now();
    for (const picture of this.pictures.values()) {
      if (picture.draw()) this.noteDrawn(picture.stream);
      if (!this.view.live) this.pictureHistory.want(picture.stream, this.view.rightOf(picture.stream) - this.view.span);
    }
    // Most of the time is left to the messages, and labels do not wait for long.
    const took = performance.now() - begun;
    this.pictureDue = now + Math.max(CALM.matches ? CALM_MS : DRAW_MS, Math.min(3 * took, MOST_WAIT_MS));
  }

  noteDrawn(stream) {
    if (!this.arrived.length) return;
    const drawnMs = Date.now();
    const rest = [];
    for (const item of this.arrived) {
      if (item.stream !== stream) {
        if (this.pictures.has(item.stream.key)) rest.push(item);
        continue;
      }
      const { header, arrivedMs } = item;
      this.drawn.push({
        run: header.run, stream: header.stream, segment: header.segment, status: header.status,
        unit: header.unit, ledgerMs: total(header.latency), arrivedMs, drawnMs,
        utcMs: utcMs(header.utc_ns), onset: header.onset, offset: header.offset, rate: header.sample_rate,
      });
    }
    this.arrived = rest;
    if (this.drawn.length > MOST_DRAWN) this.drawn.splice(0, this.drawn.length - MOST_DRAWN);
  }

  start() {
    const loop = (now) => {
      this.frame(now);
      requestAnimationFrame(loop);
    };
    requestAnimationFrame(loop);
    this.connection.open();
  }
}

const page = new Page();
page.start();

// For tests and for the curious: what the page knows and where it has drawn it.
window.neurovocal = {
  page,
  report: () => [...page.pictures.values()].map((picture) => ({
    stream: picture.stream.name, station: picture.stream.station.name, live: page.view.live,
    newest: picture.stream.newest, geometry: picture.report(),
  })),
  drawn: () => page.drawn,
  rows: () => page.log.rows().length,
};
