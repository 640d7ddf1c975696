/* Review page: what is chosen, what is changed, and what is shown of it. */

import { MAPS } from "../colours.js";
import { counted } from "../format.js";
import { byId, element, fill, openAtTop, readable, setText } from "../text.js";
import { chosenTheme, onTheme, setTheme } from "../theme.js";
import { read, send } from "./api.js";
import { wireExport } from "./export.js";
import { listenToKeys, showKeys } from "./keys.js";
import { openLabel, wireLabelDialog } from "./label_dialog.js";
import { SegmentList, fits, query, showCount } from "./list.js";
import { Picture } from "./picture.js";
import { keyOf, showFacts, showHistory, showProgress, showUnits, told } from "./panels.js";
import { play, stopSound } from "./sound.js";
import { spectrogramOf } from "./spectrograms.js";
import {
  attempt,
  inTurn,
  marks,
  recordings,
  remember,
  remembered,
  tell,
  view,
} from "./state.js";

const PAGE = 200;
const POLL_MS = 3000;
const SHORTEST_S = 0.6;
const LONGEST_S = 30;
const AROUND = 5; // lengths of a segment that are visible

const list = new SegmentList(
  byId("list"),
  marks,
  (id) => recordings.get(id),
  (index) => choose(index),
);
const picture = new Picture(byId("picture"), marks, {
  choose: (segment) => chooseSegment(segment),
  move: (onset, offset) => move(onset, offset),
  drag: (onset, offset) => {
    view.draft = { onset, offset };
    showScene();
  },
  add: (onset, offset) => add(onset, offset),
  cancel: () => {
    view.draft = null;
    showScene();
  },
});

// ---- the list ----

async function load(keep = true) {
  const found = await attempt(() => read("segments", { ...query(), first: 0, most: PAGE }));
  if (!found) return;
  const { id } = (keep && view.current) || {};
  view.segments = found.segments;
  view.total = found.total;
  showList();
  const at = view.segments.findIndex((segment) => segment.id === id);
  if (view.segments.length) choose(at >= 0 ? at : 0, false);
  else chooseNothing();
}

async function loadMore() {
  const first = view.segments.length;
  const found = await attempt(() => read("segments", { ...query(), first, most: PAGE }));
  if (!found) return;
  const known = new Set(view.segments.map((segment) => segment.id));
  view.segments.push(...found.segments.filter((segment) => !known.has(segment.id)));
  view.total = Math.max(found.total, view.segments.length);
  showList();
}

function showList() {
  list.show(view.segments, view.index);
  showCount(byId("list-count"), view.segments.length, view.total);
  byId("more").hidden = view.segments.length >= view.total;
}

// ---- choosing ----

/** Choose a segment of the list; its picture comes when it comes. */
function choose(index, announce = true) {
  if (index < 0 || index >= view.segments.length) return;
  view.index = index;
  list.choose(index);
  showSegment(view.segments[index]);
  if (announce) tell("");
}

function chooseSegment(segment) {
  const at = view.segments.findIndex((each) => each.id === segment.id);
  if (at >= 0) {
    choose(at);
    return;
  }
  view.index = -1;
  list.choose(-1);
  showSegment(segment, false);
}

function chooseNothing() {
  view.index = -1;
  view.current = null;
  const id = byId("recording").value || recordings.keys().next().value;
  const recording = recordings.get(id);
  setText(byId("what"), recording ? readable(recording.name) : "Nothing is here to review");
  setText(byId("facts"), "");
  if (!recording) return;
  view.recording = recording;
  const span = 3 * recording.sample_rate;
  showPart(0, Math.min(span, recording.n_samples ?? span));
}

function showSegment(segment, moves = true) {
  const recording = recordings.get(segment.recording);
  const changed = recording !== view.recording;
  Object.assign(view, { current: segment, recording, edge: null, draft: null, splitAt: null });
  stopSound();
  showFacts();
  if (!recording) return;
  if (moves || changed) {
    const [first, last] = around(segment, recording);
    showPart(first, last);
  } else {
    showScene();
  }
}

