// All mail, and for each where it is. The operator's own unread mail comes first.
import { html, useEffect, useState } from "../lib.js";
import { get, post, refused } from "../api.js";
import { compose } from "../composer.js";
import { addMessages, agents, hive, notify, sorted, unread, useHive } from "../live.js";
import { Act, Body, Chip, Empty, Track, Who } from "../parts.js";
import { Txt, exact, plain, plural, str, when } from "../text.js";

// What is looked for outlives the view, like a draft. `found` is null until something was, and is the live copy's where it is newer.
const look = { text: "", thread: "", since: "", until: "", found: null, before: 0, problem: "", busy: false, round: 0 };

const looking = () => look.text.trim() !== "" || look.thread !== "" || look.since !== "" || look.until !== "";

const instant = (local) => (local ? new Date(local).getTime() : 0);

/** Asks for a page of what is looked for: the first, or what comes after those that are there. */
async function search(agent, before = 0) {
  const round = before ? look.round : ++look.round;
  if (!looking()) return void (Object.assign(look, { found: null, problem: "", busy: false }), notify());
  Object.assign(look, { busy: true, problem: "" });
  notify();
  const asked = { text: look.text.trim(), agent, thread: look.thread, since_ms: instant(look.since), until_ms: instant(look.until), before };
  try {
    let said = await get(`/api/messages?${new URLSearchParams(asked)}`);
    // The broker answers before long, if need be with nothing yet: then it goes on from where it has come.
    while (said.messages.length === 0 && said.before && round === look.round) said = await get(`/api/messages?${new URLSearchParams({ ...asked, before: said.before })}`);
    if (round !== look.round) return;
    Object.assign(look, { found: before ? [...look.found, ...said.messages] : said.messages, before: said.before });
  } catch (error) {
    if (round !== look.round) return;
    Object.assign(look, { problem: [error.message, error.hint].filter(Boolean).join(": ") }, before ? {} : { found: [], before: 0 });
  }
  look.busy = false;
  notify();
}

export function Messages({ at }) {
  useHive();
  const mine = unread();
  useEffect(() => void search(at), [at]);
  const rows = look.found ? together(look.found.map((one) => hive.messages.get(`${one.id}/${one.recipient}`) ?? one), at) : together(hive.messages.values(), at);
  const names = agents().map((agent) => agent.name);
  return html`<section aria-labelledby="title">
    <div class="head"><h1 id="title">Messages</h1><p class="sum">${mine.length ? `${plural(mine.length, "message")} to you unread` : "you have read everything"}</p><span class="grow"></span>
      ${mine.length > 0 && html`<${Act} run=${() => post("/api/ack", { ids: mine.map((one) => one.id) })} done="all read">Mark all read</${Act}>`}
    </div>
    <${Look} at=${at} />
    <div class="filter" role="group" aria-label="Whose messages">
      <a class="chip" href="#/messages" aria-current=${at ? null : "true"}>all</a>
      ${["operator", ...names].map((name) => html`<a key=${name} class="chip" href=${`#/messages/${name}`} aria-current=${at === name ? "true" : null}><${Who} name=${name} /></a>`)}
    </div>
    ${look.problem && html`<p class="refused" role="alert"><${Txt} of=${look.problem} /></p>`}
    ${rows.length === 0
      ? look.busy ? html`<p class="dim center" aria-busy="true">looking …</p>` : look.problem ? null : look.found ? html`<p class="dim center">nothing like it was said</p>` : html`<${Empty} title="No messages yet."><p>Write to an agent in the line below. You can see from each message whether it was stored, handed to a turn, seen by the model, and finished.</p></${Empty}>`
      : html`<ol class="mail">${rows.map((copies) => html`<${Message} key=${copies[0].id} copies=${copies} thread=${() => showThread(copies[0], at)} />`)}</ol>`}
    ${look.found ? look.before > 0 && html`<${More} load=${() => search(at, look.before)} />` : rows.length > 0 && html`<${Older} key=${at} at=${at} />`}
  </section>`;
}

function showThread(one, at) {
  Object.assign(look, { text: "", thread: one.root || one.id, since: "", until: "" });
  if (at) location.hash = "#/messages"; // a conversation has two sides
  search("");
}

/** What to look for. While there is nothing in it, the view shows what happens as it happens. */
function Look({ at }) {
  const put = (name) => (event) => (Object.assign(look, { [name]: event.target.value }), notify());
  const now = (name) => (event) => (put(name)(event), search(at));
  const submit = (event) => (event.preventDefault(), search(at));
  const clear = () => (Object.assign(look, { text: "", thread: "", since: "", until: "" }), search(at));
  return html`<form class="look" role="search" onSubmit=${submit}>
    <input type="search" aria-label="Search messages" placeholder='words, "words together", begin*' maxlength="500" autocomplete="off" value=${look.text} onInput=${put("text")} />
    <label><span>from</span><input type="datetime-local" aria-label="Since" value=${look.since} onChange=${now("since")} /></label>
    <label><span>to</span><input type="datetime-local" aria-label="Until" value=${look.until} onChange=${now("until")} /></label>
    <button type="submit" class=${`btn ${look.busy ? "busy" : ""}`} aria-busy=${look.busy}>Search</button>
    ${look.thread && html`<${Chip} kind="violet" title=${look.thread}>one conversation</${Chip}>`}
    ${looking() && html`<button type="button" class="btn quiet" onClick=${clear}>Clear</button>`}
  </form>`;
}

