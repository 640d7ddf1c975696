/* Builds DOM nodes. Data reaches the page as text nodes and attributes only. */

/**
 * Build an element.
 *
 * @param {string} tag Name of the element, with an optional class: "td.unit".
 * @param {object} [attributes] Attribute values; null, undefined and false leave an
 *     attribute out, true sets an empty one. A function under "onclick" and the like
 *     is added as a listener of "click".
 * @param {...(Node|string|number|null|undefined|false)} children Strings and numbers
 *     become text; null, undefined and false are left out.
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") {
      if (!key.startsWith("on")) throw new TypeError(`${key}: no listener`);
      node.addEventListener(key.slice(2), value);
    } else if (key === "style" || key.startsWith("on") || key === "srcdoc") {
      // Text in these would be read as style, script or HTML.
      throw new TypeError(`${key} takes no text`);
    } else {
      node.setAttribute(key, value === true ? "" : String(value));
    }
  }
  append(node, children);
  return node;
}

/** Append nodes and texts to `node`; null, undefined and false are left out. */
export function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

/** Replace the content of `node`. */
export function fill(node, ...children) {
  node.replaceChildren();
  return append(node, children);
}

/** Set the text of `node` if it differs: an equal text is not announced again. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/gu;

/**
 * Make a name readable: control and direction characters become visible, and a long
 * name is cut in the middle.
 */
export function readable(name, most = 60) {
  const shown = String(name).replace(
    INVISIBLE,
    (sign) => `\\u${sign.codePointAt(0).toString(16).padStart(4, "0")}`,
  );
  const signs = Array.from(shown);
  if (signs.length <= most) return shown;
  const head = Math.ceil((most - 1) / 2);
  return `${signs.slice(0, head).join("")}…${signs.slice(head + 1 - most).join("")}`;
}

/** Find an element by id; an absent one is a mistake of the page. */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the page has no element '${id}'`);
  return node;
}

/** Open a long dialog at its beginning, although the focus is on the button at its end. */
export function openAtTop(dialog) {
  dialog.showModal();
  dialog.scrollTop = 0;
}
