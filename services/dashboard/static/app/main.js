// The dashboard: six views over one live copy of the hive.
import { html, render, useEffect, useState } from "./lib.js";
import { post } from "./api.js";
import { Top } from "./banners.js";
import { Composer } from "./composer.js";
import { hive, openProposals, openQuestions, start, unread, useHive } from "./live.js";
import { Act, Dialogs, Toasts } from "./parts.js";
import { Agents } from "./views/agents.js";
import { Approvals } from "./views/approvals.js";
import { Events } from "./views/events.js";
import { Messages } from "./views/messages.js";
import { Questions } from "./views/questions.js";
import { Reminders } from "./views/reminders.js";

const VIEWS = {
  agents: { view: Agents, mark: "⬡", waiting: () => 0 },
  approvals: { view: Approvals, mark: "✓", waiting: () => openProposals().length },
  messages: { view: Messages, mark: "✉", waiting: () => unread().length },
  questions: { view: Questions, mark: "?", waiting: () => openQuestions().filter((one) => one.recipient === "operator").length },
  reminders: { view: Reminders, mark: "◷", waiting: () => 0 },
  events: { view: Events, mark: "≋", waiting: () => 0 },
};

function where() {
  const [name, at = ""] = location.hash.replace(/^#\/?/, "").split("/");
  return { name: Object.hasOwn(VIEWS, name) ? name : "agents", at };
}

function useWhere() {
  const [place, setPlace] = useState(where());
  useEffect(() => {
    const moved = () => setPlace(where());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}

function App() {
  useHive();
  const { name, at } = useWhere();
  const waiting = openProposals().length + VIEWS.questions.waiting() + unread().length;
  useEffect(() => {
    document.title = `${waiting ? `(${waiting}) ` : ""}${name} · hyperhive`;
  }, [waiting, name]);
  const View = VIEWS[name].view;
  return html`<a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), document.getElementById("main").focus())}>Skip to the content</a>
    <${Top}><a class="logo" href="#/agents"><span class="mark" aria-hidden="true"></span><b>hyperhive</b></a>
      <${Nav} name=${name} /><span class="grow"></span><${Pulse} />
      <${Act} kind="quiet small logout" run=${async () => (await post("/api/logout"), location.assign("/login"))} title="log this browser out">Log out</${Act}></${Top}>
    <main id="main" tabindex="-1">${hive.ready ? html`<${View} key=${name} at=${at} />` : html`<p class="loading" aria-busy="true">reaching the hive …</p>`}</main>
    <${Composer} />
    <${Toasts} /><${Dialogs} />`;
}

const Nav = ({ name }) => html`<nav class="tabs" aria-label="Views">${Object.entries(VIEWS).map(([key, view]) => {
  const count = hive.ready ? view.waiting() : 0;
  return html`<a key=${key} href=${`#/${key}`} aria-current=${key === name ? "page" : null}><i aria-hidden="true">${view.mark}</i><span>${key}</span>${count > 0 && html`<b class="count" aria-label=${`${count} waiting`}>${count}</b>`}</a>`;
})}</nav>`;

const Pulse = () => html`<div class="pulse" role="group" aria-label="services">
  ${[...hive.services.values()].map((one) => html`<span key=${one.name} class=${`pip ${one.state}`} title=${`${one.name}: ${one.state}`}><i aria-hidden="true"></i><span>${one.name}</span></span>`)}
  <span class=${`pip conn ${hive.connection === "live" ? "up" : "down"}`} title=${`this page: ${hive.connection}`}><i aria-hidden="true"></i><b>${hive.connection}</b></span></div>`;

start("/events/stream");
render(html`<${App} />`, document.getElementById("app"));