function around(segment, recording) {
  const rate = recording.sample_rate;
  const length = (segment.offset - segment.onset) / rate;
  const span_s = Math.min(Math.max(AROUND * length, SHORTEST_S) * view.zoom, LONGEST_S);
  const middle = (segment.onset + segment.offset) / 2;
  return [Math.round(middle - (span_s * rate) / 2), Math.round(middle + (span_s * rate) / 2)];
}

/** Show a part of the recording; it is moved into the recording. */
async function showPart(first, last) {
  const { recording } = view;
  const span = Math.max(last - first, 16);
  const end = recording.n_samples ?? Infinity;
  const start = Math.max(0, Math.min(first, end - span));
  view.first = Math.round(start);
  view.last = Math.round(start + span);
  showScene();
  const { first: from, last: to } = view;
  const part = { recording: recording.id, start: from, stop: to };
  const found = await attempt(() => read("window", part));
  if (view.recording !== recording || view.first !== from || view.last !== to) return;
  view.nearby = found?.segments ?? [];
  showScene();
  await showSpectrogram(recording, from, to);
}

async function showSpectrogram(recording, first, last) {
  const problem = byId("picture-problem");
  problem.hidden = !recording.problem;
  setText(problem, recording.problem);
  if (recording.problem) {
    picture.showColumns(null);
    return;
  }
  const columns = await attempt(() => spectrogramOf(recording, first, last, picture.width));
  const isShown = view.recording === recording && view.first === first && view.last === last;
  if (columns && isShown) picture.showColumns(columns);
  prefetch();
}

/** Read the spectrogram of the next segment, which is likely to come. */
function prefetch() {
  const next = view.segments[view.index + 1];
  const recording = next && recordings.get(next.recording);
  if (!recording || recording.problem) return;
  let [first, last] = around(next, recording);
  const span = Math.max(last - first, 16);
  first = Math.round(Math.max(0, Math.min(first, (recording.n_samples ?? Infinity) - span)));
  spectrogramOf(recording, first, Math.round(first + span), picture.width).catch(() => {});
}

function showScene() {
  picture.show({
    recording: view.recording,
    first: view.first,
    last: view.last,
    segments: view.nearby,
    current: view.current,
    draft: view.draft,
    edge: view.edge,
    splitAt: view.splitAt,
  });
  byId("edge-onset").setAttribute("aria-pressed", view.edge === "onset");
  byId("edge-offset").setAttribute("aria-pressed", view.edge === "offset");
  byId("split").setAttribute("aria-pressed", view.splitAt !== null);
}

// ---- changing ----

/**
 * Send a change and show what it has changed; call it within `inTurn`.
 *
 * @param {object} edit As the server takes it, without author and segment.
 * @param {object|null} segment
 * @returns {Promise<object|null>} The answer; null: it was refused, and that is told.
 */
async function change(edit, segment) {
  const asked = { ...edit, author: byId("author").value.trim() };
  const now = segment ? latest(segment) : null;
  if (now) Object.assign(asked, { segment: now.id, seen: now.event });
  const isMove = edit.action === "move";
  const answered = () => { moving -= isMove ? 1 : 0; };
  const answer = await attempt(() => send("edit", asked)).finally(answered);
  if (!isMove) Object.assign(view, { draft: null, splitAt: null });
  if (!answer) {
    showFacts();
    showScene();
    return null;
  }
  apply(answer.segments);
  showProgress(answer);
  showUnits(answer.units, label);
  tell(answer.told || told(asked, answer), answer.told ? "warn" : "good");
  renewNearby();
  showChanges();
  return answer;
}

/** Change the segment that is chosen when it is its turn. */
function changeChosen(edit, { goOn = false } = {}) {
  return inTurn(async () => {
    if (!view.current) {
      tell("Choose a segment first.");
      return null;
    }
    const answer = await change(edit, view.current);
    if (answer && goOn && byId("advance").checked) await next(false);
    return answer;
  });
}

