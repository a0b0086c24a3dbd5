// Who is there, in what state, and the buttons that steer them.
import { html, useState } from "../lib.js";
import { post, toast } from "../api.js";
import { compose } from "../composer.js";
import { agents, hive, rehearsing, useHive } from "../live.js";
import { Act, Ago, Chip, Empty, State, Who, pageUrl, stateKind } from "../parts.js";
import { Txt, count, limits, plain, plural } from "../text.js";
import { WayOut } from "./egress.js";

const FIRST_WORDS = "spawn an agent called iris who draws";

export function Agents() {
  const hive = useHive();
  const [showGone, setShowGone] = useState(false);
  const [spawning, setSpawning] = useState(false);
  const all = agents();
  const here = all.filter((agent) => agent.desired !== "destroyed");
  const gone = all.length - here.length;
  const newcomer = here.length <= 1 && hive.proposals.size === 0;
  return html`<section aria-labelledby="title">
    <div class="head"><h1 id="title">Agents</h1><p class="sum">${summary(here)}</p>
      <span class="grow"></span>
      ${gone > 0 && html`<button type="button" class="btn quiet" aria-pressed=${showGone} onClick=${() => setShowGone(!showGone)}>${showGone ? "hide" : "show"} destroyed (${gone})</button>`}
      <button type="button" class="btn primary" onClick=${() => setSpawning(!spawning)} aria-expanded=${spawning}>Spawn an agent</button>
    </div>
    ${spawning && html`<${Spawn} end=${() => setSpawning(false)} />`}
    ${newcomer && !spawning && html`<${Welcome} manager=${hive.hive.manager} there=${here.length > 0} />`}
    <div class="cards">${(showGone ? all : here).map((agent) => html`<${Card} key=${agent.name} agent=${agent} />`)}</div>
  </section>`;
}

function summary(here) {
  const running = here.filter((agent) => agent.state === "running").length;
  const troubled = here.filter((agent) => ["bad", "unknown"].includes(stateKind(agent.state))).length;
  return [plural(here.length, "agent"), running && `${running} in a turn`, troubled && `${troubled} in trouble`].filter(Boolean).join(" · ");
}

const Welcome = ({ manager, there }) => html`<${Empty} title=${there ? "Your hive is awake." : "The hive is waking up."}>
  ${there
    ? html`<p>It has one agent, its manager. Ask it for another one. Try:</p>
      <button type="button" class="try" onClick=${() => compose(manager, FIRST_WORDS)}><span>message ${manager}:</span> “${FIRST_WORDS}”</button>
      <p class="dim">It will propose the agent. You see under Approvals exactly what that would change, and nothing happens before you approve it.</p>`
    : html`<p>Its manager is being started. This takes a few seconds.</p>`}
</${Empty}>`;

