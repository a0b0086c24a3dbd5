// The small things that all views are made of.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { currentToasts, dropToast, refused, toast } from "./api.js";
import { nowMs, useNow } from "./live.js";
import { Txt, ago, exact, plain, span, str } from "./text.js";

/** An action: shown as busy from the press on, and ended by a toast whichever way it goes. */
export function Act({ run, done = "", ask = null, kind = "", title = "", disabled = false, children }) {
  const [busy, setBusy] = useState(false);
  const here = useRef(true);
  useEffect(() => () => (here.current = false), []);
  const press = async () => {
    if (busy || (ask && !(await confirmed(ask)))) return;
    setBusy(true);
    try {
      const said = await run();
      const text = typeof done === "function" ? done(said) : done;
      if (text) toast("good", text);
    } catch (error) {
      refused(error);
    }
    if (here.current) setBusy(false);
  };
  return html`<button type="button" class=${`btn ${kind} ${busy ? "busy" : ""}`} title=${title} aria-busy=${busy} disabled=${disabled} onClick=${press}>${children}</button>`;
}

// ---- dialogs

let showDialog = () => {};

/** Asks once. `ask`: {title, text, go, danger, type: a word to be typed, field: a label for a line of text}. Resolves to false, true or the line. */
export const confirmed = (ask) => new Promise((resolve) => showDialog({ ...ask, resolve }));

