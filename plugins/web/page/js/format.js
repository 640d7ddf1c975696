/* Numbers, times and counts as text. */

const pad = (value, digits = 2) => String(value).padStart(digits, "0");

/**
 * Convert `utc_ns` of a header to milliseconds since 1970; null stays null.
 *
 * As a double `utc_ns` is right to 256 ns, milliseconds are right to a quarter
 * of a microsecond.
 */
export function utcMs(utcNs) {
  return utcNs === null || utcNs === undefined ? null : utcNs / 1e6;
}

/** Time of day in UTC: "14:03:07.25" with `digits` of the second's fraction. */
export function timeOfDay(ms, digits = 0) {
  const scale = 10 ** digits;
  const ticks = Math.round((ms / 1000) * scale);
  const seconds = Math.floor(ticks / scale);
  const day = ((seconds % 86400) + 86400) % 86400;
  const text = `${pad(Math.floor(day / 3600))}:${pad(Math.floor(day / 60) % 60)}:${pad(day % 60)}`;
  return digits ? `${text}.${pad(ticks - seconds * scale, digits)}` : text;
}

/** Date in UTC: "2026-05-01". */
export function date(ms) {
  const day = new Date(ms);
  return `${day.getUTCFullYear()}-${pad(day.getUTCMonth() + 1)}-${pad(day.getUTCDate())}`;
}

/** Time in a stream: "0:07.250", "1:02:03"; `digits` of the second's fraction. */
export function streamTime(seconds, digits = 0) {
  const scale = 10 ** digits;
  const ticks = Math.round(Math.abs(seconds) * scale);
  const whole = Math.floor(ticks / scale);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const sign = seconds < 0 && ticks ? "−" : "";
  const start = hours ? `${hours}:${pad(minutes)}` : `${minutes}`;
  const rest = `${pad(whole % 60)}${digits ? `.${pad(ticks - whole * scale, digits)}` : ""}`;
  return `${sign}${start}:${rest}`;
}

/** Duration in words with two figures: "85 ms", "3.2 s", "4 min", "2 h 5 min". */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "?";
  if (seconds < 0.9995) return `${round(seconds * 1000, seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 119.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Number with at most `digits` decimals and without needless zeros. */
export function round(value, digits) {
  return String(Number(value.toFixed(digits)));
}

/** Frequency: "850 Hz", "4.2 kHz". */
export function hz(value) {
  if (value < 1000) return `${Math.round(value)} Hz`;
  return `${round(value / 1000, value < 10000 ? 2 : 1)} kHz`;
}

/** Whole number with thin spaces between thousands: "1 234 567". */
export function count(value) {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
}

/** Count with its noun: "1 label", "1 234 labels". */
export function counted(value, noun, plural = `${noun}s`) {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/** Milliseconds: "0.4 ms", "23 ms", "1.8 s"; null: "–". */
export function ms(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Math.abs(value) < 9.95) return `${value.toFixed(1)} ms`;
  if (Math.abs(value) < 9999.5) return `${Math.round(value)} ms`;
  return duration(value / 1000);
}

/** Posterior with two decimals; null: "–". */
export function posterior(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}

/** Level: "−42.1 dB"; null: "–". */
export function db(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return `${value.toFixed(1).replace("-", "−")} dB`;
}
