/* The discovery page: what is chosen, changes, sound, keys. */

import { MAPS, UnitMarks, N_UNIT_COLOURS, table } from "../colours.js";
import { count, duration, streamTime } from "../format.js";
import { byId, element, fill, openAtTop, readable, setText } from "../text.js";
import { chosenTheme, isDark, onTheme, setTheme } from "../theme.js";
import { DiscoverError, Patches, readPoints, readState, send, soundAddress } from "./api.js";
import { drawPicture, fillClusters, pictureButton } from "./clusters.js";
import { SegmentMap } from "./map.js";

const MOST_PICTURES = 24;
const KEYS = [
  ["← ↑ → ↓", "on the map: to the next segment in a direction"],
  ["Space", "play the current segment"],
  ["x", "choose the current segment, or not any more"],
  ["c", "choose the whole cluster of the current segment"],
  ["n", "name the cluster of the current segment"],
  ["u", "move what is chosen to unknown"],
  ["l", "lasso on or off"],
  ["+ − 0", "zoom; the whole map"],
  ["Ctrl Z", "undo"],
  ["Esc", "choose none"],
];

const marks = new UnitMarks();
const ticked = new Set();
const waiting = new Map(); // canvases whose patch has not come
let state = null;
let points = null;
let patches = null;
let colours = table("magma", 0, false);
let currentCluster = null;
let busy = false;

const map = new SegmentMap(byId("map"), {
  chosen: (segment, adds) => {
    if (segment === null) {
      if (!adds) choose([]);
      return;
    }
    if (adds) toggle(segment);
    else choose([segment]);
    makeCurrent(segment);
    play(segment);
  },
  circled: (segments, adds) => {
    choose(adds ? [...map.chosen, ...segments] : segments);
    say(`${count(map.chosen.size)} segments are chosen`);
  },
});

/** Say something to people, also to those who hear the page. */
function say(text, bad = false) {
  const status = byId("status");
  status.classList.toggle("bad", bad);
  setText(status, text);
}

function mark(cluster) {
  const key = `c${cluster.number}`;
  return { mark: marks.shape(key), colour: marks.colour(key) };
}

function nameOf(number) {
  const found = state.clusters.find((cluster) => cluster.number === number);
  return found ? readable(found.name) : "unknown";
}

function describe(segment) {
  const recording = readable(state.recordings[points.recording[segment]]);
  const at = streamTime(points.onset[segment], 3);
  return `${nameOf(points.cluster[segment])}, ${recording} at ${at}, ${duration(points.duration[segment])}`;
}

async function load() {
  state = await readState();
  // Marks go by number, in the order of the first clusters, and stay.
  const numbers = state.clusters.map((cluster) => cluster.number).sort((a, b) => a - b);
  for (const number of numbers) marks.place(`c${number}`);
  points = await readPoints(state.n_segments);
  if (!patches) {
    patches = new Patches(state.patch.n_columns * state.patch.n_bins, () => {
      for (const [canvas, segment] of waiting) {
        if (!canvas.isConnected) waiting.delete(canvas);
        else if (drawPicture(canvas, patches, segment, state.patch, colours)) {
          waiting.delete(canvas);
        }
      }
      map.draw();
    });
    byId("author").value = state.author;
    const slider = byId("min-size");
    slider.max = Math.max(100, Math.min(1000, Math.round(state.n_segments / 4)));
    slider.value = state.min_size;
    setText(byId("min-size-words"), slider.value);
  }
  map.table = colours;
  map.show(
    points,
    (number) => (number < 0 ? -1 : marks.place(`c${number}`) % N_UNIT_COLOURS),
    patches,
    state.patch,
  );
  show();
}

function draw(canvas, segment) {
  if (!drawPicture(canvas, patches, segment, state.patch, colours)) {
    waiting.set(canvas, segment);
  }
}

function show() {
  const n = state.clusters.length;
  setText(
    byId("counts"),
    `${count(state.n_segments)} segments, ${n} cluster${n === 1 ? "" : "s"}, ` +
      `${count(state.n_unknown)} unknown`,
  );
  byId("map").setAttribute("aria-label", mapWords());
  byId("undo").disabled = !state.can_undo;
  for (const number of ticked) {
    if (!state.clusters.some((each) => each.number === number)) ticked.delete(number);
  }
  byId("merge").disabled = ticked.size < 2;
  fillClusters(byId("list"), state.clusters, {
    mark,
    ticked,
    current: currentCluster,
    draw,
    play: (segment) => {
      makeCurrent(segment);
      play(segment);
    },
    choose: chooseCluster,
    rename: (cluster, name) => change({ kind: "name", cluster: cluster.number, name }),
    tick: () => {
      byId("merge").disabled = ticked.size < 2;
    },
  });
  const before = byId("move-to").value;
  fill(
    byId("move-to"),
    state.clusters.map((each) =>
      element("option", { value: each.number }, readable(each.name)),
    ),
    element("option", { value: "new" }, "a new cluster"),
    element("option", { value: "unknown" }, "unknown"),
  );
  if ([...byId("move-to").options].some((each) => each.value === before)) {
    byId("move-to").value = before;
  }
  showChosen();
}

