// The line at the bottom: a message from the operator to an agent.
import { html, useEffect, useState } from "./lib.js";
import { newId, post, refused, toast } from "./api.js";
import { agents, notify, useHive } from "./live.js";
import { setLength, useSize } from "./parts.js";
import { Txt, plain } from "./text.js";

// Outlives the view that shows it, so that a draft survives a look at something else.
const draft = { to: "", text: "", replyTo: null, id: "" };
const box = { current: null };

/** Puts the cursor into the composer, for this agent. */
export function compose(to, text = null, replyTo = null) {
  Object.assign(draft, { to, replyTo, id: "" });
  if (text !== null) draft.text = text;
  notify();
  box.current?.focus(); // now, not after the next frame: the operator may already be typing
}

/** `only`: on an agent's own page, to that one and nobody else. */
export function Composer({ only = "" }) {
  const hive = useHive();
  const [busy, setBusy] = useState(false);
  const there = agents().filter((agent) => agent.desired !== "destroyed");
  const to = only || (there.some((agent) => agent.name === draft.to) || draft.to === "all" ? draft.to : there[0]?.name ?? "");
  useEffect(() => grow(box.current), [draft.text]);
  const place = useSize((element) => setLength("--dock", innerHeight - element.getBoundingClientRect().top));
  const type = (event) => (Object.assign(draft, { text: event.target.value, id: "" }), notify());
  const send = async () => {
    if (busy || !draft.text.trim() || !to) return;
    setBusy(true);
    draft.id ||= newId(); // kept until it is answered: pressing again after a lost answer sends nothing twice
    const form = { id: draft.id, body: draft.text.trim(), in_reply_to: draft.replyTo?.id ?? "" };
    try {
      await post("/api/send", only ? form : { ...form, to: [to] });
      toast("good", `sent to ${to}`);
      Object.assign(draft, { text: "", id: "", replyTo: null });
    } catch (error) {
      refused(error);
    }
    setBusy(false);
    box.current?.focus();
  };
  const key = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  return html`<section class="composer" ref=${place} aria-label="Write to an agent">
    ${draft.replyTo && html`<div class="replying"><span>in reply to <b><${Txt} of=${draft.replyTo.sender} /></b>: <${Txt} of=${draft.replyTo.body.slice(0, 90)} /></span>
      <button type="button" class="close" aria-label="Not a reply" onClick=${() => ((draft.replyTo = null), notify())}>×</button></div>`}
    <div class="line">
      <span class="prompt" aria-hidden="true">›</span>
      ${only
        ? html`<span class="to">${plain(only)}</span>`
        : html`<select class="to" aria-label="To" value=${to} onChange=${(event) => ((draft.to = event.target.value), (draft.replyTo = null), notify())}>
            ${there.map((agent) => html`<option key=${agent.name} value=${agent.name}>${agent.name}</option>`)}
            ${there.length > 1 && html`<option value="all">all</option>`}
          </select>`}
      <textarea ref=${box} rows="1" maxlength="60000" aria-label="Message" placeholder=${to ? `message ${to} …` : "no agent to write to yet"} value=${draft.text} onInput=${type} onKeyDown=${key} disabled=${!hive.ready || !to}></textarea>
      <button type="button" class=${`btn primary ${busy ? "busy" : ""}`} aria-busy=${busy} disabled=${!draft.text.trim() || !to} onClick=${send}>Send</button>
    </div>
  </section>`;
}

function grow(box) {
  if (!box) return;
  box.style.height = "auto";
  box.style.height = `${Math.min(box.scrollHeight, innerHeight * 0.35)}px`;
}
