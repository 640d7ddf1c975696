/* Light and dark: the system's choice or the user's, and the colours for canvases. */

const KEY = "neurovocal.theme";
const query = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

let chosen = stored();

function stored() {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === "light" || theme === "dark" ? theme : "auto";
  } catch {
    return "auto"; // storage may be forbidden
  }
}

/** Return what the user chose: "auto", "light" or "dark". */
export function chosenTheme() {
  return chosen;
}

/** Return whether the page is dark now. */
export function isDark() {
  const theme = chosenTheme();
  return theme === "dark" || (theme === "auto" && query.matches);
}

// The attribute is always set, so that style.css has the dark colours once.
function apply() {
  document.documentElement.dataset.theme = isDark() ? "dark" : "light";
  for (const listener of listeners) listener();
}

/** Choose "auto", "light" or "dark", keep the choice and redraw. */
export function setTheme(theme) {
  chosen = theme;
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // The choice holds until the page is closed.
  }
  apply();
}

/** Call `listener` whenever the colours change. */
export function onTheme(listener) {
  listeners.add(listener);
}

/** Return the value of a CSS variable, for drawing into a canvas. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

query.addEventListener("change", apply);
apply();
