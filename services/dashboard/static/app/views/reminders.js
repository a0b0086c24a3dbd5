// What will still remind whom, and a prompt for an agent at a time.
import { html, useState } from "../lib.js";
import { newId, post } from "../api.js";
import { agents, nowMs, sorted, useHive, useNow } from "../live.js";
import { Act, Ago, Chip, Empty, Who } from "../parts.js";
import { Txt, exact, plain, plural, span, when } from "../text.js";

export function Reminders() {
  const hive = useHive();
  const [scheduling, setScheduling] = useState(false);
  const all = sorted(hive.reminders, (a, b) => a.due_ms - b.due_ms);
  return html`<section aria-labelledby="title">
    <div class="head"><h1 id="title">Reminders</h1><p class="sum">${all.length ? plural(all.length, "reminder") : "nobody is reminded of anything"}</p><span class="grow"></span>
      <button type="button" class="btn primary" onClick=${() => setScheduling(!scheduling)} aria-expanded=${scheduling}>Schedule a prompt</button></div>
    ${scheduling && html`<${Schedule} end=${() => setScheduling(false)} />`}
    ${all.length === 0 && !scheduling && html`<${Empty} title="Nothing is scheduled."><p>Agents remind themselves here, once or again and again, and you can give one of them a prompt for a time of your choice.</p></${Empty}>`}
    ${all.length > 0 && html`<ul class="rows reminders">${all.map((one) => html`<${Row} key=${one.id} one=${one} />`)}</ul>`}
  </section>`;
}

function Row({ one }) {
  const hive = useHive();
  const gone = hive.agents.get(one.agent)?.desired === "destroyed";
  const ask = { title: `End this reminder of ${one.agent}?`, text: one.text.slice(0, 300), go: "End it", danger: true };
  return html`<li><${Who} name=${one.agent} />${one.set_by === "operator" && html`<${Chip} title="you have set it">yours</${Chip}>`}
    <span class="grow" dir="auto"><${Txt} of=${one.text.slice(0, 300)} /></span>
    ${one.cron && html`<${Chip} kind="violet" title=${`${one.cron}\nafter a time when the hive was down: ${MISSED[one.catch_up]}`}><${Txt} of=${one.words} /></${Chip}>`}
    ${one.fired > 0 && html`<span class="dim">fired ${one.fired === 1 ? "once" : `${one.fired} times`}, last <${Ago} at=${one.last_ms} /></span>`}
    ${gone ? html`<span class="countdown" title="it fires when the agent is there again">waits: destroyed</span>` : html`<${Due} at=${one.due_ms} />`}
    <${Act} kind="quiet small" ask=${ask} run=${() => post("/api/cancel-reminder", { reminder: one.id })} done="the reminder is ended">End</${Act}></li>`;
}

function Due({ at }) {
  const left = at - useNow(1000);
  return html`<span class="countdown" title=${exact(at)}>${left > 0 ? `in ${span(left)}` : "due"}</span>`;
}

const MISSED = { once: "one for all that were missed", skip: "what was missed is left out", all: "one for each that was missed" };
const UNITS = { minutes: 60, hours: 3600, days: 86400 };
const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** A day from now, as the browser's field for it wants it: local, to the minute. */
function tomorrow() {
  const at = new Date(nowMs() + 864e5);
  return new Date(at - at.getTimezoneOffset() * 6e4).toISOString().slice(0, 16);
}

const TIMES = {
  after: (form) => ({ after_seconds: Math.round(Number(form.amount) * UNITS[form.unit]) }),
  at: (form) => ({ at_ms: new Date(form.at).getTime() }),
  cron: (form) => ({ cron: form.cron.trim(), zone: form.zone.trim(), catch_up: form.catch_up }),
};

function missing(form, to) {
  if (!to) return "an agent";
  if (!form.text.trim()) return "a prompt";
  if (form.how === "after" && !(Number(form.amount) * UNITS[form.unit] >= 1)) return "a time from now";
  if (form.how === "at" && !(new Date(form.at).getTime() > 0)) return "a date and a time";
  return form.how === "cron" && form.cron.trim().split(/\s+/).length !== 5 ? "the five fields of a cron line" : "";
}

function Schedule({ end }) {
  const [form, setForm] = useState({ agent: "", how: "after", amount: "1", unit: "hours", at: tomorrow(), cron: "0 9 * * MON-FRI", zone: HERE, catch_up: "once", text: "" });
  const [id, setId] = useState(newId()); // of this very order: pressing again after a lost answer schedules nothing twice
  const set = (field) => (event) => (setForm({ ...form, [field]: event.target.value }), setId(newId()));
  const there = agents().filter((agent) => agent.desired !== "destroyed");
  const to = there.some((agent) => agent.name === form.agent) ? form.agent : there[0]?.name ?? "";
  const lacks = missing(form, to);
  const run = async () => {
    const { due_ms } = await post(`/api/agents/${to}/remind`, { id, text: form.text.trim(), ...TIMES[form.how](form) });
    end();
    return due_ms;
  };
  return html`<form class="panel spawn" onSubmit=${(event) => event.preventDefault()}>
    <h2>A prompt at a time</h2>
    <div class="grid">
      <label class="field"><span>Agent</span><select autofocus value=${to} onChange=${set("agent")}>${there.map((agent) => html`<option key=${agent.name} value=${agent.name}>${plain(agent.name)}</option>`)}</select></label>
      <label class="field"><span>When</span><select value=${form.how} onChange=${set("how")}><option value="after">some time from now</option><option value="at">at an instant</option><option value="cron">again and again</option></select></label>
      ${form.how === "after" && html`<label class="field"><span>How many</span><input type="number" min="1" step="any" value=${form.amount} onInput=${set("amount")} /></label>
        <label class="field"><span>of</span><select value=${form.unit} onChange=${set("unit")}>${Object.keys(UNITS).map((unit) => html`<option key=${unit} value=${unit}>${unit}</option>`)}</select></label>`}
      ${form.how === "at" && html`<label class="field"><span>At, on this browser's clock</span><input type="datetime-local" value=${form.at} onInput=${set("at")} /></label>`}
      ${form.how === "cron" && html`<label class="field"><span>Cron line</span><input autocomplete="off" spellcheck=${false} maxlength="100" value=${form.cron} onInput=${set("cron")} /><small>minute, hour, day, month, day of week</small></label>
        <label class="field"><span>Time zone</span><input autocomplete="off" spellcheck=${false} maxlength="64" value=${form.zone} onInput=${set("zone")} /></label>
        <label class="field"><span>After a time when the hive was down</span><select value=${form.catch_up} onChange=${set("catch_up")}>${Object.entries(MISSED).map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}</select></label>`}
    </div>
    <label class="field"><span>Prompt</span><textarea rows="3" maxlength="60000" value=${form.text} onInput=${set("text")} placeholder="What is new in the garden?"></textarea></label>
    <div class="row end">${lacks && html`<span class="dim"><small>it needs ${lacks}</small></span>`}<button type="button" class="btn quiet" onClick=${end}>Cancel</button>
      <${Act} kind="primary" run=${run} done=${(due) => `${to} is reminded ${when(due)}`} disabled=${Boolean(lacks)}>Schedule it</${Act}></div>
  </form>`;
}
