import { el, formatDuration, formatTime, link, list } from "./dom.js";
import { plot } from "./plot.js";

const SIZE = 50;
const OBSERVERS = 20; // how many peers a peer's page asks what they know about it
const KEY = "honcho-exec-key";
const content = document.getElementById("content");
const status = document.getElementById("status");
const picker = document.getElementById("workspace");
let newest = 0; // the number of the newest view; answers to older ones are dropped

class Failed extends Error {}

function notify(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

async function ask(method, path, body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key && !/^[!-~]+$/.test(key)) {
    // No header can contain it.
    await askKey(key);
    return ask(method, path, body);
  }
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Failed("The server does not answer. Is honcho-exec serve running?");
  }
  if (answer.status === 401) {
    await askKey(key);
    return ask(method, path, body);
  }
  const text = await answer.text();
  let value = null;
  try {
    value = text ? JSON.parse(text) : null;
  } catch {
    throw new Failed(`The answer of the server is not JSON (${answer.status}).`);
  }
  if (!answer.ok) {
    const detail = Array.isArray(value?.detail) ? value.detail.map((error) => error.msg).join("; ") : value?.detail;
    throw Object.assign(new Failed(`${detail ?? "The request failed"} (${answer.status})`), { status: answer.status });
  }
  return value;
}

