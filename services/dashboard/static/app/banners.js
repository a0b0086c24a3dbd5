// What must not be overlooked, above every view.
import { html } from "./lib.js";
import { useHive } from "./live.js";
import { Txt } from "./text.js";

const LOSES = {
  approvals: "proposals can be neither shown nor decided",
  broker: "no message moves; nothing that was sent is lost",
  gateway: "agents cannot reach the model",
  lifecycle: "cages go on as they are, and cannot be started or stopped",
  updater: "nothing is deployed",
};

export function Banners() {
  const hive = useHive();
  if (!hive.ready) return null;
  const down = hive.connection === "lost" ? [] : [...hive.services.values()].filter((one) => one.state === "down");
  return html`<div class="banners">
    ${hive.connection === "lost" && html`<div class="banner bad" role="alert"><b>Connection lost.</b> What you see may be old; trying again …</div>`}
    ${down.map((one) => html`<div key=${one.name} class="banner bad" role="alert"><b>${one.name} does not answer:</b> ${LOSES[one.name]}.</div>`)}
    ${hive.gateway.mode === "rehearsal" && html`<div class="banner warn"><b>Rehearsal.</b> A scripted stand-in answers for the model; no token is spent. For the real one: <code>hive-admin login</code></div>`}
    ${hive.gateway.last_error && html`<div class="banner bad"><b>The model refuses:</b> <${Txt} of=${hive.gateway.last_error} /></div>`}
  </div>`;
}