function mapWords() {
  const sizes = state.clusters
    .slice(0, 12)
    .map((cluster) => `${readable(cluster.name)} ${cluster.size}`)
    .join(", ");
  return `Map of ${state.n_segments} segments in ${state.clusters.length} clusters: ${sizes}. Arrow keys go from segment to segment.`;
}

function showChosen() {
  const chosen = [...map.chosen];
  const none = !chosen.length;
  const title = none
    ? "No segment is chosen"
    : `${count(chosen.length)} segment${chosen.length === 1 ? "" : "s"} chosen`;
  setText(byId("chosen-title"), title);
  const segment = map.current ?? chosen[0] ?? null;
  setText(byId("chosen-facts"), segment === null ? "" : describe(segment));
  fill(
    byId("chosen-pictures"),
    chosen.slice(0, MOST_PICTURES).map((each) =>
      pictureButton(each, `Play ${describe(each)}`, (canvas) => draw(canvas, each), (k) => {
        makeCurrent(k);
        play(k);
      }),
    ),
  );
  for (const id of ["move", "move-to", "clear"]) byId(id).disabled = none;
  byId("play").disabled = segment === null;
  byId("split").disabled = currentCluster === null;
  map.draw();
}

function choose(segments) {
  map.chosen = new Set(segments);
  if (!segments.length) {
    map.current = null;
    currentCluster = null;
    show();
    return;
  }
  showChosen();
}

function toggle(segment) {
  if (!map.chosen.delete(segment)) map.chosen.add(segment);
  showChosen();
}

function chooseCluster(cluster) {
  currentCluster = cluster.number;
  const members = [];
  points.cluster.forEach((number, k) => number === cluster.number && members.push(k));
  map.chosen = new Set(members);
  map.current = cluster.medoid;
  show();
  say(`${readable(cluster.name)}: ${count(members.length)} segments are chosen`);
}

function makeCurrent(segment) {
  map.setCurrent(segment);
  const number = points.cluster[segment];
  currentCluster = number < 0 ? null : number;
  for (const item of byId("list").querySelectorAll(".cluster")) {
    const is = Number(item.dataset.cluster) === currentCluster;
    item.classList.toggle("current", is);
    item.querySelector("[aria-pressed]").setAttribute("aria-pressed", String(is));
  }
  showChosen();
  say(describe(segment));
}

function play(segment) {
  const sound = byId("sound");
  sound.src = soundAddress(segment);
  sound.play().catch((error) => {
    // Another segment was played before this one had come.
    if (error.name !== "AbortError") say("This sound cannot be played.", true);
  });
}

async function change(wanted) {
  if (busy) return;
  busy = true;
  try {
    await send("change", {
      author: byId("author").value,
      revision: state.revision,
      change: wanted,
    });
    const before = state.clusters.length;
    await load();
    if (wanted.kind === "recluster" || wanted.kind === "undo") choose([]);
    say(told(wanted, before));
  } catch (error) {
    if (!(error instanceof DiscoverError)) throw error;
    if (error.status === 409) await load();
    else show(); // an input goes back to what is true
    say(error.message, true);
  } finally {
    busy = false;
  }
}

function told(wanted, before) {
  const n = state.clusters.length;
  if (wanted.kind === "name") return `The cluster is called ${nameOf(wanted.cluster)}.`;
  if (wanted.kind === "undo") return "The last change is taken back.";
  if (wanted.kind === "move") return `${count(wanted.segments.length)} segments are moved.`;
  if (wanted.kind === "merge") return `The clusters are merged: ${n} are left.`;
  return `${n} clusters, ${before} before.`;
}

function move(to) {
  const cluster = to === "unknown" ? null : to === "new" ? "new" : Number(to);
  if (map.chosen.size) change({ kind: "move", segments: [...map.chosen], cluster });
}

async function write() {
  try {
    const done = await send("export", {});
    const kept = done.kept ? ` The table that was changed since is kept as ${done.kept}.` : "";
    setText(
      byId("export-result"),
      `${count(done.segments)} segments are written to ${done.path}.${kept}`,
    );
    setText(byId("export-commands"), `${done.train}\n${done.review}`);
    byId("export-dialog").showModal();
  } catch (error) {
    if (!(error instanceof DiscoverError)) throw error;
    say(error.message, true);
  }
}

