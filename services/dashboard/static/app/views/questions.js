// What agents want to know, with how long they will wait.
import { html, useState } from "../lib.js";
import { post } from "../api.js";
import { openQuestions, sorted, useHive } from "../live.js";
import { Act, Ago, Body, Chip, Countdown, Empty, Who } from "../parts.js";
import { Txt, plural } from "../text.js";

export function Questions() {
  const hive = useHive();
  const open = openQuestions();
  const mine = open.filter((one) => one.recipient === "operator");
  const others = open.filter((one) => one.recipient !== "operator");
  const closed = sorted(hive.questions, (a, b) => (b.answered_ms || b.deadline_ms) - (a.answered_ms || a.deadline_ms)).filter((one) => one.state !== "open").slice(0, 20);
  return html`<section aria-labelledby="title">
    <div class="head"><h1 id="title">Questions</h1><p class="sum">${mine.length ? `${plural(mine.length, "question waits", "questions wait")} for your answer` : "nobody waits for you"}</p></div>
    ${hive.questions.size === 0 && html`<${Empty} title="Nobody asks anything."><p>An agent that needs a decision asks here, with choices and a deadline where it has them, and goes on with other work until you answer.</p></${Empty}>`}
    <div class="cards wide">${mine.map((one) => html`<${Open} key=${one.id} one=${one} />`)}</div>
    ${others.length > 0 && html`<h2 class="divider">between agents</h2><ul class="rows">${others.map((one) => html`<li key=${one.id}><span class="route"><${Who} name=${one.asker} /><span class="arrow">→</span><${Who} name=${one.recipient} /></span><span class="grow" dir="auto"><${Txt} of=${one.text.slice(0, 300)} /></span><${Countdown} from=${one.asked_ms} to=${one.deadline_ms} /></li>`)}</ul>`}
    ${closed.length > 0 && html`<h2 class="divider">closed</h2><ul class="rows">${closed.map((one) => html`<${Closed} key=${one.id} one=${one} />`)}</ul>`}
  </section>`;
}

export function Open({ one }) {
  const [text, setText] = useState("");
  const enter = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    event.target.form.querySelector("button").click();
  };
  const answer = (said) => () => post("/api/answer", { question: one.id, text: said });
  return html`<article class="card question warn" aria-label=${`question of ${one.asker}`}>
    <header><${Who} name=${one.asker} big /><span class="dim">asked <${Ago} at=${one.asked_ms} /></span><span class="grow"></span><${Countdown} from=${one.asked_ms} to=${one.deadline_ms} /></header>
    <${Body} text=${one.text} open />
    ${one.default && html`<p class="dim">Without an answer it goes on with <b dir="auto"><${Txt} of=${one.default} /></b>.</p>`}
    ${one.choices.length > 0
      ? html`<div class="choices">${one.choices.map((choice, index) => html`<${Act} key=${index} kind="choice" run=${answer(choice)} done=${`answered ${one.asker}: ${choice}`}><span dir="auto"><${Txt} of=${choice} /></span></${Act}>`)}</div>`
      : html`<form class="answer" onSubmit=${(event) => event.preventDefault()}><textarea rows="2" maxlength="60000" aria-label=${`answer to ${one.asker}`} placeholder="your answer" value=${text} onInput=${(event) => setText(event.target.value)} onKeyDown=${enter}></textarea>
          <${Act} kind="primary" run=${answer(text.trim())} done=${`answered ${one.asker}`} disabled=${!text.trim()}>Answer</${Act}></form>`}
  </article>`;
}

const Closed = ({ one }) => html`<li><span class="route"><${Who} name=${one.asker} /><span class="arrow">→</span><${Who} name=${one.recipient} /></span>
  <span class="grow" dir="auto"><span class="dim"><${Txt} of=${one.text.slice(0, 200)} /></span> <${Outcome} one=${one} /></span>
  <${Chip} kind=${one.state === "answered" ? "good" : "warn"}>${one.state}${one.answered_by && one.answered_by !== one.recipient ? ` by ${one.answered_by}` : ""}</${Chip}><${Ago} at=${one.answered_ms || one.deadline_ms} /></li>`;

/** What nobody answered has no answer, even where the asker went on with its default. */
function Outcome({ one }) {
  if (one.state === "answered") return html`<b><${Txt} of=${one.answer.slice(0, 300)} /></b>`;
  return html`<em class="dim">no answer${one.default && html`; it went on with “<${Txt} of=${one.default.slice(0, 300)} />”`}</em>`;
}