export function Dialogs() {
  const [ask, setAsk] = useState(null);
  const [typed, setTyped] = useState("");
  const box = useRef(null);
  showDialog = (next) => (setTyped(""), setAsk(next));
  useLayoutEffect(() => {  // at once: who presses Escape the moment he sees it means this dialog
    if (ask && box.current && !box.current.open) box.current.showModal();
  }, [ask]);
  if (!ask) return null;
  const end = (value) => (ask.resolve(value), setAsk(null));
  const ready = ask.type ? typed === ask.type : ask.field ? typed.trim() !== "" : true;
  const submit = (event) => (event.preventDefault(), ready && end(ask.field ? typed.trim() : true));
  return html`<dialog ref=${box} class="dialog" aria-labelledby="dialog-title" onCancel=${(event) => (event.preventDefault(), end(false))}>
    <form onSubmit=${submit}>
      <h2 id="dialog-title"><${Txt} of=${ask.title} /></h2>
      ${ask.text && html`<p><${Txt} of=${ask.text} /></p>`}
      ${ask.type && html`<label class="field"><span>Type <b>${ask.type}</b> to confirm</span>
        <input autofocus autocomplete="off" spellcheck=${false} value=${typed} onInput=${(event) => setTyped(event.target.value)} /></label>`}
      ${ask.field && html`<label class="field"><span>${ask.field}</span>
        <textarea autofocus rows="4" maxlength="2000" value=${typed} onInput=${(event) => setTyped(event.target.value)}></textarea></label>`}
      <div class="row end">
        <button type="button" class="btn quiet" autofocus=${!ask.type && !ask.field} onClick=${() => end(false)}>Cancel</button>
        <button type="submit" class=${`btn ${ask.danger ? "danger" : "primary"}`} disabled=${!ready}>${ask.go}</button>
      </div>
    </form>
  </dialog>`;
}

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${currentToasts().map((one) => html`<div key=${one.id} class=${`toast ${one.kind}`}>
      <div><b><${Txt} of=${one.text} /></b>${one.hint && html`<small><${Txt} of=${one.hint} /></small>`}
        ${one.link && html`<a href=${one.link.to} onClick=${() => dropToast(one.id)}>${one.link.text}</a>`}</div>
      <button type="button" class="close" aria-label="Dismiss" onClick=${() => dropToast(one.id)}>×</button>
    </div>`)}
  </div>`;
}

// ---- words and marks

const STATES = {
  running: "hot", idle: "good", starting: "cool", stopping: "cool", "waiting-operator": "warn", limited: "warn", "needs-login": "warn",
  paused: "warn", stopped: "off", destroyed: "off", failed: "bad", broken: "bad", unknown: "unknown",
};

export const stateKind = (state) => STATES[state] ?? "unknown";

const WORDS = { "waiting-operator": "waits for you" };

export const State = ({ of, title = "" }) => html`<span class=${`state ${stateKind(of)}`} title=${plain(title)}><i aria-hidden="true"></i>${WORDS[of] ?? str(of).replace("-", " ")}</span>`;

export const Chip = ({ kind = "", title = "", children }) => html`<span class=${`chip ${kind}`} title=${plain(title)}>${children}</span>`;

export function Ago({ at }) {
  const now = useNow(5000);
  return html`<time title=${exact(at)} datetime=${at ? new Date(at).toISOString() : ""}>${at ? ago(at, now) : "never"}</time>`;
}

function hue(name) {
  let sum = 2166136261;
  for (const char of name) sum = Math.imul(sum ^ char.codePointAt(0), 16777619);
  sum = Math.imul(sum ^ (sum >>> 15), 2246822507);
  return (((sum ^ (sum >>> 13)) >>> 0) % 24) * 15;
}

/** An agent's name, always in the same colour. */
export function Who({ name, big = false }) {
  const text = str(name);
  return html`<span class=${`who ${big ? "big" : ""} ${text === "operator" ? "me" : ""}`} style=${{ "--hue": hue(text) }}><i aria-hidden="true"></i><bdi><${Txt} of=${text} /></bdi></span>`;
}

const STEPS = ["stored", "offered", "seen", "acked"];
const MEANS = { stored: "on disk", offered: "handed to a turn", seen: "the model has it", acked: "its turn has ended" };

/** Where a message is: a little track with a dot for each step. */
export function Track({ of }) {
  if (of.state === "dead" || of.state === "expired") return html`<span class="track end" title=${plain(of.reason)}><b>${of.state}</b></span>`;
  if (of.recipient === "operator" && of.kind === "question") return html`<span class="track mine"><b></b></span>`;
  if (of.recipient === "operator") return html`<span class=${`track mine ${of.state === "acked" ? "" : "new"}`}><b>${of.state === "acked" ? "read" : "unread"}</b></span>`;
  const at = STEPS.indexOf(of.state);
  const told = STEPS.map((step) => (of[`${step}_ms`] ? `${step} ${exact(of[`${step}_ms`])}` : "")).filter(Boolean).join("\n");
  const again = of.attempts > 1 ? `, attempt ${of.attempts}` : "";
  return html`<span class="track" role="img" aria-label=${`${of.state}: ${MEANS[of.state]}${again}`} title=${`${MEANS[of.state]}${again}\n${told}`}>
    ${STEPS.map((step, index) => html`<i key=${step} class=${index < at ? "past" : index === at ? "now" : ""}></i>`)}
    <b>${of.state}${again && html`<em>×${of.attempts}</em>`}</b>
  </span>`;
}

/** The steps of a deploy, in the same way. */
const DEPLOY = ["approved", "resolved", "built", "drained", "switched", "healthy", "recorded"];
export function DeployTrack({ of }) {
  if (of.step === "failed") return html`<span class="track end"><b>failed</b></span>`;
  const at = DEPLOY.indexOf(of.step);
  return html`<span class="track" role="img" aria-label=${`deploy step: ${of.step}`} title=${DEPLOY.join(" → ")}>
    ${DEPLOY.map((step, index) => html`<i key=${step} class=${index < at || of.step === "recorded" ? "past" : index === at ? "now" : ""}></i>`)}<b>${of.step}</b></span>`;
}

/** How long is left, and how much of it is gone. */
export function Countdown({ from, to }) {
  useNow(1000);
  if (!to) return html`<span class="countdown none">no deadline</span>`;
  const left = to - nowMs();
  const share = Math.max(0, Math.min(1, left / Math.max(1, to - from)));
  const kind = left <= 0 ? "over" : left < 60000 || share < 0.15 ? "soon" : "";
  return html`<span class=${`countdown ${kind}`} title=${exact(to)}><span class="bar" aria-hidden="true"><i style=${{ width: `${share * 100}%` }}></i></span>${left <= 0 ? "deadline passed" : `${span(left)} left`}</span>`;
}

/** A body of text that starts folded when it is long. `more` fetches the rest of one that was cut. */
export function Body({ text, total = 0, more = null, open = false }) {
  const [unfolded, setUnfolded] = useState(open);
  const [whole, setWhole] = useState("");
  const shown = whole || str(text);
  const cut = !whole && total > shown.length;
  const long = shown.length > 600 || shown.split("\n", 9).length > 8;
  const fetchAll = async () => (setWhole(await more()), setUnfolded(true));
  return html`<div class="body">
    <div class=${`text ${long && !unfolded ? "folded" : ""}`} dir="auto"><${Txt} of=${long && !unfolded ? shown.slice(0, 1500) : shown} /></div>
    ${(long || cut) && html`<div class="row">
      ${long && html`<button type="button" class="link" aria-expanded=${unfolded} onClick=${() => setUnfolded(!unfolded)}>${unfolded ? "fold" : "unfold"}</button>`}
      ${cut && html`<${Act} kind="link" run=${fetchAll}>show all ${total.toLocaleString()} characters</${Act}>`}
    </div>`}
  </div>`;
}

/** Calls `tell` with the element now, and whenever it or the window has another size. */
export function useSize(tell) {
  const box = useRef(null);
  useLayoutEffect(() => {
    const measure = () => box.current && tell(box.current);
    const watch = new ResizeObserver(measure);
    watch.observe(box.current);
    addEventListener("resize", measure);
    measure();
    return () => (watch.disconnect(), removeEventListener("resize", measure));
  }, []);
  return box;
}

/** Gives the stylesheet a length of this page. */
export const setLength = (name, pixels) => document.documentElement.style.setProperty(name, `${Math.round(pixels)}px`);

export const Empty = ({ title, children }) => html`<div class="empty"><div class="hex" aria-hidden="true"></div><h2>${title}</h2><div>${children}</div></div>`;

export const pageUrl = (agent) => `${location.protocol}//${location.hostname}:${agent.page_port}/`;