let asking = null;
function askKey(refused) {
  // Another request may have asked for the key, or got it, since this one was sent.
  if (asking) return asking;
  if (sessionStorage.getItem(KEY) !== refused) return Promise.resolve();
  sessionStorage.removeItem(KEY);
  document.getElementById("key-wrong").hidden = !refused;
  asking = new Promise((resolve) => {
    const dialog = document.getElementById("ask-key");
    const field = document.getElementById("key");
    field.value = "";
    dialog.addEventListener("close", () => {
      asking = null;
      sessionStorage.setItem(KEY, field.value.trim());
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

function base() {
  return `/v3/workspaces/${encodeURIComponent(picker.value)}`;
}

// A list of `path` in pages, with buttons for the others.
async function paged(path, item, { reverse = false, page = 1, body = {} } = {}) {
  const found = await ask("POST", `${path}?page=${page}&size=${SIZE}&reverse=${reverse}`, body);
  const box = el("div", {}, list(found.items, item));
  if (found.pages > 1) {
    const go = async (to) => {
      try {
        const next = await paged(path, item, { reverse, page: to, body });
        box.replaceWith(next);
        next.querySelector("a, button")?.focus();
      } catch (error) {
        report(error);
      }
    };
    const buttons = el("p", { class: "buttons" });
    if (page > 1) buttons.append(el("button", { type: "button", onclick: () => go(page - 1) }, "Previous"));
    if (page < found.pages) buttons.append(el("button", { type: "button", onclick: () => go(page + 1) }, "Next"));
    buttons.append(el("span", { class: "facts" }, `page ${found.page} of ${found.pages}, ${found.total} items`));
    box.append(buttons);
  }
  return box;
}

function messageItem(message) {
  return el("li", {},
    el("p", { class: "facts" }, link(["peers", message.peer_id], message.peer_id), " · ", formatTime(message.created_at), " · ",
      link(["sessions", message.session_id], message.session_id)),
    el("p", { class: "text" }, message.content));
}

function conclusionItem(conclusion) {
  const item = el("li", {},
    el("div", { class: "row" },
      el("div", {},
        el("p", { class: "facts" }, `${conclusion.observer_id} of ${conclusion.observed_id} · ${formatTime(conclusion.created_at)}`),
        el("p", { class: "text" }, conclusion.content)),
      el("button", { type: "button", class: "danger", "aria-label": `Delete: ${conclusion.content.slice(0, 80)}`, onclick: () => remove(conclusion, item) }, "Delete")));
  return item;
}

const confirmation = document.getElementById("confirm");
let pending = null; // what is deleted on "yes"

function remove(conclusion, item) {
  if (confirmation.open) return;
  pending = { item, path: `${base()}/conclusions/${encodeURIComponent(conclusion.id)}` };
  document.getElementById("confirm-text").textContent = conclusion.content;
  confirmation.returnValue = "no";
  confirmation.showModal();
}

confirmation.addEventListener("close", async () => {
  // The event comes after the closing: the dialog may be open again.
  if (confirmation.open || pending === null) return;
  const { item, path } = pending;
  pending = null;
  if (confirmation.returnValue !== "yes") return;
  try {
    await ask("DELETE", path).catch((error) => {
      if (error.status !== 404) throw error; // it is deleted already
    });
    item.remove();
    notify("Conclusion deleted.");
    content.focus();
  } catch (error) {
    report(error);
  }
});

// What a peer knows about another, or about itself; empty if it knows nothing about the other.
async function seenBy(observer, id) {
  const path = `${base()}/peers/${encodeURIComponent(observer)}`;
  const itself = observer === id;
  const [card, known] = await Promise.all([
    ask("GET", `${path}/card?target=${encodeURIComponent(id)}`),
    ask("POST", `${path}/representation`, itself ? {} : { target: id }),
  ]);
  const lines = card.peer_card ?? [];
  if (!itself && !lines.length && !known.representation) return [];
  const whose = itself ? "" : `, as ${observer} sees it`;
  return [
    ...(itself || lines.length ? [el("h3", {}, `Card${whose}`), list(lines, (line) => el("li", {}, line))] : []),
    el("h3", {}, `Representation${whose}`), el("p", { class: "text" }, known.representation || "Nothing known yet."),
  ];
}

const views = {
  async sessions(id) {
    if (id === undefined) {
      return [el("h2", {}, "Sessions"), await paged(`${base()}/sessions/list`, (session) =>
        el("li", {}, link(["sessions", session.id], session.id), el("p", { class: "facts" }, `since ${formatTime(session.created_at)}`)), { reverse: true })];
    }
    return [el("h2", {}, id), el("p", { class: "facts" }, "Messages in the order of storage."),
      await paged(`${base()}/sessions/${encodeURIComponent(id)}/messages/list`, messageItem)];
  },
  async peers(id) {
    if (id === undefined) {
      return [el("h2", {}, "Peers"), await paged(`${base()}/peers/list`, (peer) =>
        el("li", {}, link(["peers", peer.id], peer.id), el("p", { class: "facts" }, `since ${formatTime(peer.created_at)}`)))];
    }
    const peer = `${base()}/peers/${encodeURIComponent(id)}`;
    const others = (await ask("POST", `${base()}/peers/list?size=${OBSERVERS}`, {})).items.map((other) => other.id);
    const seen = await Promise.all([id, ...others.filter((other) => other !== id)].map((observer) => seenBy(observer, id)));
    return [el("h2", {}, id), ...seen.flat(),
      el("h3", {}, "Conclusions about this peer"),
      await paged(`${base()}/conclusions/list`, conclusionItem, { body: { filters: { observed_id: id } } }),
      el("h3", {}, "Sessions"),
      await paged(`${peer}/sessions`, (session) => el("li", {}, link(["sessions", session.id], session.id)), { reverse: true })];
  },
  async conclusions() {
    return [el("h2", {}, "Conclusions"), await paged(`${base()}/conclusions/list`, conclusionItem)];
  },
  async search(words) {
    const field = el("input", { type: "search", name: "words", "aria-label": "Words to search for", value: words ?? "", required: "" });
    const form = el("form", { class: "search", role: "search", onsubmit: (event) => {
      event.preventDefault();
      location.hash = `#/search/${encodeURIComponent(field.value)}`;
    } }, field, el("button", {}, "Search"));
    if (!words) return [el("h2", {}, "Search"), form];
    const found = await ask("POST", `${base()}/search`, { query: words, limit: SIZE });
    notify(found.length === 1 ? "1 message found." : `${found.length} messages found.`);
    return [el("h2", {}, "Search"), form, found.length ? list(found, messageItem) : el("p", {}, "No messages found.")];
  },
  async outbox() {
    const state = await ask("GET", "/local/outbox");
    const numbers = [["pending", state.counts.pending], ["sending", state.counts.in_flight], ["parked", state.counts.parked],
      ["other destinations", state.counts.elsewhere],
      ["oldest row", state.counts.oldest_at === null ? "–" : formatDuration(state.now - state.counts.oldest_at)]];
    const columns = ["id", "state", "kind", "session", "who", "attempts", "text", "reason"];
    const kinds = { session: "id", who: "id", text: "long", reason: "long" };
    return [el("h2", {}, "Outbox"), el("p", { class: "facts" }, `to ${state.destination}`),
      el("dl", { class: "numbers" }, ...numbers.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
      state.history.error ? el("p", {}, `Last failure, ${formatTime(state.history.error_at * 1000)}: ${state.history.error}`) : null,
      el("h3", {}, "Sync latency"), plot(state.deliveries, Math.max(content.clientWidth, 300)),
      el("h3", {}, "Rows"),
      state.rows.length === 0 ? el("p", {}, "No pending or parked rows.") : el("div", { class: "wide", role: "region", "aria-label": "Rows", tabindex: "0" }, el("table", {},
        el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, ...state.rows.map((row) => el("tr", {}, ...columns.map((name) => el("td", { class: kinds[name] ?? "" }, row[name] ?? ""))))))),
    ].filter((part) => part !== null);
  },
};

function report(error) {
  if (!(error instanceof Failed)) console.error(error);
  notify(error instanceof Failed ? error.message : "The page failed unexpectedly.", true);
}

async function loadWorkspaces() {
  const chosen = picker.value || sessionStorage.getItem("honcho-exec-workspace");
  const ids = new Set();
  for (let page = 1, pages = 1; page <= pages; page += 1) {
    const found = await ask("POST", `/v3/workspaces/list?page=${page}&size=100`, {});
    found.items.forEach((workspace) => ids.add(workspace.id));
    pages = found.pages;
  }
  picker.replaceChildren(...[...ids].map((id) => el("option", { value: id }, id)));
  if (ids.has(chosen)) picker.value = chosen;
  return ids.size;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function show() {
  const mine = ++newest;
  const [name = "", ...rest] = location.hash.replace(/^#\//, "").split("/").map(decoded);
  const view = Object.hasOwn(views, name) ? name : "sessions";
  for (const tab of document.querySelectorAll("#tabs a")) {
    if (tab.getAttribute("href") === `#/${view}`) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  notify("");
  content.setAttribute("aria-busy", "true");
  try {
    const any = picker.options.length || (await loadWorkspaces());
    const parts = !any && view !== "outbox" ? [el("p", {}, "No memory yet.")] : await views[view](rest[0]);
    if (mine !== newest) return;
    content.replaceChildren(...parts);
    document.title = `${parts[0].textContent} · Honcho memory`;
  } catch (error) {
    if (mine === newest) {
      content.replaceChildren();
      document.title = `${view[0].toUpperCase()}${view.slice(1)} · Honcho memory`;
      report(error);
    }
  } finally {
    if (mine === newest) content.removeAttribute("aria-busy");
  }
}

picker.addEventListener("change", () => {
  sessionStorage.setItem("honcho-exec-workspace", picker.value);
  show();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  content.focus();
});
window.addEventListener("hashchange", show);

// `serve --open` passes a one-time code as #code=…, which is exchanged for the key. Browsers do not send the fragment to
// the server, and the history keeps the page without it.
async function redeem() {
  if (!location.hash.startsWith("#code=")) return;
  const code = decoded(location.hash.slice(6));
  history.replaceState(null, "", "/");
  try {
    const answer = await fetch("/local/login", { method: "POST", headers: { "Honcho-Exec-Code": code } });
    if (answer.ok) sessionStorage.setItem(KEY, (await answer.json()).key);
  } catch {
    // The page asks for the key, as after an invalid code.
  }
}
redeem().then(show);
