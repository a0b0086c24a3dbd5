// What waits for a decision: first what it would change, then the exact text, last what its author says about it.
import { html, useEffect, useRef, useState } from "../lib.js";
import { get, post } from "../api.js";
import { openProposals, sorted, useHive } from "../live.js";
import { Act, Ago, Chip, DeployTrack, Empty, Who, confirmed } from "../parts.js";
import { Txt, plain, plural, str } from "../text.js";

const RISKS = ["high", "medium", "low", "none"];
const KINDS = { create_agent: "create", change_config: "change" };

export function Approvals({ at }) {
  const hive = useHive();
  const open = openProposals();
  const decided = sorted(hive.proposals, (a, b) => b.number - a.number).filter((one) => one.state !== "proposed");
  // What is shown stays: a proposal that arrives must not slip under the pointer that is about to approve another.
  const shown = useRef("");
  const first = hive.proposals.get(shown.current) ?? open[0] ?? decided[0];
  const number = at.replace(/^0+(?=\d)/, "") || (first ? String(first.number) : ""); // a link may well be to one that is not among the newest
  const chosen = hive.proposals.get(number) ?? null;
  shown.current = number;
  return html`<section aria-labelledby="title">
    <div class="head"><h1 id="title">Approvals</h1><p class="sum">${open.length ? `${plural(open.length, "proposal waits", "proposals wait")} for you` : "nothing waits for you"}</p></div>
    ${!number
      ? html`<${Empty} title="Nothing to decide."><p>When an agent wants another agent, a package or another prompt, the manager proposes it and it waits here, with its exact effect, until you decide.</p></${Empty}>`
      : html`<div class="split">
          <nav class="list" aria-label="Proposals">
            ${open.map((one) => html`<${Item} key=${one.number} one=${one} on=${one === chosen} />`)}
            ${decided.length > 0 && html`<h2 class="divider">decided</h2>`}
            ${decided.map((one) => html`<${Item} key=${one.number} one=${one} on=${one === chosen} />`)}
          </nav>
          <${Detail} key=${number} number=${number} listed=${chosen} />
        </div>`}
    <${Deploys} />
  </section>`;
}

const Item = ({ one, on }) => html`<a class=${`item ${one.state} ${on ? "on" : ""}`} href=${`#/approvals/${one.number}`} aria-current=${on ? "true" : null}>
  <b class="num">#${one.number}</b><span class="what">${KINDS[one.kind] ?? one.kind} <${Who} name=${one.agent} /></span>
  <${Chip} kind=${stateChip(one.state)}>${one.state === "proposed" ? "waits" : one.state}</${Chip}>
  <small class="dim"><${Txt} of=${one.message} /></small></a>`;

const stateChip = (state) => ({ proposed: "warn", approved: "hot", building: "hot", deployed: "good", failed: "bad", denied: "bad" })[state] ?? "";

/** How the operator's part in it ended; where it stands since then is `state`. */
const DECIDED = { denied: "denied", cancelled: "cancelled", expired: "expired", stale: "went stale" };

function Detail({ number, listed }) {
  const [detail, setDetail] = useState(null);
  const [problem, setProblem] = useState(null);
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (!/^\d{1,9}$/.test(number)) return setProblem({ code: "not-found" });
    let current = true;
    get(`/api/proposals/${number}`).then(
      (said) => current && (setDetail(said), setProblem(null)),
      (error) => current && setProblem(error),
    );
    return () => (current = false);
  }, [number, listed?.state, round]);
  const one = listed ?? detail?.proposal;
  if (problem?.code === "not-found" && !one) return html`<div class="panel missing"><p class="refused" role="alert">There is no proposal <${Txt} of=${number} />.</p><p><a href="#/approvals">Show what waits</a></p></div>`;
  if (problem && !detail) return html`<div class="panel"><p class="refused"><${Txt} of=${problem.message} /></p><button type="button" class="btn" onClick=${() => setRound(round + 1)}>Try again</button></div>`;
  if (!detail) return html`<div class="panel loading" aria-busy="true">reading proposal ${number} …</div>`;
  const effect = [...detail.effect].sort((a, b) => RISKS.indexOf(a.risk) - RISKS.indexOf(b.risk));
  const decide = (verb, form) => () => post(`/api/proposals/${one.number}/${verb}`, form);
  const waits = one.state === "proposed";
  return html`<article class="panel detail" aria-label=${`proposal ${one.number}`}>
    <header><h2><span class="num">#${one.number}</span> ${KINDS[one.kind] ?? one.kind} <${Who} name=${one.agent} /><${Chip} kind=${stateChip(one.state)}>${one.state === "proposed" ? "waits for you" : one.state}</${Chip}></h2>
      <p class="dim">asked for by <${Who} name=${one.requester} /> <${Ago} at=${one.created_ms} />${one.decided_ms ? html` · ${DECIDED[one.state] ?? "approved"}${one.decided_by && html` by <${Who} name=${one.decided_by} />`} <${Ago} at=${one.decided_ms} />` : ""}</p></header>
    ${one.reason && html`<p class="refused"><${Txt} of=${one.reason} /></p>`}
    ${waits && detail.blocked && html`<p class="refused"><b>Cannot be approved:</b> <${Txt} of=${detail.blocked} /></p>`}
    <section><h3><span>1</span> What it changes</h3>
      ${effect.length === 0 ? html`<p class="dim">Nothing: the two configurations come to the same.</p>` : html`<ul class="effect">${effect.map((line, index) => html`<${Effect} key=${index} line=${line} />`)}</ul>`}
    </section>
    <section><h3><span>2</span> The exact change</h3>
      ${detail.diff.length === 0 && html`<p class="dim">No file is different.</p>`}
      ${detail.diff.map((file) => html`<${File} key=${file.path} file=${file} />`)}
    </section>
    <section><h3><span>3</span> In ${one.requester === "operator" ? "your" : "the agent's"} own words</h3>
      <p class="words-note">${one.requester === "operator" ? "Written by you." : "Written by an agent. Nobody has checked it; the two parts above are what counts."}</p>
      <blockquote dir="auto"><b><${Txt} of=${one.message} /></b>${detail.rationale && html`<div class="text"><${Txt} of=${detail.rationale} /></div>`}</blockquote>
    </section>
    ${waits && html`<footer class="decide">
      <span class="dim digest" title=${`your decision is bound to ${plain(detail.digest)}`}>bound to ${plain(detail.digest).slice(0, 12)}</span><span class="grow"></span>
      <${Act} kind="danger" run=${() => denied(one, decide)} done=${(said) => (said ? `proposal ${one.number} is denied` : "")}>Deny …</${Act}>
      <${Act} kind="primary big" disabled=${Boolean(detail.blocked)} run=${decide("approve", { digest: detail.digest })} done=${`proposal ${one.number} is approved`}
        ask=${effect.some((line) => line.risk === "high") ? { title: `Approve #${one.number}?`, text: `It has effects of high risk: ${effect.filter((line) => line.risk === "high").map((line) => line.field).join(", ")}.`, go: "Approve", danger: true } : null}>Approve #${one.number}</${Act}>
    </footer>`}
    ${one.tags.length > 0 && html`<p class="tags">${one.tags.map((tag) => html`<${Chip} key=${tag}>${tag}</${Chip}>`)}</p>`}
  </article>`;
}

