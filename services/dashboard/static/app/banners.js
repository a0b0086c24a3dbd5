// What must not be overlooked, above every view.
import { html } from "./lib.js";
import { rehearsing, useHive } from "./live.js";
import { setLength, useSize } from "./parts.js";
import { Txt } from "./text.js";

const LOSES = {
  approvals: "proposals can be neither shown nor decided",
  broker: "no message moves; nothing that was sent is lost",
  gateway: "agents cannot reach the model",
  lifecycle: "cages go on as they are, and cannot be started or stopped",
  updater: "nothing is deployed",
};

/** The header and the banners, which stay in sight together. What sticks below them asks for their height: --top. */
export function Top({ children }) {
  const box = useSize((element) => setLength("--top", element.getBoundingClientRect().height));
  return html`<div class="above" ref=${box}><header class="top">${children}</header><${Banners} /></div>`;
}

function Banners() {
  const hive = useHive();
  if (!hive.ready) return null;
  const down = hive.connection === "lost" ? [] : [...hive.services.values()].filter((one) => one.state === "down");
  return html`<div class="banners">
    ${hive.connection === "lost" && html`<div class="banner bad" role="alert"><b>Connection lost.</b> What you see may be old; trying again …</div>`}
    ${down.map((one) => html`<div key=${one.name} class="banner bad" role="alert"><b>${one.name} does not answer:</b> ${LOSES[one.name]}.</div>`)}
    ${rehearsing() && html`<div class="banner warn"><b>Rehearsal.</b> <span class="wide">A scripted stand-in answers for the model; no token is spent. For the real one:</span><span class="narrow">No tokens. Real model:</span> <code>hive-admin login</code></div>`}
    ${hive.gateway.last_error && html`<div class="banner bad"><b>The model refuses:</b> <${Txt} of=${hive.gateway.last_error} /></div>`}
  </div>`;
}
