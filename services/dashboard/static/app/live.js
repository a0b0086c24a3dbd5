// The page's copy of the hive: one snapshot, kept fresh by a stream that starts where the snapshot ends.
import { useEffect, useLayoutEffect, useState } from "./lib.js";

const LINES_MAX = 500;
const MESSAGES_MAX = 600;
const HIDDEN_SECONDS_MAX = 60;

const byKey = {
  agent: (one) => one.name,
  deploy: (one) => one.id,
  message: (one) => `${one.id}/${one.recipient}`,
  proposal: (one) => String(one.number),
  question: (one) => one.id,
  reminder: (one) => one.id,
  service: (one) => one.name,
};
const tables = { agent: "agents", deploy: "deploys", message: "messages", proposal: "proposals", question: "questions", reminder: "reminders", service: "services" };

export const hive = {
  ready: false,
  connection: "connecting", // live, lost
  skew: 0,
  hive: { manager: "", dashboard_port: 0, version: "" },
  gateway: { mode: "unknown", upstream: "", last_error: "" },
  lines: [],
  egress: new Map(), // an agent's name -> how often its way out was used since this page was opened
  page: null,
  page_problem: "",
  ...Object.fromEntries(Object.values(tables).map((name) => [name, new Map()])),
};

// ---- telling the components, once a frame

const listeners = new Set();
let scheduled = false;

export function notify() {
  if (scheduled) return;
  scheduled = true;
  const flush = () => {
    if (!scheduled) return;
    scheduled = false;
    for (const listener of listeners) listener();
  };
  requestAnimationFrame(flush);
  setTimeout(flush, 100); // a hidden tab has no frames
}

export function useHive() {
  const [, force] = useState(0);
  // At once, not after the next paint: the snapshot may come before that, and nobody would hear of it.
  useLayoutEffect(() => {
    const listener = () => force((n) => n + 1);
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return hive;
}

/** The hive's clock, not the browser's. */
export const nowMs = () => Date.now() + hive.skew;

/** Renders again every `every` milliseconds, for ages and countdowns. */
export function useNow(every = 1000) {
  const [, force] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => force((n) => n + 1), every);
    return () => clearInterval(timer);
  }, [every]);
  return nowMs();
}

// ---- reading the snapshot

let stream = null;
let streamUrl = "";
let retryTimer = 0;
let loading = false;

async function load() {
  if (loading) return;
  loading = true;
  try {
    const response = await fetch("/api/state", { credentials: "same-origin", signal: AbortSignal.timeout(15000) });
    if (response.status === 401) return void location.assign("/");
    if (!response.ok) throw new Error(String(response.status));
    take(await response.json());
  } catch {
    lost();
    clearTimeout(retryTimer);
    retryTimer = setTimeout(load, 1500);
  } finally {
    loading = false;
  }
}

function take(state) {
  for (const [kind, name] of Object.entries(tables)) {
    hive[name] = new Map(state[name].map((one) => [byKey[kind](one), one]));
  }
  hive.hive = state.hive;
  hive.gateway = state.gateway;
  hive.lines = state.lines;
  hive.page = state.page ?? null;
  hive.page_problem = state.page_problem ?? "";
  hive.skew = state.hive.now_ms - Date.now();
  hive.ready = true;
  open(state.event);
  notify();
}

// ---- following the stream

function open(after) {
  stream?.close();
  stream = new EventSource(`${streamUrl}?after=${encodeURIComponent(after)}`);
  for (const kind of Object.keys(tables)) stream.addEventListener(kind, (event) => put(kind, JSON.parse(event.data)));
  stream.addEventListener("gateway", (event) => change(() => (hive.gateway = JSON.parse(event.data))));
  stream.addEventListener("line", (event) => change(() => (hive.lines = [...hive.lines.slice(1 - LINES_MAX), JSON.parse(event.data)])));
  stream.addEventListener("egress", (event) => {
    const { agent } = JSON.parse(event.data);
    change(() => hive.egress.set(agent, (hive.egress.get(agent) ?? 0) + 1));
  });
  stream.addEventListener("gone", (event) => {
    const { what, key } = JSON.parse(event.data);
    change(() => hive[tables[what]]?.delete(key));
  });
  stream.addEventListener("reset", load);
  stream.onopen = () => change(() => (hive.connection = "live"));
  stream.onerror = () => {
    lost();
    if (stream.readyState === EventSource.CLOSED) {
      clearTimeout(retryTimer);
      retryTimer = setTimeout(load, 1500);
    }
  };
}

function put(kind, one) {
  change(() => {
    const table = hive[tables[kind]];
    table.set(byKey[kind](one), one);
    if (kind === "message" && table.size > MESSAGES_MAX) table.delete(oldest(table));
  });
}

function oldest(table) {
  let found = null;
  for (const [key, one] of table) if (!found || one.stored_ms < found[1].stored_ms) found = [key, one];
  return found[0];
}

function change(how) {
  how();
  notify();
}

function lost() {
  change(() => (hive.connection = "lost"));
}

/** More messages than the snapshot has: an older page that was asked for. */
export const addMessages = (messages) => change(() => messages.forEach((one) => hive.messages.has(byKey.message(one)) || hive.messages.set(byKey.message(one), one)));

export function start(url) {
  streamUrl = url;
  load();
  // A browser opens six connections to one address: tabs that nobody looks at give theirs back.
  let hiddenTimer = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(() => (stream?.close(), (stream = null)), HIDDEN_SECONDS_MAX * 1000);
    else if (!stream) load();
  });
}

// ---- asking the copy

export const rehearsing = () => hive.gateway.mode === "rehearsal";
export const sorted = (table, order) => [...table.values()].sort(order);
export const agents = () => sorted(hive.agents, (a, b) => b.manager - a.manager || (a.desired === "destroyed") - (b.desired === "destroyed") || (a.name < b.name ? -1 : 1));
export const openProposals = () => sorted(hive.proposals, (a, b) => b.number - a.number).filter((one) => one.state === "proposed");
export const openQuestions = () => sorted(hive.questions, (a, b) => (a.deadline_ms || Infinity) - (b.deadline_ms || Infinity) || a.asked_ms - b.asked_ms).filter((one) => one.state === "open");
export const unread = () => sorted(hive.messages, (a, b) => a.stored_ms - b.stored_ms).filter((one) => one.recipient === "operator" && one.kind !== "question" && !["acked", "expired", "dead"].includes(one.state));
