// The token stands behind the # of the link, which the browser sends nowhere; it is posted once and taken out of sight.
import { html, render } from "./lib.js";

const show = (body) => render(html`<main class="login"><div class="panel">
  <h1 class="logo"><span class="mark" aria-hidden="true"></span><b>hyperhive</b></h1>${body}</div></main>`, document.getElementById("app"));

const explain = (text) => show(html`<p class=${text ? "refused" : ""} role="status">${text || "This browser is not logged in."}</p>
  <p>Get a one-time link in a terminal of this host, and open it within a minute:</p>
  <pre class="command">hive-admin link</pre>
  <p class="dim">There is no password, and nothing to remember. The link works once, in one browser.</p>`);

async function logIn(token) {
  show(html`<p role="status">Logging in …</p>`);
  try {
    const response = await fetch("/api/login", {
      method: "POST", credentials: "same-origin", headers: { "content-type": "application/json" }, body: JSON.stringify({ token }),
    });
    if (response.ok) return location.replace("/");
    explain((await response.json()).message);
  } catch {
    explain("The dashboard does not answer. Is the hive up? Start it with: make up");
  }
}

function arrive() {
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  if (token) logIn(token);
  else explain("");
}

addEventListener("hashchange", () => location.hash && arrive());
arrive();
