/* Plays the chosen segment, and shows where in the picture the sound is. */

import { byId } from "../text.js";
import { soundAddress } from "./api.js";
import { tell, view } from "./state.js";

const PLAY_S = 0.15; // before and after a segment

const sound = byId("sound");
let playing = null;

/** Play the chosen segment, or what is visible; `picture` shows the place. */
export function play(picture, slowly) {
  const { recording, current } = view;
  if (!recording) return;
  if (recording.problem) {
    tell(recording.problem, "bad");
    return;
  }
  const rate = recording.sample_rate;
  const range = view.draft ?? current;
  const start = range ? Math.max(0, range.onset - Math.round(PLAY_S * rate)) : view.first;
  const stop = range ? range.offset + Math.round(PLAY_S * rate) : view.last;
  const normal = recording.ultrasound ? recording.slow : 1;
  const speed = slowly ? normal * (recording.ultrasound ? 0.5 : recording.slow) : normal;
  playing = { start, speed, rate };
  sound.src = soundAddress(recording.id, start, stop, speed);
  sound.play().then(() => follow(picture), (error) => {
    if (error.name !== "AbortError") tell("The sound cannot be played.", "bad");
  });
}

function follow(picture) {
  if (!playing || sound.ended || sound.paused) {
    picture.showPlayhead(null);
    return;
  }
  const { start, speed, rate } = playing;
  picture.showPlayhead(start + sound.currentTime * speed * rate);
  requestAnimationFrame(() => follow(picture));
}

/** Stop the sound. */
export function stopSound() {
  if (playing) sound.pause();
  playing = null;
}
