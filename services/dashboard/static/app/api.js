// Asking the dashboard, and telling the operator how it went.
import { notify } from "./live.js";

const SECONDS_MAX = 25;
const ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz";

export class Refusal extends Error {
  constructor(code, message, hint = "") {
    super(message);
    this.code = code;
    this.hint = hint;
  }
}

/** An id for a command, as the hive makes them: repeating a request with it repeats no effect. */
export function newId() {
  let number = (BigInt(Date.now()) << 80n) | crypto.getRandomValues(new Uint8Array(10)).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  let text = "";
  for (let at = 0; at < 26; at += 1, number >>= 5n) text = ALPHABET[Number(number & 31n)] + text;
  return text;
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin", signal: AbortSignal.timeout(SECONDS_MAX * 1000) });
  } catch {
    throw new Refusal("unavailable", "the dashboard does not answer", "is the hive up? start it with: make up");
  }
  const said = await response.json().catch(() => null);
  if (response.ok && said) return said;
  if (response.status === 401) location.assign("/");
  throw new Refusal(said?.code ?? "problem", said?.message ?? `the dashboard answered ${response.status}`, said?.hint);
}

export const get = (path) => ask(path, {});

export const post = (path, form = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ id: newId(), ...form }) });

// ---- toasts

let toasts = [];
let nextToast = 1;

export const currentToasts = () => toasts;

export function toast(kind, text, hint = "", link = null) {
  const id = nextToast++;
  toasts = [...toasts.slice(-4), { id, kind, text, hint, link }];
  setTimeout(() => dropToast(id), kind === "bad" ? 12000 : 5000);
  notify();
}

export function dropToast(id) {
  toasts = toasts.filter((one) => one.id !== id);
  notify();
}

export const refused = (error) => toast("bad", error.message, error.hint ?? "");
