// One agent's own page. What the cage says (transcript, state) is shown; what the operator does goes to the dashboard.
import { html, render, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { get, post, refused } from "./api.js";
import { Top } from "./banners.js";
import { Composer } from "./composer.js";
import { hive, notify, openQuestions, rehearsing, start, useHive } from "./live.js";
import { Act, Ago, Body, Chip, Dialogs, Empty, State, Toasts, Who } from "./parts.js";
import { Txt, clock, count, exact, limits, plain, plural, span, str } from "./text.js";
import { WayOut } from "./views/egress.js";
import { Message, together } from "./views/messages.js";
import { Open } from "./views/questions.js";

const ENTRIES_MAX = 1500;
const entries = new Map(); // by number
let away = "";
let more = true;
let stream = null;

const object = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});
const list = (value) => (Array.isArray(value) ? value : []);
const number = (value) => (Number.isSafeInteger(value) ? value : 0);

// ---- what the cage says

function add(found) {
  for (const raw of list(found)) {
    const entry = object(raw);
    if (number(entry.seq) > 0) entries.set(entry.seq, { seq: entry.seq, at: number(entry.at_ms), turn: str(entry.turn), kind: str(entry.kind), body: object(entry.body) });
  }
  while (entries.size > ENTRIES_MAX) entries.delete(Math.min(...entries.keys()));
  notify();
}

const newest = () => Math.max(0, ...entries.keys());
const oldest = () => Math.min(...entries.keys());

async function catchUp() {
  try {
    const said = object(await get("/api/transcript"));
    add(said.entries);
    more = list(said.entries).length >= 100;
    away = "";
  } catch (error) {
    away = error.message;
  }
  notify();
}

async function older() {
  try {
    const said = object(await get(`/api/transcript?before=${oldest()}`));
    more = list(said.entries).length >= 100;
    add(said.entries);
  } catch (error) {
    refused(error);
  }
}

function follow() {
  stream?.close();
  stream = new EventSource(`/events/stream?after=${newest()}`);
  stream.addEventListener("transcript", (event) => add([JSON.parse(event.data)]));
  stream.addEventListener("state", (event) => ((hive.page = object(JSON.parse(event.data))), notify()));
  stream.addEventListener("here", () => ((away = ""), entries.size ? notify() : catchUp()));
  stream.addEventListener("away", (event) => ((away = str(JSON.parse(event.data).message)), notify()));
  stream.addEventListener("reset", catchUp);
  stream.onerror = () => stream.readyState === EventSource.CLOSED && setTimeout(follow, 2000);
}

// ---- the page

function App() {
  useHive();
  const agent = [...hive.agents.values()][0];
  useEffect(() => {
    if (agent) document.title = `${agent.name} · hyperhive`;
  }, [agent?.name]);
  const home = `${location.protocol}//${location.hostname}:${hive.hive.dashboard_port}/`;
  return html`<${Top}><a class="logo" href=${hive.ready ? home : null} title="back to the hive"><span class="mark" aria-hidden="true"></span><b>hyperhive</b></a>
      ${agent && html`<${Who} name=${agent.name} big /><${State} of=${agent.state} title=${agent.why} /><${ToSide} agent=${agent} />`}<span class="grow"></span>
      <div class="pulse"><span class=${`pip conn ${hive.connection === "live" ? "up" : "down"}`}><i aria-hidden="true"></i><b>${hive.connection}</b></span></div>
      ${hive.ready && html`<a class="btn quiet small back" href=${home}>← hive</a>`}</${Top}>
    <main id="main">${!hive.ready ? html`<p class="loading">reaching the hive …</p>` : agent ? html`<${Transcript} agent=${agent} /><${Side} agent=${agent} />` : html`<${Empty} title="This agent is gone."><p><a href=${home}>Back to the hive</a></p></${Empty}>`}</main>
    ${agent && agent.desired !== "destroyed" && html`<${Composer} only=${agent.name} />`}
    <${Toasts} /><${Dialogs} />`;
}

const asked = (agent) => openQuestions().filter((one) => one.asker === agent.name && one.recipient === "operator");

