/* Plays the sound of a segment, slowed down where it is too high to hear. */

import { duration, hz } from "../../format.js";
import { byId, readable, setText } from "../../text.js";
import { choose, settings } from "../settings.js";

const MARGIN_S = 0.05; // before and after
const LONGEST_S = 30;
// Streams of up to 48 kHz are heard as they are: their sounds are mostly far below.
const HEARD_UP_TO_HZ = 24000;
const LOWERED_TO_HZ = 8000;

/** Choose a speed at which a stream's highest frequency can be heard. */
export function automaticSpeed(highestHz) {
  if (!(highestHz > HEARD_UP_TO_HZ)) return 1;
  return [0.5, 0.2, 0.1, 0.05, 0.02].find((speed) => highestHz * speed <= LOWERED_TO_HZ) ?? 0.02;
}

/** The player: one sound at a time. */
export class Player {
  constructor() {
    this.audio = byId("player-audio");
    this.words = byId("player-words");
    this.speed = byId("player-speed");
    this.again = byId("player-again");
    this.speed.value = settings.speed;
    this.speed.addEventListener("change", () => {
      choose("speed", this.speed.value);
      if (this.now) this.play(this.now);
    });
    this.again.addEventListener("click", () => this.now && this.play(this.now));
    this.url = null;
  }

  /**
   * Fetch and play a sound.
   *
   * @param {object} what stationId, stream, rate, start, stop (samples), name, highestHz.
   */
  async play(what) {
    this.now = what;
    this.again.disabled = false;
    const automatic = settings.speed === "auto";
    const speed = automatic ? automaticSpeed(what.highestHz) : Number(settings.speed);
    const margin = Math.round(MARGIN_S * what.rate);
    const start = Math.max(what.start - margin, 0);
    const stop = Math.min(what.stop + margin, start + LONGEST_S * what.rate);
    const query = new URLSearchParams({
      station: what.stationId, stream: what.stream, start: String(start), stop: String(stop), speed: String(speed),
    });
    const name = readable(what.name, 40);
    setText(this.words, `Fetching ${name} …`);
    this.audio.pause();
    try {
      const response = await fetch(`api/sound?${query}`, { cache: "no-store" });
      if (!response.ok) throw new Error((await reason(response)) || `the server answered ${response.status}`);
      const sound = await response.blob();
      if (what !== this.now) return;
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = URL.createObjectURL(sound);
      this.audio.src = this.url;
      const slow = speed === 1 ? "" : `, ${Math.round(1 / speed)} times slower${automatic ? ` because it reaches ${hz(what.highestHz)}` : ""}`;
      setText(this.words, `${name}, ${duration((what.stop - what.start) / what.rate)}${slow}.`);
      await this.audio.play();
    } catch (error) {
      if (what === this.now) setText(this.words, `${name} cannot be played: ${error.message}`);
    }
  }

  /** Say why a sound cannot be played. */
  refuse(words) {
    setText(this.words, words);
  }
}

async function reason(response) {
  const text = await response.text();
  try {
    const { error, detail } = JSON.parse(text);
    return error ?? detail ?? "";
  } catch {
    return readable(text, 200);
  }
}
