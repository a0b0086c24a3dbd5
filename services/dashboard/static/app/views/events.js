// Everything that happens, as it happens.
import { html, useLayoutEffect, useRef, useState } from "../lib.js";
import { useHive } from "../live.js";
import { Empty, Who } from "../parts.js";
import { Txt, clock, exact, plural } from "../text.js";

const SERVICES = ["broker", "lifecycle", "approvals", "updater", "gateway"];

export function Events() {
  const hive = useHive();
  const [off, setOff] = useState(new Set());
  const [trace, setTrace] = useState(false);
  const [frozen, setFrozen] = useState(null);
  const lines = (frozen ?? hive.lines).filter((one) => !off.has(one.service) && (trace || one.level !== "trace"));
  const toggle = (name) => setOff(new Set(off.has(name) ? [...off].filter((one) => one !== name) : [...off, name]));
  const end = useRef(null);
  const list = useRef(null);
  const stuck = useRef(true);
  const put = useRef(0);
  useLayoutEffect(() => {
    if (!stuck.current || !list.current) return;
    // The scroll event comes a frame after the scrolling: a line that is drawn in between must not pull the reader down.
    if (list.current.scrollTop < Math.min(put.current, list.current.scrollHeight - list.current.clientHeight) - 40) return void (stuck.current = false);
    list.current.scrollTop = list.current.scrollHeight;
    put.current = list.current.scrollTop;
  }, [lines.length, lines.at(-1)?.id]);
  const scrolled = () => (stuck.current = list.current.scrollHeight - list.current.scrollTop - list.current.clientHeight < 40);
  return html`<section class="events" aria-labelledby="title">
    <div class="head"><h1 id="title">Events</h1><p class="sum">${plural(lines.length, "line")}${frozen ? ", held still" : ""}</p><span class="grow"></span>
      <button type="button" class="btn quiet" aria-pressed=${Boolean(frozen)} onClick=${() => setFrozen(frozen ? null : hive.lines)}>${frozen ? "Go on" : "Hold still"}</button></div>
    <div class="filter" role="group" aria-label="Which events">
      ${SERVICES.map((name) => html`<button key=${name} type="button" class="chip" aria-pressed=${!off.has(name)} onClick=${() => toggle(name)}>${name}</button>`)}
      <button type="button" class="chip" aria-pressed=${trace} onClick=${() => setTrace(!trace)}>every step</button>
    </div>
    ${lines.length === 0
      ? html`<${Empty} title="Quiet."><p>Nothing has happened since the dashboard was started. It shows here what comes.</p></${Empty}>`
      : html`<ol class="log" ref=${list} onScroll=${scrolled} tabindex="0" aria-label="events, the newest last">${lines.map((one) => html`<li key=${one.id} class=${one.level}><time title=${exact(one.at_ms)}>${clock(one.at_ms)}</time><span class=${`from ${one.service}`}>${one.service}</span><span class="text" dir="auto"><${Txt} of=${one.text} /></span></li>`)}<li ref=${end} class="tail" aria-hidden="true">▍</li></ol>`}
  </section>`;
}