/** Return a segment as the page knows it now. */
function latest(segment) {
  if (view.current?.id === segment.id) return view.current;
  return view.segments.find((each) => each.id === segment.id) ?? segment;
}

/** Take changed segments into list, picture and facts. */
function apply(segments) {
  for (const segment of segments) {
    // An answer that was on its way for longer knows less.
    if (latest(segment).event > segment.event) continue;
    if (view.current?.id === segment.id) {
      // Moves that the server has not seen yet stay visible, and are gone on from.
      const { onset, offset } = view.current;
      view.current = moving ? { ...segment, onset, offset } : segment;
    }
    const at = view.segments.findIndex((each) => each.id === segment.id);
    if (at >= 0) {
      view.segments[at] = segment;
      list.update(at);
    } else if (segment.alive && segment.event && fits(segment)) {
      insert(segment);
    }
    const near = view.nearby.findIndex((each) => each.id === segment.id);
    if (near >= 0) view.nearby[near] = segment;
  }
  view.nearby = view.nearby.filter((segment) => segment.alive);
  showFacts();
  showScene();
}

/** Put a new segment behind the one that it came from. */
function insert(segment) {
  let at = view.segments.findIndex(
    (each) => each.recording === segment.recording && each.onset > segment.onset,
  );
  if (byId("order").value !== "time" || at < 0) at = view.index + 1;
  view.segments.splice(at, 0, segment);
  view.total += 1;
  if (view.index >= at) view.index += 1;
  showList();
}

async function renewNearby() {
  const { recording, first, last } = view;
  if (!recording) return;
  const found = await attempt(() =>
    read("window", { recording: recording.id, start: first, stop: last }),
  );
  if (!found || view.recording !== recording || view.first !== first) return;
  view.nearby = found.segments;
  showScene();
}

function label(unit) {
  view.lastUnit = unit;
  return changeChosen({ action: "label", unit }, { goOn: true });
}

function add(onset, offset) {
  const { recording } = view;
  if (!recording) return;
  inTurn(async () => {
    const edit = { action: "add", recording: recording.id, onset, offset, unit: "" };
    const answer = await change(edit, null);
    if (!answer) return;
    chooseSegment(answer.segments[0]);
    tell("Added: label it with a letter or F2.", "good");
  });
}

function reverse(action) {
  inTurn(async () => {
    const answer = await change({ action }, null);
    if (!answer) return;
    chooseSegment(answer.segments.find((each) => each.alive) ?? answer.segments[0]);
    tell(action === "undo" ? "Undone." : "Done again.", "good");
  });
}

// ---- moving edges and splitting by keys ----

function startEdge(edge) {
  if (!view.current?.alive) return;
  commitDraft();
  view.splitAt = null;
  view.edge = view.edge === edge ? null : edge;
  showScene();
  tell(view.edge ? `← → moves the ${edge} by a hop, Shift by ten, Escape ends.` : "");
}

function moveEdge(hops) {
  const { current, recording } = view;
  const hop = recording.hop_length;
  const draft = view.draft ?? { onset: current.onset, offset: current.offset };
  const moved = { ...draft, [view.edge]: Math.max(0, draft[view.edge] + hops * hop) };
  if (moved.onset >= moved.offset) {
    tell("A segment must end after its onset.", "bad");
    return;
  }
  view.draft = moved;
  showFacts();
  showScene();
}

function commitDraft() {
  if (!view.draft || picture.held) return;
  const { onset, offset } = view.draft;
  move(onset, offset);
}

let moving = 0; // moves that the server has not answered

/** Move the edges of the chosen segment; until the server answers they seem moved. */
function move(onset, offset) {
  const segment = view.current;
  view.current = { ...segment, onset, offset };
  view.draft = null;
  showScene();
  moving += 1;
  inTurn(async () => {
    const answer = await change({ action: "move", onset, offset }, segment);
    if (answer || view.current?.id !== segment.id) return;
    view.current = segment;
    showFacts();
    showScene();
  });
}