/** One row per message, with a copy for each of its recipients; the newest first. */
export function together(messages, about) {
  const groups = new Map();
  for (const one of messages) {
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

/** `own`: on an agent's page, where there are no buttons for the operator's other mail. `thread` shows its conversation. */
export function Message({ copies, own = false, thread = null }) {
  const [way, setWay] = useState(false);
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
    ${copies.map((copy) => copy.reason && html`<${Reason} key=${copy.recipient} copy=${copy} own=${own} named=${copies.length > 1} />`)}
    <div class="row trail">
      <button type="button" class="link" aria-expanded=${way} onClick=${() => setWay(!way)}>${way ? "hide its way" : "its way"}</button>
      ${thread && (one.hops > 0 || one.kind === "question" || one.kind === "message") && html`<button type="button" class="link" onClick=${thread}>conversation</button>`}
    </div>
    ${way && copies.map((copy) => html`<${Way} key=${copy.recipient} copy=${copy} named=${copies.length > 1} />`)}
    ${toMe && html`<div class="row actions">
      ${one.sender !== "hive" && one.kind !== "question" && html`<button type="button" class="btn small" onClick=${() => compose(one.sender, null, one)}>Reply</button>`}
      ${one.kind === "question" && !own && html`<a class="btn small" href="#/questions">Answer it</a>`}
      ${fresh && one.kind !== "question" && !own && html`<${Act} kind="small quiet" run=${() => post("/api/ack", { ids: [one.id] })}>Mark read</${Act}>`}</div>`}
  </li>`;
}

/** Why it did not arrive, and what can be done about that; or what it waits for. */
function Reason({ copy, own, named }) {
  const whose = named ? `for ${str(copy.recipient)}: ` : "";
  if (copy.state !== "dead") return html`<p class=${copy.state === "stored" ? "held" : "refused"}>${whose}<${Txt} of=${copy.reason} />${copy.state === "stored" && !own && html` <a href="#/questions">Questions</a>`}</p>`;
  const form = { message: copy.id, recipient: copy.recipient };
  const ask = { title: `Drop this message to ${str(copy.recipient)}?`, text: "It is never offered again. It stays in the history.", go: "Drop it", danger: true };
  return html`<div class="refused dead"><span class="grow">${whose}<${Txt} of=${copy.reason} /></span>
    ${!own && html`<${Act} kind="small" run=${() => post("/api/retry", form)} done=${`${copy.recipient} gets it again`}>Retry</${Act}><${Act} kind="small danger" ask=${ask} run=${() => post("/api/drop", form)} done="dropped">Drop</${Act}>`}</div>`;
}

/** Each step on its way to one recipient. A step that was gone back on is still told. */
function Way({ copy, named }) {
  const times = copy.attempts ? plural(copy.attempts, "attempt") : "";
  const steps = [
    ["stored", copy.stored_ms, copy.state === "stored" ? copy.reason : ""],
    ["offered", copy.offered_ms, times],
    ["seen", copy.seen_ms, copy.turn ? `turn ${str(copy.turn)}` : ""],
    ["acked", copy.acked_ms, ""],
    [copy.state, copy.ended_ms, copy.reason],
  ].filter(([, at]) => at);
  return html`<dl class="way" aria-label=${`its way to ${plain(copy.recipient)}`}>${named && html`<dt class="whose">to</dt><dd class="whose"><${Who} name=${copy.recipient} /></dd>`}
    ${steps.map(([name, at, note]) => html`<dt key=${name}>${name}</dt><dd key=${`${name} at`}><time>${exact(at)}</time> ${note && html`<span><${Txt} of=${note} /></span>`}</dd>`)}</dl>`;
}

function More({ load }) {
  return html`<p class="center"><button type="button" class=${`btn quiet ${look.busy ? "busy" : ""}`} aria-busy=${look.busy} onClick=${load}>Older</button></p>`;
}

/** How far down the live copy is whole: it also has unread mail that is older than what it goes back to. */
function edge() {
  const keys = [...hive.messages.values()].map((one) => one.seq).sort((a, b) => b - a);
  const hole = keys.findIndex((key, index) => index > 0 && key < keys[index - 1] - 1);
  return hole < 0 ? keys.at(-1) : keys[hole - 1];
}

/** Older ones than the live copy has, by key: what is said meanwhile moves no page. */
function Older({ at }) {
  const [end, setEnd] = useState(false);
  const [before, setBefore] = useState(0);
  const [busy, setBusy] = useState(false);
  if (end) return html`<p class="dim center">this is where it began</p>`;
  const load = async () => {
    setBusy(true);
    try {
      const from = before || edge();
      const said = await get(`/api/messages?${new URLSearchParams({ agent: at, before: from })}`);
      addMessages(said.messages);
      setBefore(said.before);
      setEnd(!said.before);
    } catch (error) {
      refused(error);
    }
    setBusy(false);
  };
  return html`<p class="center"><button type="button" class=${`btn quiet ${busy ? "busy" : ""}`} aria-busy=${busy} onClick=${load}>Older</button></p>`;
}
