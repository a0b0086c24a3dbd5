// All mail, and for each where it is. The operator's own unread mail comes first.
import { html, useState } from "../lib.js";
import { get, post, refused } from "../api.js";
import { compose } from "../composer.js";
import { addMessages, agents, hive, sorted, unread, useHive } from "../live.js";
import { Act, Body, Chip, Empty, Track, Who } from "../parts.js";
import { Txt, exact, plural, str, when } from "../text.js";

export function Messages({ at }) {
  useHive();
  const mine = unread();
  const rows = together(hive.messages, at);
  const names = agents().map((agent) => agent.name);
  return html`<section aria-labelledby="title">
    <div class="head"><h1 id="title">Messages</h1><p class="sum">${mine.length ? `${plural(mine.length, "message")} to you unread` : "you have read everything"}</p><span class="grow"></span>
      ${mine.length > 0 && html`<${Act} run=${() => post("/api/ack", { ids: mine.map((one) => one.id) })} done="all read">Mark all read</${Act}>`}
    </div>
    <div class="filter" role="group" aria-label="Whose messages">
      <a class="chip" href="#/messages" aria-current=${at ? null : "true"}>all</a>
      ${["operator", ...names].map((name) => html`<a key=${name} class="chip" href=${`#/messages/${name}`} aria-current=${at === name ? "true" : null}><${Who} name=${name} /></a>`)}
    </div>
    ${rows.length === 0
      ? html`<${Empty} title="No messages yet."><p>Write to an agent in the line below. You can see from each message whether it was stored, handed to a turn, seen by the model, and finished.</p></${Empty}>`
      : html`<ol class="mail">${rows.map((copies) => html`<${Message} key=${copies[0].id} copies=${copies} />`)}</ol><${Older} at=${at} rows=${rows} />`}
  </section>`;
}

/** One row per message, with a copy for each of its recipients; the newest first. */
export function together(messages, about) {
  const groups = new Map();
  for (const one of messages.values()) {
    if (about && about !== one.sender && about !== one.recipient) continue;
    if (groups.has(one.id)) groups.get(one.id).push(one);
    else groups.set(one.id, [one]);
  }
  return sorted(groups, (a, b) => b[0].stored_ms - a[0].stored_ms || (a[0].id < b[0].id ? 1 : -1));
}

/** What this answers: one can only reply to what one was sent. */
function repliedTo(one) {
  if (!one.in_reply_to) return "";
  return hive.messages.get(`${one.in_reply_to}/${one.sender}`)?.body ?? hive.questions.get(one.in_reply_to)?.text ?? "";
}

/** `own`: on an agent's page, where there are no buttons for the operator's other mail. */
export function Message({ copies, own = false }) {
  const one = copies[0];
  const toMe = copies.find((copy) => copy.recipient === "operator");
  const fresh = toMe && (one.kind === "question" ? hive.questions.get(one.id)?.state === "open" : !["acked", "dead", "expired"].includes(toMe.state));
  const re = repliedTo(one);
  const more = async () => (await get(`/api/messages/${one.id}`)).messages[0].body;
  return html`<li class=${`message ${fresh ? "fresh" : ""} ${one.sender === "operator" ? "sent" : ""} ${one.kind}`}>
    <div class="meta"><time title=${exact(one.stored_ms)}>${when(one.stored_ms)}</time><span class="route"><${Who} name=${one.sender} /><span class="arrow" aria-label="to">→</span>${copies.length > 3 ? html`<span>${copies.length} agents</span>` : copies.map((copy) => html`<${Who} key=${copy.recipient} name=${copy.recipient} />`)}</span>
      ${one.kind !== "message" && html`<${Chip} kind=${{ question: "warn", answer: "good", news: "violet" }[one.kind] ?? ""}>${one.kind}</${Chip}>`}
      <span class="grow"></span>
      <span class="tracks">${copies.map((copy) => html`<span key=${copy.recipient} class="copy">${copies.length > 1 && html`<small>${str(copy.recipient)}</small>`}<${Track} of=${copy} /></span>`)}</span></div>
    ${re && html`<p class="re" dir="auto">re: <${Txt} of=${re.slice(0, 200)} /></p>`}
    <${Body} text=${one.body} total=${one.body_characters} more=${more} />
    ${copies.map((copy) => copy.reason && html`<p key=${copy.recipient} class="refused">${str(copy.reason)}</p>`)}
    ${toMe && html`<div class="row actions">
      ${one.sender !== "hive" && one.kind !== "question" && html`<button type="button" class="btn small" onClick=${() => compose(one.sender, null, one)}>Reply</button>`}
      ${one.kind === "question" && !own && html`<a class="btn small" href="#/questions">Answer it</a>`}
      ${fresh && one.kind !== "question" && !own && html`<${Act} kind="small quiet" run=${() => post("/api/ack", { ids: [one.id] })}>Mark read</${Act}>`}</div>`}
  </li>`;
}

function Older({ at, rows }) {
  const [end, setEnd] = useState("");
  const [busy, setBusy] = useState(false);
  if (end === `end of ${at}`) return html`<p class="dim center">this is where it began</p>`;
  const load = async () => {
    setBusy(true);
    try {
      const said = await get(`/api/messages?agent=${encodeURIComponent(at)}&before=${rows.at(-1)[0].id}`);
      addMessages(said.messages);
      if (!said.more) setEnd(`end of ${at}`);
    } catch (error) {
      refused(error);
    }
    setBusy(false);
  };
  return html`<p class="center"><button type="button" class=${`btn quiet ${busy ? "busy" : ""}`} aria-busy=${busy} onClick=${load}>Older</button></p>`;
}
