// An agent's way out to the network: what it may reach, what it did, and the end of learning.
import { html, useEffect, useState } from "../lib.js";
import { get, post, toast } from "../api.js";
import { hive } from "../live.js";
import { Act, Chip } from "../parts.js";
import { Txt, clock, exact, plain, plural } from "../text.js";

const MODES = { none: "nothing but the model", allow: "what is listed, and nothing else", learn: "everything public, while it learns" };
const KINDS = { allowed: "good", refused: "bad", failed: "warn" };
const SHOWN = 12;

/** `base`: the agent's address in the API. `home`: where its proposals are. */
export function WayOut({ agent, base, home }) {
  const [found, setFound] = useState(null);
  const [wrong, setWrong] = useState("");
  const used = hive.egress.get(agent.name) ?? 0;
  useEffect(() => {
    let here = true;
    get(`${base}/egress`).then(
      (report) => here && (setFound(report), setWrong("")),
      (error) => here && setWrong(error.message),
    );
    return () => (here = false);
  }, [base, used, agent.revision, agent.egress_mode]);
  if (wrong) return html`<p class="refused"><${Txt} of=${wrong} /></p>`;
  if (!found) return html`<p class="dim">asking …</p>`;
  return html`<div class="way-out">
    <p><${Chip} kind=${found.mode === "learn" ? "warn" : found.mode === "allow" ? "hot" : ""}>${found.mode}</${Chip}> <span class="dim">${found.known ? MODES[found.mode] : "not known yet: nothing is let out"}${found.open > 0 && `, ${plural(found.open, "connection")} open`}</span></p>
    ${found.allow.length > 0 && html`<${Entries} title="may reach" entries=${found.allow} />`}
    ${found.mode === "learn" && html`<${Learned} found=${found} base=${base} home=${home} />`}
    ${found.decisions.length > 0
      ? html`<ol class="decisions" aria-label="what it asked for, the newest first">${found.decisions.slice(0, SHOWN).map((one, index) => html`<${Decision} key=${index} one=${one} />`)}</ol>`
      : html`<p class="dim">It has asked for nothing yet.</p>`}
  </div>`;
}

const Entries = ({ title, entries }) => html`<details class="entries" open=${entries.length <= 6}><summary>${title} (${entries.length})</summary><ul>${entries.map((text) => html`<li key=${text}><code><${Txt} of=${text} /></code></li>`)}</ul></details>`;

function Learned({ found, base, home }) {
  const run = async () => {
    const { number } = await post(`${base}/egress-propose`);
    toast("good", `proposal ${number} waits for you`, "", { to: `${home}#/approvals/${number}`, text: "look at it" });
  };
  return html`${found.learned.length > 0 ? html`<${Entries} title="used so far" entries=${found.learned} />` : html`<p class="dim">It has used nothing so far.</p>`}
    <div class="row"><${Act} kind="primary" run=${run} title="one proposal that lists exactly what was used, and ends the learning">Propose exactly this</${Act}></div>`;
}

function Decision({ one }) {
  const where = one.host ? `${one.host}:${one.port}` : "no host";
  const about = [one.reason, one.address && `to ${one.address}`, one.detail].filter(Boolean).join(", ");
  const moved = one.verdict !== "allowed" ? (one.times > 1 ? `×${one.times}` : "") : `↑${bytes(one.bytes_up)} ↓${bytes(one.bytes_down)}${one.ended_ms ? "" : " …"}`;
  return html`<li title=${plain(about)}>
    <div class="row"><time title=${exact(one.at_ms)}>${clock(one.at_ms)}</time><${Chip} kind=${KINDS[one.verdict]}>${one.verdict}</${Chip}><span class="grow"></span><span class="dim">${moved}</span></div>
    <div class="where"><${Txt} of=${where} /></div>
    ${one.verdict !== "allowed" && html`<small class="dim"><${Txt} of=${one.detail || one.reason} /></small>`}
  </li>`;
}

function bytes(count) {
  if (count < 1000) return `${count}`;
  if (count < 1e6) return `${(count / 1e3).toFixed(count < 1e4 ? 1 : 0)}k`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)}M` : `${(count / 1e9).toFixed(1)}G`;
}