function startSplit() {
  if (!view.current?.alive) return;
  view.edge = null;
  if (view.splitAt !== null) {
    commitSplit();
    return;
  }
  view.splitAt = Math.round((view.current.onset + view.current.offset) / 2);
  showScene();
  tell("← → moves the line, Enter splits, Escape ends.");
}

function commitSplit() {
  const { current: segment, splitAt: at } = view;
  view.splitAt = null;
  inTurn(() => change({ action: "split", at }, segment));
}

// ---- moving on ----

async function next(announce = true) {
  const wants = byId("unreviewed").checked;
  let at = view.index + 1;
  while (wants && view.segments[at] && view.segments[at].reviewed) at += 1;
  if (at >= view.segments.length && view.segments.length < view.total) await loadMore();
  if (at < view.segments.length) {
    choose(at, announce);
  } else if (announce) {
    tell(wants ? "No further segment is left to review." : "This is the last segment.");
  }
}

function step(hops) {
  if (view.edge && view.current) moveEdge(hops);
  else if (view.splitAt !== null) {
    const { onset, offset } = view.current;
    const hop = view.recording.hop_length;
    view.splitAt = Math.min(Math.max(view.splitAt + hops * hop, onset + 1), offset - 1);
    showScene();
  } else if (view.recording) {
    const span = view.last - view.first;
    const by = Math.sign(hops) * span * (Math.abs(hops) > 1 ? 1 : 0.25);
    showPart(view.first + by, view.last + by);
  }
}

function zoom(factor) {
  if (!view.recording) return;
  view.zoom = Math.min(Math.max(view.zoom * factor, 0.1), 30);
  const middle = (view.first + view.last) / 2;
  const rate = view.recording.sample_rate;
  const span = Math.min(Math.max((view.last - view.first) * factor, 0.05 * rate), LONGEST_S * rate);
  showPart(middle - span / 2, middle + span / 2);
}

// ---- changes of others ----

let looking = Promise.resolve();

/** Show changes that the page does not know; returns them. One look at a time. */
function showChanges() {
  looking = looking.then(lookForChanges, lookForChanges);
  return looking;
}

async function lookForChanges() {
  const found = await attempt(() => read("events", { after: view.event }));
  if (!found?.events.length) return [];
  view.event = found.events.at(-1).event;
  apply(found.segments);
  showProgress(found);
  showUnits(found.units, label);
  showHistory(found.events);
  return found.events;
}

async function poll() {
  if (document.visibilityState === "visible" && !picture.held) {
    const own = byId("author").value.trim();
    const events = await showChanges();
    const others = events.filter((event) => event.author !== own);
    if (others.length) {
      const { author } = others.at(-1);
      tell(`${readable(author, 30)} has made ${counted(others.length, "change")}.`, "warn");
    }
  }
  setTimeout(poll, POLL_MS);
}

// ---- dialogs ----

wireLabelDialog(label);
wireExport();
byId("help-open").addEventListener("click", () => openAtTop(byId("help-dialog")));
byId("help-close").addEventListener("click", () => byId("help-dialog").close());

// ---- wiring ----

