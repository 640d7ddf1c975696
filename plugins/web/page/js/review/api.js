/* Requests of the review page to its server. */

/** Refusal or failure of a request; the message is a sentence for people. */
export class ReviewError extends Error {}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new ReviewError("The server does not answer: is `neurovocal review` still running?");
  }
  if (response.status === 401 || response.redirected) {
    window.location.reload(); // the session is over: the form comes
    throw new ReviewError("Log in again.");
  }
  if (response.ok) return response;
  let sentence = `the server refuses (${response.status})`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch {
    // no JSON: the number must do
  }
  throw new ReviewError(sentence);
}

function address(name, parameters = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(key, String(value));
  }
  const text = query.toString();
  return `review/api/${name}${text ? `?${text}` : ""}`;
}

/** Read JSON. */
export async function read(name, parameters) {
  return (await answer(fetch(address(name, parameters)))).json();
}

/** Send JSON and read the answer. */
export async function send(name, body = {}) {
  const request = fetch(address(name), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return (await answer(request)).json();
}

/** Return the address of a sound. */
export function soundAddress(recording, start, stop, speed) {
  return address("sound", { recording, start, stop, speed });
}

/**
 * Read a spectrogram.
 *
 * @returns {Promise<{start: number, stop: number, column_s: number, low_hz: number,
 *     high_hz: number, low_db: number, high_db: number, nFrames: number,
 *     nBins: number, data: Uint8Array}>}
 */
export async function readSpectrogram(recording, start, stop, columns) {
  const response = await answer(
    fetch(address("spectrogram", { recording, start, stop, columns })),
  );
  const buffer = await response.arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const [nFrames, nBins] = header.shape;
  return { ...header, nFrames, nBins, data: new Uint8Array(buffer, 4 + length) };
}