function setLasso(on) {
  map.lassoing = on;
  byId("lasso").setAttribute("aria-pressed", String(on));
  say(on ? "Draw a line around segments." : "");
}

const ARROWS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

function onKey(event) {
  const target = event.target;
  if (document.querySelector("dialog[open]")) return;
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !isText(target)) {
    event.preventDefault();
    change({ kind: "undo" });
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || isText(target) || !state) return;
  if (target.tagName === "SELECT" || target.type === "range") return;
  const onMap = target.id === "map" || target === document.body;
  const step = ARROWS[event.key];
  if (step && onMap) {
    event.preventDefault();
    const next = map.neighbour(...step);
    if (next !== null) makeCurrent(next);
  } else if (event.key === " " && onMap && map.current !== null) {
    event.preventDefault();
    play(map.current);
  } else if (event.key === "x" && map.current !== null) toggle(map.current);
  else if (event.key === "c" && currentCluster !== null) {
    chooseCluster(state.clusters.find((each) => each.number === currentCluster));
  } else if (event.key === "n" && currentCluster !== null) {
    event.preventDefault();
    byId("list").querySelector(`[data-focus="name-${currentCluster}"]`)?.focus();
  } else if (event.key === "u") move("unknown");
  else if (event.key === "l") setLasso(!map.lassoing);
  else if (event.key === "+" || event.key === "=") map.zoom(1.5);
  else if (event.key === "-" || event.key === "−") map.zoom(1 / 1.5);
  else if (event.key === "0") map.showAll();
  else if (event.key === "Escape") choose([]);
  else if (event.key === "?") openAtTop(byId("help-dialog"));
}

const isText = (node) =>
  node.tagName === "TEXTAREA" || (node.tagName === "INPUT" && node.type === "text") ||
  node.id === "author";

function recolour() {
  const name = byId("map-colours").value;
  colours = table(name, 0, !isDark(), 60);
  map.table = colours;
  if (state) show();
}

function begin() {
  fill(
    byId("map-colours"),
    Object.keys(MAPS).map((name) => element("option", { value: name }, name)),
  );
  fill(
    byId("help-keys"),
    KEYS.map(([key, words]) =>
      element("tr", {}, element("td", {}, element("kbd", {}, key)), element("td", {}, words)),
    ),
  );
  byId("theme").value = chosenTheme();
  byId("theme").addEventListener("change", (event) => setTheme(event.target.value));
  byId("map-colours").addEventListener("change", recolour);
  onTheme(recolour);
  byId("thumbs").addEventListener("input", (event) => {
    map.thumbs = Number(event.target.value);
    map.draw();
  });
  byId("min-size").addEventListener("input", (event) => {
    setText(byId("min-size-words"), event.target.value);
  });
  const press = {
    lasso: () => setLasso(!map.lassoing),
    "zoom-in": () => map.zoom(1.5),
    "zoom-out": () => map.zoom(1 / 1.5),
    "zoom-all": () => map.showAll(),
    play: () => play(map.current ?? [...map.chosen][0]),
    move: () => move(byId("move-to").value),
    clear: () => choose([]),
    merge: () => change({ kind: "merge", clusters: [...ticked] }),
    undo: () => change({ kind: "undo" }),
    export: write,
    split: () =>
      change({ kind: "split", cluster: currentCluster, min_size: Number(byId("min-size").value) }),
    recluster: () => byId("anew-dialog").showModal(),
    "anew-go": () => {
      byId("anew-dialog").close();
      change({ kind: "recluster", min_size: Number(byId("min-size").value) });
    },
    "anew-cancel": () => byId("anew-dialog").close(),
    "export-close": () => byId("export-dialog").close(),
    "help-open": () => openAtTop(byId("help-dialog")),
    "help-close": () => byId("help-dialog").close(),
  };
  for (const [id, action] of Object.entries(press)) byId(id).addEventListener("click", action);
  document.addEventListener("keydown", onKey);
  recolour();
  say("Reading segments …");
  load()
    .then(() => {
      say("");
      document.body.dataset.ready = "yes";
    })
    .catch((error) => say(error.message, true));
}

/** What is drawn where, for tests and for people who are curious. */
window.neurovocal = {
  place: (segment) => map.place(segment),
  chosen: () => [...map.chosen],
  current: () => map.current,
  clusterOf: (segment) => nameOf(points.cluster[segment]),
  pictures: () => patches.kept.size,
};

begin();