// While somebody else has the agent's port there is no link to it: whoever listens there would get the session's cookie.
function Card({ agent }) {
  const act = (verb, form) => () => post(`/api/agents/${agent.name}/${verb}`, form);
  const gone = agent.desired === "destroyed";
  const held = agent.holds.includes("operator");
  return html`<article class=${`card ${stateKind(agent.state)}`} aria-label=${agent.name}>
    <header><${Who} name=${agent.name} big />${agent.manager && html`<${Chip} kind="violet">manager</${Chip}>`}<span class="grow"></span><${State} of=${agent.state} title=${agent.why} /></header>
    <p class="status" dir="auto">${agent.status ? html`“<${Txt} of=${agent.status} />”` : html`<span class="dim"><${Txt} of=${agent.why || "says nothing about itself"} /></span>`}</p>
    ${agent.status && agent.why && html`<p class="why"><${Txt} of=${agent.why} /></p>`}
    <div class="chips">
      <${Chip} title=${agent.model === agent.spec_model ? "model, as configured" : `model chosen at run time; configured is ${agent.spec_model}`}>${plain(agent.model)}${agent.model !== agent.spec_model && " *"}</${Chip}>
      <${Chip} title="the proposal its configuration came from">${agent.revision ? `config #${agent.revision}` : "built-in config"}</${Chip}>
      ${agent.unacked > 0 && html`<${Chip} kind="warn" title="messages that no turn has finished yet">${agent.unacked} unacked</${Chip}>`}
      ${agent.usage && html`<${Chip} title=${`${plural(agent.usage.requests, "request")}, ${agent.usage.input_tokens} tokens in, ${agent.usage.output_tokens} out, ${plural(agent.usage.errors, "error")}`}>${count(agent.usage.input_tokens + agent.usage.output_tokens)} tokens${rehearsing() ? " rehearsed" : ""}</${Chip}>`}
      ${agent.deploy_step && html`<${Chip} kind="hot">deploying: ${agent.deploy_step}</${Chip}>`}
      ${!gone && agent.egress_mode === "learn" && html`<${Chip} kind="warn" title="everything on the internet can be reached while it learns; see More">network: learning</${Chip}>`}
      ${agent.holds.includes("update") && html`<${Chip} kind="warn">draining for an update</${Chip}>`}
      ${held && agent.state !== "paused" && html`<${Chip} kind="warn">pausing after this turn</${Chip}>`}
      ${agent.page_problem && html`<${Chip} kind="bad" title=${agent.page_problem}>no page: port ${agent.page_port}</${Chip}>`}
    </div>
    <footer>
      ${!gone && html`<button type="button" class="btn" onClick=${() => compose(agent.name)}>Message</button>
        ${!agent.page_problem && html`<a class="btn" href=${pageUrl(agent)} target="_blank" rel="noopener" title=${`its own page, on port ${agent.page_port}`}>Page <span class="port">:${agent.page_port}</span> ↗</a>`}
        <${Act} run=${act("hold", { held: !held })} done=${held ? `${agent.name} goes on` : `${agent.name} pauses after its turn`}>${held ? "Resume" : "Pause"}</${Act}>
        ${agent.desired === "running" && agent.cage !== "broken"
          ? html`<${Act} run=${act("stop")} done=${`${agent.name} stops`} ask=${{ title: `Stop ${agent.name}?`, text: "Its cage ends now, also in mid-turn. Its mail waits and is given to it again when it is started.", go: "Stop", danger: true }}>Stop</${Act}>`
          : html`<${Act} kind="primary" run=${act("start")} done=${`${agent.name} starts`}>${agent.cage === "broken" ? "Try again" : "Start"}</${Act}>`}`}
      <${More} agent=${agent} act=${act} gone=${gone} />
    </footer>
  </article>`;
}

function More({ agent, act, gone }) {
  const [open, setOpen] = useState(false);
  return html`<details class="more" onToggle=${(event) => setOpen(event.target.open)}><summary class="btn quiet">${gone ? "About" : "More"}</summary>
    <div class="sheet">
      ${!gone && html`<div class="row">
        <${Act} run=${act("interrupt")} disabled=${agent.state !== "running"} title=${agent.state === "running" ? "" : "no turn runs"} done=${`${agent.name}'s turn is interrupted`} ask=${{ title: `Interrupt ${agent.name}?`, text: "The running turn ends where it is. What it has done stays done.", go: "Interrupt", danger: true }}>Interrupt</${Act}>
        <${Act} run=${act("restart")} done=${`${agent.name} restarts`} ask=${{ title: `Restart ${agent.name}?`, text: "A running turn is cut off; its mail is given to it again.", go: "Restart", danger: true }}>Restart</${Act}>
        <${Act} run=${act("rebuild")} done=${`${agent.name} is rebuilt after its turn`}>Rebuild</${Act}>
        ${!agent.manager && html`<${Act} kind="danger" run=${act("destroy", { confirm: agent.name })} done=${`${agent.name} is destroyed`} ask=${{ title: `Destroy ${agent.name}?`, text: "Its cage ends and it can no longer be written to. Its mail, its /state and its configuration are kept: an agent of the same name brings it back.", go: "Destroy", danger: true, type: agent.name }}>Destroy</${Act}>`}
      </div>`}
      ${gone && html`<div class="row">
        <${Act} kind="danger" run=${act("purge", { confirm: agent.name })} done=${`${agent.name} is being purged`} ask=${{ title: `Purge ${agent.name}?`, text: "Its mail, questions, reminders and its /state are removed for ever. Only its configuration is kept, in the archive. There is no way back.", go: "Purge", danger: true, type: agent.name }}>Purge</${Act}>
      </div>`}
      <dl class="facts">
        <dt>cage</dt><dd>${agent.cage}, ${agent.cage_kind}, wanted ${agent.desired}</dd>
        <dt>generation</dt><dd>${agent.generation}, since <${Ago} at=${agent.since_ms} /></dd>
        <dt>at most</dt><dd>${limits(agent.limits)}</dd>
        <dt>confined by</dt><dd>${agent.controls.join(", ") || "nothing"}</dd>
        <dt>packages</dt><dd>${agent.packages.join(", ") || "none of its own"}</dd>
        <dt>may write to</dt><dd>${agent.allowed_recipients ? agent.allowed_recipients.join(", ") || "nobody" : "everybody"}</dd>
        ${agent.env_names.length > 0 && html`<dt>environment</dt><dd>${agent.env_names.join(", ")}</dd>`}
        ${agent.mcp_servers.length > 0 && html`<dt>MCP servers</dt><dd>${agent.mcp_servers.join(", ")}</dd>`}
        <dt>harness</dt><dd>${agent.connected ? `connected, ${plain(agent.version)}` : "not connected"}</dd>
        <dt>way out</dt><dd>${open && !gone ? html`<${WayOut} agent=${agent} base=${`/api/agents/${agent.name}`} home="/" />` : agent.egress_mode}</dd>
      </dl>
    </div>
  </details>`;
}

function badName(name) {
  if (!name) return "";
  if (hive.agents.has(name) && hive.agents.get(name).desired !== "destroyed") return `there is an agent ${name} already`;
  if (/[^a-z0-9-]/.test(name)) return "only small letters, digits and -";
  if (!/^[a-z]/.test(name)) return "a letter comes first";
  return name.endsWith("-") ? "no - at the end" : "";
}

function Spawn({ end }) {
  const [form, setForm] = useState({ agent: "", model: "haiku", packages: "", prompt: "" });
  const set = (field) => (event) => setForm({ ...form, [field]: event.target.value });
  const wrong = badName(form.agent);
  const missing = [!form.agent && "a name", !form.prompt.trim() && "a prompt"].filter(Boolean).join(" and ");
  const run = async () => {
    const packages = form.packages.split(/[\s,]+/).filter(Boolean);
    const { number } = await post("/api/spawn", { agent: form.agent, prompt: form.prompt.trim(), model: form.model.trim(), packages });
    toast("good", `proposal ${number} waits for you`, "", { to: `#/approvals/${number}`, text: "look at it" });
    end();
  };
  return html`<form class="panel spawn" onSubmit=${(event) => event.preventDefault()}>
    <h2>A new agent</h2>
    <div class="grid">
      <label class="field"><span>Name</span><input autofocus autocomplete="off" spellcheck=${false} maxlength="31" placeholder="iris" value=${form.agent} onInput=${set("agent")} aria-invalid=${wrong ? "true" : null} aria-describedby="name-hint" /><small id="name-hint" class=${wrong ? "wrong" : ""} role="status">${wrong || "small letters, digits and -"}</small></label>
      <label class="field"><span>Model</span><input autocomplete="off" spellcheck=${false} list="models" value=${form.model} onInput=${set("model")} /><datalist id="models"><option value="haiku" /><option value="sonnet" /><option value="opus" /></datalist></label>
      <label class="field"><span>Packages</span><input autocomplete="off" spellcheck=${false} placeholder="imagemagick git" value=${form.packages} onInput=${set("packages")} /></label>
    </div>
    <label class="field"><span>Prompt: who it is and what it does</span><textarea rows="5" value=${form.prompt} onInput=${set("prompt")} placeholder="You are iris. You draw …"></textarea></label>
    <div class="row end">${(wrong || missing) && html`<span class="dim"><small>${wrong ? "the name is not right yet" : `it needs ${missing}`}</small></span>`}<button type="button" class="btn quiet" onClick=${end}>Cancel</button><${Act} kind="primary" run=${run} disabled=${Boolean(wrong || missing)}>Propose it</${Act}></div>
  </form>`;
}
