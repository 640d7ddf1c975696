/* Draws spectrogram columns of unsigned bytes into a canvas. */

let scratch = null;

/**
 * Draw columns, the lowest bin at the bottom, scaled to a rectangle.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Uint8Array} data Values, frame by frame: [nFrames, nBins].
 * @param {number} nFrames
 * @param {number} nBins
 * @param {Uint8ClampedArray} table Colours as `colours.js` gives them.
 * @param {number} x Left edge of the rectangle.
 * @param {number} y Top edge.
 * @param {number} width
 * @param {number} height
 */
export function drawColumns(context, data, nFrames, nBins, table, x, y, width, height) {
  if (!nFrames || !nBins) return;
  const image = new ImageData(nFrames, nBins);
  const pixels = new Uint32Array(image.data.buffer);
  const colours = new Uint32Array(table.buffer, table.byteOffset, 256);
  for (let frame = 0; frame < nFrames; frame += 1) {
    const from = frame * nBins;
    let at = (nBins - 1) * nFrames + frame;
    for (let bin = 0; bin < nBins; bin += 1, at -= nFrames) {
      pixels[at] = colours[data[from + bin]];
    }
  }
  scratch ??= document.createElement("canvas");
  if (scratch.width < nFrames) scratch.width = nFrames;
  if (scratch.height < nBins) scratch.height = nBins;
  scratch.getContext("2d").putImageData(image, 0, 0);
  const smooth = context.imageSmoothingEnabled;
  context.imageSmoothingEnabled = width < nFrames || height < nBins;
  context.drawImage(scratch, 0, 0, nFrames, nBins, x, y, width, height);
  context.imageSmoothingEnabled = smooth;
}
