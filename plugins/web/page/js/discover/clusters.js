/* The list of clusters: marks, names, examples. */

import { drawColumns } from "../columns.js";
import { count } from "../format.js";
import { element, fill, readable } from "../text.js";

/**
 * Build a button with the picture of a segment.
 *
 * @param {number} segment
 * @param {string} words What a screen reader says.
 * @param {(canvas: HTMLCanvasElement) => void} draw Draws the picture.
 * @param {(segment: number) => void} press
 */
export function pictureButton(segment, words, draw, press) {
  const canvas = element("canvas", { width: 38, height: 38, "aria-hidden": "true" });
  draw(canvas);
  return element(
    "button",
    { type: "button", title: words, "aria-label": words, onclick: () => press(segment) },
    canvas,
  );
}

/** Draw a patch into a small canvas; return whether it is here already. */
export function drawPicture(canvas, patches, segment, shape, table) {
  const patch = patches.get(segment);
  if (!patch) return false;
  const context = canvas.getContext("2d");
  drawColumns(
    context, patch, shape.n_columns, shape.n_bins, table, 0, 0, canvas.width, canvas.height,
  );
  return true;
}

/**
 * Fill the list of clusters.
 *
 * @param {HTMLElement} list
 * @param {object[]} clusters As the server gives them.
 * @param {object} options
 * @param {(cluster: object) => {mark: string, colour: number}} options.mark
 * @param {Set<number>} options.ticked Numbers of clusters that are ticked.
 * @param {number|null} options.current Number of the current cluster.
 * @param {(canvas: HTMLCanvasElement, segment: number) => void} options.draw
 * @param {(segment: number) => void} options.play
 * @param {(cluster: object) => void} options.choose
 * @param {(cluster: object, name: string) => void} options.rename
 * @param {() => void} options.tick
 */
export function fillClusters(list, clusters, options) {
  const focused = document.activeElement?.dataset?.focus;
  fill(
    list,
    clusters.map((cluster) => item(cluster, options)),
  );
  if (!clusters.length) {
    fill(list, element("li.muted", {}, "There is no cluster: give more recordings, or cluster anew with a lower number."));
  }
  if (focused) list.querySelector(`[data-focus="${focused}"]`)?.focus();
}

function item(cluster, options) {
  const { mark, colour } = options.mark(cluster);
  const name = readable(cluster.name);
  const input = element("input", {
    type: "text",
    value: cluster.named ? cluster.name : "",
    placeholder: cluster.name,
    maxlength: 64,
    autocomplete: "off",
    "aria-label": `Name of cluster ${name}`,
    "data-focus": `name-${cluster.number}`,
    onchange: () => options.rename(cluster, input.value),
  });
  const tick = element("input", {
    type: "checkbox",
    checked: options.ticked.has(cluster.number),
    "aria-label": `Tick ${name} to merge it`,
    "data-focus": `tick-${cluster.number}`,
    onchange: () => {
      if (tick.checked) options.ticked.add(cluster.number);
      else options.ticked.delete(cluster.number);
      options.tick();
    },
  });
  const words = `${count(cluster.size)} segment${cluster.size === 1 ? "" : "s"}`;
  return element(
    `li.cluster${options.current === cluster.number ? ".current" : ""}`,
    { "data-cluster": cluster.number },
    element(
      "div.row.spread",
      {},
      element(
        "span.row",
        {},
        tick,
        element(`span.mark.mark-${colour}`, { "aria-hidden": "true" }, mark),
        input,
      ),
      element(
        "button",
        {
          type: "button",
          "aria-pressed": String(options.current === cluster.number),
          "aria-label": `Choose ${name}, ${words}`,
          "data-focus": `choose-${cluster.number}`,
          onclick: () => options.choose(cluster),
        },
        words,
      ),
    ),
    element(
      "div.pictures",
      {},
      [cluster.medoid, ...cluster.examples.filter((k) => k !== cluster.medoid)]
        .slice(0, 8)
        .map((segment, k) =>
          pictureButton(
            segment,
            k ? `Play example ${k} of ${name}` : `Play the most typical of ${name}`,
            (canvas) => options.draw(canvas, segment),
            options.play,
          ),
        ),
    ),
  );
}