/** On a phone, where what is beside the transcript stands above it, far from its end. */
function ToSide({ agent }) {
  const waiting = asked(agent).length;
  const go = () => {
    const side = document.querySelector(".side");
    side.scrollIntoView();
    side.focus({ preventScroll: true });
  };
  return html`<button type="button" class=${`chip to-side ${waiting ? "warn" : ""}`} onClick=${go}>${waiting ? plural(waiting, "question") : "about"} ↑</button>`;
}

// Whether one reads at the end. Known before a render: after it what is new has already pushed the end away.
const END_PIXELS = 120;
let atEnd = true;
const look = () => {
  const page = document.scrollingElement;
  atEnd = page.scrollHeight - page.scrollTop - page.clientHeight < END_PIXELS;
};
addEventListener("scroll", look, { passive: true });
document.addEventListener("toggle", () => requestAnimationFrame(look), true);

function Transcript({ agent }) {
  const all = [...entries.values()].sort((a, b) => a.seq - b.seq);
  const results = new Map(all.flatMap((entry) => toolResults(entry)).map((result) => [result.id, result]));
  const shown = all.map((entry) => html`<${Entry} key=${entry.seq} entry=${entry} results=${results} />`);
  useLayoutEffect(() => {
    // Read like a chat: at the end when it opens, and following while one is at the end.
    const page = document.scrollingElement;
    if (atEnd) page.scrollTop = page.scrollHeight;
  }, [newest()]);
  return html`<section aria-label="transcript">
    ${away && html`<p class="refused"><${Txt} of=${away} /></p>`}
    ${all.length === 0
      ? html`<${Empty} title=${`${agent.name} has not had a turn yet.`}><p>Write to it in the line below. What the model says, thinks and does appears here as it happens.</p></${Empty}>`
      : html`${more && html`<p class="center"><${Act} kind="quiet" run=${older}>Older</${Act}></p>`}<div class="turns">${shown}</div>`}
  </section>`;
}

// ---- one event of the CLI

function Entry({ entry, results }) {
  const { body } = entry;
  const blocks = contentOf(body);
  if (body.type === "assistant") return html`<div class="turns">${blocks.map((block, index) => html`<${Block} key=${index} block=${object(block)} results=${results} at=${entry.at} />`)}</div>`;
  if (body.type === "user") return html`<${Given} blocks=${blocks} at=${entry.at} />`;
  if (body.type === "result") return html`<${TurnEnd} body=${body} at=${entry.at} />`;
  if (body.type === "system" && body.subtype === "init") return html`<div class="turn-head"><span title=${exact(entry.at)}>${clock(entry.at)}</span><b>turn</b><span><${Txt} of=${body.model} /></span></div>`;
  if (body.type === "system" && !NOISE.has(str(body.subtype))) return html`<${Fold} name=${str(body.subtype) || "system"} brief=${typeof body.error === "string" ? body.error : ""} failed=${/error|retry|fail/.test(str(body.subtype))}><pre><${Txt} of=${body} /></pre></${Fold}>`;
  return null;
}

const NOISE = new Set(["init", "session_state_changed", "command_lifecycle", "status", "hook_started", "hook_response"]);

function contentOf(body) {
  const content = object(body.message).content;
  return typeof content === "string" ? [{ type: "text", text: content }] : list(content);
}

function toolResults(entry) {
  if (entry.body.type !== "user") return [];
  return contentOf(entry.body).map(object).filter((block) => block.type === "tool_result").map((block) => ({ id: str(block.tool_use_id), text: textOf(block.content), failed: block.is_error === true }));
}

const textOf = (content) => (typeof content === "string" ? content : list(content).map((part) => (object(part).type === "text" ? str(part.text) : `[${str(object(part).type)}]`)).join("\n"));