async function denied(one, decide) {
  const reason = await confirmed({ title: `Deny proposal ${one.number}?`, text: "Whoever asked is told, with your reason.", field: "Reason", go: "Deny", danger: true });
  return reason && decide("deny", { reason })();
}

const Effect = ({ line }) => html`<li class=${`risk-${line.risk}`}>
  <span class="risk">${line.risk === "none" ? "no risk" : line.risk}</span><b><${Txt} of=${line.field} /></b>
  <div class="change">${line.before && html`<del dir="auto"><${Txt} of=${line.before} /></del>`}${line.before && line.after && html`<span class="arrow" aria-label="becomes">→</span>`}${line.after && html`<ins dir="auto"><${Txt} of=${line.after} /></ins>`}</div>
  ${line.note && html`<p class="note"><${Txt} of=${line.note} /></p>`}</li>`;

const lineKind = (line) => (line.startsWith("@@") ? "hunk" : line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : "");

const File = ({ file }) => html`<div class="file"><header><b><${Txt} of=${file.path} /></b><${Chip} kind=${{ added: "good", removed: "bad" }[file.change] ?? ""}>${file.change}</${Chip}></header>
  ${file.warnings.map((warning, index) => html`<p key=${index} class="refused"><${Txt} of=${warning} /></p>`)}
  <pre class="diff" tabindex="0">${file.lines.map((line, index) => html`<div key=${index} class=${lineKind(str(line))}><${Txt} of=${line} />${"\n"}</div>`)}</pre></div>`;

function Deploys() {
  const hive = useHive();
  const all = sorted(hive.deploys, (a, b) => b.started_ms - a.started_ms).slice(0, 12);
  if (all.length === 0) return null;
  return html`<section class="deploys" aria-labelledby="deploys"><h2 id="deploys" class="divider">deploys</h2>
    <ul class="rows">${all.map((one) => html`<li key=${one.id}><${Who} name=${one.agent} /><span class="dim">${one.proposal ? html`<a href=${`#/approvals/${one.proposal}`}>proposal #${one.proposal}</a>` : "rebuild"}</span>
      <${DeployTrack} of=${one} /><span class="dim grow"><${Txt} of=${one.detail} /></span><${Ago} at=${one.updated_ms} /></li>`)}</ul></section>`;
}
