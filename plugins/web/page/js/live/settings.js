/* What the user chose, kept by the browser. */

const KEY = "neurovocal.live";
const DEFAULTS = {
  map: "", // "": grey in light, magma in dark
  gain: 0,
  contrast: 1,
  axis: "utc",
  size: 1,
  synthesis: true,
  surprise: true,
  trace: true,
  level: true,
  forecasts: false,
  misses: true,
  announce: false,
  speed: "auto",
};

function stored() {
  try {
    const values = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    const known = Object.entries(values).filter(
      ([name, value]) => name in DEFAULTS && typeof value === typeof DEFAULTS[name],
    );
    return Object.fromEntries(known);
  } catch {
    return {}; // forbidden, or not of this program
  }
}

/** The choices; set them with `choose`. */
export const settings = { ...DEFAULTS, ...stored() };
const listeners = new Set();

/** Call `listener(name)` after each choice. */
export function onChoice(listener) {
  listeners.add(listener);
}

/** Choose a value, keep it, and tell all who draw. */
export function choose(name, value) {
  settings[name] = value;
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // The choice holds until the page is closed.
  }
  for (const listener of listeners) listener(name);
}