function Block({ block, results, at }) {
  if (block.type === "text") return html`<div class="say"><${Body} text=${block.text} open /></div>`;
  if (block.type === "thinking" || block.type === "redacted_thinking") return html`<${Fold} kind="thinking" name="thinking" brief=${str(block.thinking).slice(0, 120)}><pre dir="auto"><${Txt} of=${block.thinking || "not shown by the model"} /></pre></${Fold}>`;
  if (block.type !== "tool_use") return html`<${Fold} name=${str(block.type)} brief=""><pre><${Txt} of=${block} /></pre></${Fold}>`;
  const result = results.get(str(block.id));
  const brief = Object.entries(object(block.input)).map(([key, value]) => `${key}: ${str(value).replace(/\s+/g, " ")}`).join("  ").slice(0, 200);
  return html`<${Fold} name=${str(block.name).replace(/^mcp__/, "").replace("__", " · ")} brief=${brief} failed=${result?.failed} waiting=${!result} at=${at}>
    <h4>asked</h4><pre dir="auto"><${Txt} of=${block.input} /></pre><h4>${result ? (result.failed ? "error" : "answer") : "no answer yet"}</h4>${result && html`<pre dir="auto"><${Txt} of=${result.text} /></pre>`}</${Fold}>`;
}

function Fold({ kind = "", name, brief, failed = false, waiting = false, at = 0, children }) {
  const [open, setOpen] = useState(false);
  return html`<details class=${`fold ${kind} ${failed ? "failed" : ""}`} onToggle=${(event) => setOpen(event.target.open)}>
    <summary title=${exact(at)}><span class="name"><${Txt} of=${name} /></span><span class="brief"><${Txt} of=${brief} /></span>${failed && html`<${Chip} kind="bad">error</${Chip}>`}${waiting && html`<${Chip} kind="hot">running</${Chip}>`}</summary>
    ${open && children}</details>`;
}