const act = {
  next: () => inTurn(() => next()),
  previous: () => inTurn(() => choose(view.index - 1)),
  confirm: () => {
    if (view.splitAt !== null) commitSplit();
    else changeChosen({ action: "confirm" }, { goOn: true });
  },
  letter: (text) => {
    if (!/[\p{L}\p{N}]/u.test(text)) return;
    if (view.units.includes(text) && keyOf(text)) label(text);
    else openLabel(text);
  },
  nameUnit: () => openLabel(view.current?.unit ?? ""),
  again: () => (view.lastUnit ? label(view.lastUnit) : tell("Nothing was labelled yet.")),
  play: (slowly) => play(picture, slowly),
  edge: startEdge,
  step,
  released: commitDraft,
  split: startSplit,
  merge: () => changeChosen({ action: "merge" }),
  remove: () => changeChosen({ action: "delete" }, { goOn: true }),
  add: () => {
    if (!view.recording) return;
    const { hop_length: hop, sample_rate: rate } = view.recording;
    const half = Math.max(hop, Math.round((0.025 * rate) / hop) * hop);
    const middle = Math.round((view.first + view.last) / 2 / hop) * hop;
    add(Math.max(0, middle - half), middle + half);
  },
  escape: () => {
    Object.assign(view, { edge: null, draft: null, splitAt: null });
    stopSound();
    showFacts();
    showScene();
    tell("");
  },
  undo: () => reverse("undo"),
  redo: () => reverse("redo"),
  zoom,
  help: () => openAtTop(byId("help-dialog")),
};

const BUTTONS = {
  play: () => play(picture, false),
  slow: () => play(picture, true),
  confirm: act.confirm,
  "name-unit": act.nameUnit,
  "edge-onset": () => startEdge("onset"),
  "edge-offset": () => startEdge("offset"),
  split: startSplit,
  merge: act.merge,
  delete: act.remove,
  add: act.add,
  undo: act.undo,
  redo: act.redo,
  "zoom-out": () => zoom(1.5),
  "zoom-in": () => zoom(1 / 1.5),
};

function wire() {
  for (const [id, task] of Object.entries(BUTTONS)) {
    byId(id).addEventListener("click", (event) => {
      task();
      // After a click of the mouse, keys are for the picture again.
      if (event.detail) byId("picture").focus({ preventScroll: true });
    });
  }
  for (const id of ["order", "unit", "recording", "unreviewed"]) {
    byId(id).addEventListener("change", () => {
      load();
      byId("list").focus({ preventScroll: true });
    });
  }
  byId("more").addEventListener("click", loadMore);
  byId("gain").addEventListener("input", (event) => {
    picture.gainDb = Number(event.target.value);
    picture.draw();
  });
  const map = byId("map");
  fill(map, ...Object.keys(MAPS).map((name) => element("option", { value: name }, name)));
  map.addEventListener("change", () => {
    picture.map = map.value;
    picture.draw();
  });
  const author = byId("author");
  author.addEventListener("change", () => {
    remember("neurovocal.reviewer", author.value.trim());
  });
  const theme = byId("theme");
  theme.value = chosenTheme();
  theme.addEventListener("change", () => setTheme(theme.value));
  onTheme(() => picture.draw());
  showKeys(byId("help-keys"));
  listenToKeys(act);
}

function showState(state) {
  document.title = `Review of ${readable(state.name)} – NeuroVocal`;
  setText(byId("name"), readable(state.name));
  if (state.live) fill(byId("pages"), element("a", { href: "./" }, "Live"));
  byId("author").value = remembered("neurovocal.reviewer") || state.author;
  for (const recording of state.recordings) recordings.set(recording.id, recording);
  fill(
    byId("recording"),
    element("option", { value: "" }, `all (${recordings.size})`),
    ...state.recordings.map((each) =>
      element("option", { value: each.id }, readable(each.run ? `${each.name}, run ${each.run}` : each.name, 60)),
    ),
  );
  for (const option of byId("order").options) {
    option.disabled = state.orders[option.value] === false;
  }
  byId("notes-panel").hidden = !state.notes.length;
  fill(byId("notes"), ...state.notes.map((note) => element("li", {}, readable(note, 300))));
  showProgress(state);
  showUnits(state.units, label);
}

async function start() {
  wire();
  await attempt(() => send("reload"));
  const state = await attempt(() => read("state"));
  if (!state) return;
  showState(state);
  await load(false);
  await showChanges();
  document.body.dataset.ready = "yes"; // for tests and for scripts
  poll();
}

start();
