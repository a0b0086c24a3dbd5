// Text of others, made harmless to the eye too, and instants made readable.
import { html } from "./lib.js";

// Controls, bidirectional overrides, invisible and tag characters. Joiners (200c, 200d) belong to scripts and emoji.
const GHOSTS =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e0fff}]/gu;

const code = (char) => "U+" + char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");

/** Whatever came, as a string: a cage decides what is in its JSON. */
export function str(value) {
  if (typeof value === "string") return value;
  if (value === undefined || value === null) return "";
  return typeof value === "object" ? JSON.stringify(value, null, 2) : String(value);
}

/** Text with its invisible characters shown as marks. */
export function Txt({ of }) {
  const text = str(of);
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(GHOSTS)) {
    parts.push(text.slice(at, found.index), html`<span class="ghost" title="invisible character">${code(found[0])}</span>`);
    at = found.index + found[0].length;
  }
  return at ? [...parts, text.slice(at)] : text;
}

/** The same for where only a plain string fits: attributes, titles, options. */
export const plain = (value) => str(value).replace(GHOSTS, (char) => `<${code(char)}>`);

export const plural = (count, one, many = one + "s") => `${count} ${count === 1 ? one : many}`;

export const limits = (of) => `${of.memory_mb} MB, ${plural(of.tasks, "task")}, ${of.cpu_percent} % of a processor`;

export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${String(seconds % 60).padStart(2, "0")}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ${String(Math.floor((seconds % 3600) / 60)).padStart(2, "0")}m`;
  return `${Math.floor(seconds / 86400)}d ${Math.floor((seconds % 86400) / 3600)}h`;
}

export function ago(at, now) {
  const seconds = Math.round((now - at) / 1000);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${seconds}s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ago`;
  return `${Math.floor(seconds / 86400)}d ago`;
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const dayFormat = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

export const clock = (at) => (at ? clockFormat.format(at) : "");
export const when = (at) => (at ? (Date.now() - at < 72e5 ? clockFormat : dayFormat).format(at) : "");
export const exact = (at) => (at ? new Date(at).toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC") : "");

export function count(number) {
  if (number < 1000) return String(number);
  if (number < 1e6) return `${(number / 1e3).toFixed(number < 1e4 ? 1 : 0)}k`;
  return `${(number / 1e6).toFixed(1)}M`;
}