const MAIL = /<message ([^>]*)>\n([\s\S]*?)\n<\/message>/g;
const attribute = (text, name) => unescaped(new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(text)?.[1] ?? "");
const unescaped = (text) => text.replace(/&(lt|gt|quot|#x27|amp);/g, (_, name) => ({ lt: "<", gt: ">", quot: '"', "#x27": "'", amp: "&" })[name]);

/** What the model was given: mail, shown as such; or what a tool answered, which is shown with its call. */
function Given({ blocks, at }) {
  const text = blocks.map(object).filter((block) => block.type === "text").map((block) => str(block.text)).join("\n");
  if (!text) return null;
  const mails = [...text.matchAll(MAIL)];
  if (mails.length === 0) return html`<div class="given"><div class="meta"><time title=${exact(at)}>${clock(at)}</time><span class="dim">given to the model</span></div><${Body} text=${text} /></div>`;
  return mails.map((mail, index) => html`<div key=${index} class="given"><div class="meta"><time title=${exact(at)}>${clock(at)}</time><${Who} name=${attribute(mail[1], "from")} />${attribute(mail[1], "kind") !== "message" && html`<${Chip}>${plain(attribute(mail[1], "kind"))}</${Chip}>`}${attribute(mail[1], "attempt") && html`<${Chip} kind="warn">attempt ${plain(attribute(mail[1], "attempt"))}</${Chip}>`}</div><${Body} text=${mail[2].replace(/&lt;(\/?message)/g, "<$1")} /></div>`);
}

function TurnEnd({ body, at }) {
  const bad = body.is_error === true;
  const usage = object(body.usage);
  return html`<div class=${`turn-end ${bad ? "bad" : ""}`}><span title=${exact(at)}>${clock(at)}</span><span>${bad ? "turn failed" : "turn ended"}${str(body.subtype) !== "success" && body.subtype ? html`: <${Txt} of=${str(body.terminal_reason || body.subtype).replaceAll("_", " ")} />` : ""}</span>
    <span>${count(number(usage.input_tokens) + number(usage.cache_read_input_tokens))} in, ${count(number(usage.output_tokens))} out</span>${number(body.duration_ms) > 0 && html`<span>${body.duration_ms < 10000 ? `${(body.duration_ms / 1000).toFixed(1)}s` : span(body.duration_ms)}</span>`}${bad && html`<span><${Txt} of=${str(body.result).slice(0, 500)} /></span>`}</div>`;
}

// ---- beside it

function Side({ agent }) {
  const page = object(hive.page);
  const model = object(page.model);
  const [choice, setChoice] = useState("");
  const usage = object(page.usage);
  const held = agent.holds.includes("operator");
  const act = (verb, form) => () => post(`/api/${verb}`, form);
  const mail = together(hive.messages.values(), agent.name).slice(0, 12);
  const side = useRef(null);
  // More below than fits is shown by a fade, which goes when its end is reached.
  const fade = () => side.current.classList.toggle("below", side.current.scrollHeight - side.current.scrollTop - side.current.clientHeight > 8);
  useLayoutEffect(fade);
  useEffect(() => (addEventListener("resize", fade), () => removeEventListener("resize", fade)), []);
  return html`<aside class="side" ref=${side} onScroll=${fade} tabindex="-1" aria-label=${`about ${agent.name}`}>
    ${asked(agent).map((one) => html`<${Open} key=${one.id} one=${one} />`)}
    <section class="panel"><h2>state</h2>
      <p><${State} of=${agent.state} /> ${agent.why && html`<span class="dim"><${Txt} of=${agent.why} /></span>`}</p>
      ${agent.status && html`<p dir="auto">“<${Txt} of=${agent.status} />”</p>`}
      ${page.last_error && html`<p class="refused"><${Txt} of=${page.last_error} /></p>`}
      <dl class="facts">
        <dt>cage</dt><dd>${agent.cage}, ${agent.cage_kind}, generation ${agent.generation}</dd>
        <dt>config</dt><dd>${agent.revision ? `proposal #${agent.revision}` : "built in"}</dd>
        <dt>up since</dt><dd><${Ago} at=${agent.since_ms} /></dd>
        <dt>mail</dt><dd>${agent.unacked} not finished</dd>
        <dt>used</dt><dd>${plural(number(usage.turns), "turn")}, ${count(number(usage.input_tokens) + number(usage.cache_read_tokens))} in, ${count(number(usage.output_tokens))} out${rehearsing() ? ", rehearsed" : ""}</dd>
        <dt>at most</dt><dd>${limits(agent.limits)}</dd>
        <dt>confined by</dt><dd>${agent.controls.join(", ") || "nothing"}</dd>
      </dl>
      <div class="row">
        <${Act} run=${act("hold", { held: !held })} done=${held ? "it goes on" : "it pauses after its turn"}>${held ? "Resume" : "Pause"}</${Act}>
        <${Act} run=${act("interrupt")} done="interrupted" disabled=${agent.state !== "running"} ask=${{ title: "Interrupt the turn?", text: "It ends where it is. What it has done stays done.", go: "Interrupt", danger: true }}>Interrupt</${Act}>
        <${Act} run=${act("restart")} done="it restarts" ask=${{ title: `Restart ${agent.name}?`, text: "A running turn is cut off; its mail is given to it again.", go: "Restart", danger: true }}>Restart</${Act}>
        ${agent.desired === "running"
          ? html`<${Act} kind="danger" run=${act("stop")} done="it stops" ask=${{ title: `Stop ${agent.name}?`, text: "Its cage ends now, also in mid-turn. Its mail waits.", go: "Stop", danger: true }}>Stop</${Act}>`
          : html`<${Act} kind="primary" run=${act("start")} done="it starts">Start</${Act}>`}
      </div></section>
    <section class="panel"><h2>model</h2>
      <p>${plain(model.current || agent.model)}${model.current && model.current !== model.option && html` <span class="dim">(configured: <${Txt} of=${model.option} />)</span>`}</p>
      <div class="model"><input aria-label="another model" list="models" placeholder="sonnet" autocomplete="off" spellcheck=${false} value=${choice} onInput=${(event) => setChoice(event.target.value)} /><datalist id="models"><option value="haiku" /><option value="sonnet" /><option value="opus" /></datalist>
        <${Act} run=${async () => (await post("/api/model", { model: choice.trim() }), setChoice(""))} done="the next request uses it" disabled=${!choice.trim()}>Switch</${Act}></div>
      <p class="dim"><small>Kept until the configured model changes.</small></p></section>
    <section class="panel"><h2>way out</h2><${WayOut} agent=${agent} base="/api" home=${`${location.protocol}//${location.hostname}:${hive.hive.dashboard_port}/`} /></section>
    ${mail.length > 0 && html`<section class="panel"><h2>mail</h2><ol class="mail">${mail.map((copies) => html`<${Message} key=${copies[0].id} copies=${copies} own />`)}</ol></section>`}
  </aside>`;
}

document.body.classList.add("agent-page");
start("/events/hive");
catchUp().then(follow);
render(html`<${App} />`, document.getElementById("app"));
