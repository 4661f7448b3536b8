// Everything that was remembered is put into the page as text, never as markup.
const SIZE = 50;
const OBSERVERS = 20; // of so many peers it is shown what they know about another
const KEY = "honcho-exec-key";
const content = document.getElementById("content");
const status = document.getElementById("status");
const picker = document.getElementById("workspace");
const SVG = "http://www.w3.org/2000/svg";
let shown = 0; // which view is the newest; answers to an older one are dropped

class Failed extends Error {}

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null).map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function svg(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

function tell(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

async function ask(method, path, body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key && !/^[!-~]+$/.test(key)) {
    // No header can hold it.
    await askKey(key);
    return ask(method, path, body);
  }
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Failed("The server does not answer. Is honcho-exec serve still running?");
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
    throw new Failed(`The server gave an answer that is not JSON (${answer.status}).`);
  }
  if (!answer.ok) {
    const detail = Array.isArray(value?.detail) ? value.detail.map((one) => one.msg).join("; ") : value?.detail;
    throw Object.assign(new Failed(`${detail ?? "The request failed"} (${answer.status})`), { status: answer.status });
  }
  return value;
}

let asking = null;
function askKey(refused) {
  // It was asked for, or given, while the refusal was on its way.
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

function when(moment, dateStyle = "medium") {
  const at = new Date(moment);
  return Number.isNaN(at.getTime()) ? String(moment) : at.toLocaleString(undefined, { dateStyle, timeStyle: "short" });
}

function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

function link(route, text) {
  return el("a", { href: `#/${route.map(encodeURIComponent).join("/")}` }, text);
}

function list(items, item) {
  return items.length ? el("ul", { class: "list" }, ...items.map(item)) : el("p", {}, "Nothing is here yet.");
}

// A list in pages; `path` is asked for each page, and the buttons go through them.
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
    buttons.append(el("span", { class: "facts" }, `page ${found.page} of ${found.pages}, ${found.total} in all`));
    box.append(buttons);
  }
  return box;
}

function messageItem(message) {
  return el("li", {},
    el("p", { class: "facts" }, link(["peers", message.peer_id], message.peer_id), " · ", when(message.created_at), " · ",
      link(["sessions", message.session_id], message.session_id)),
    el("p", { class: "text" }, message.content));
}

function conclusionItem(conclusion) {
  const item = el("li", {},
    el("div", { class: "row" },
      el("div", {},
        el("p", { class: "facts" }, `${conclusion.observer_id} of ${conclusion.observed_id} · ${when(conclusion.created_at)}`),
        el("p", { class: "text" }, conclusion.content)),
      el("button", { type: "button", class: "danger", "aria-label": `Delete: ${conclusion.content.slice(0, 80)}`, onclick: () => remove(conclusion, item) }, "Delete")));
  return item;
}

const confirmation = document.getElementById("confirm");
let pending = null; // what is deleted when the answer is yes

function remove(conclusion, item) {
  if (confirmation.open) return;
  pending = { item, path: `${base()}/conclusions/${encodeURIComponent(conclusion.id)}` };
  document.getElementById("confirm-text").textContent = conclusion.content;
  confirmation.returnValue = "no";
  confirmation.showModal();
}

confirmation.addEventListener("close", async () => {
  // A closing is told of later than it happens: the question may have been asked anew.
  if (confirmation.open || pending === null) return;
  const { item, path } = pending;
  pending = null;
  if (confirmation.returnValue !== "yes") return;
  try {
    await ask("DELETE", path).catch((error) => {
      if (error.status !== 404) throw error; // somebody else has deleted it
    });
    item.remove();
    tell("The conclusion was deleted.");
    content.focus();
  } catch (error) {
    report(error);
  }
});

// What a peer knows about another, or about itself: nothing is said where it knows nothing.
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
    el("h3", {}, `Representation${whose}`), el("p", { class: "text" }, known.representation || "Nothing is known yet."),
  ];
}

const views = {
  async sessions(id) {
    if (id === undefined) {
      return [el("h2", {}, "Sessions"), await paged(`${base()}/sessions/list`, (session) =>
        el("li", {}, link(["sessions", session.id], session.id), el("p", { class: "facts" }, `since ${when(session.created_at)}`)), { reverse: true })];
    }
    return [el("h2", {}, id), el("p", { class: "facts" }, "Messages in the order in which they were stored."),
      await paged(`${base()}/sessions/${encodeURIComponent(id)}/messages/list`, messageItem)];
  },
  async peers(id) {
    if (id === undefined) {
      return [el("h2", {}, "Peers"), await paged(`${base()}/peers/list`, (peer) =>
        el("li", {}, link(["peers", peer.id], peer.id), el("p", { class: "facts" }, `since ${when(peer.created_at)}`)))];
    }
    const peer = `${base()}/peers/${encodeURIComponent(id)}`;
    const others = (await ask("POST", `${base()}/peers/list?size=${OBSERVERS}`, {})).items.map((one) => one.id);
    const seen = await Promise.all([id, ...others.filter((one) => one !== id)].map((observer) => seenBy(observer, id)));
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
    tell(found.length === 1 ? "1 message was found." : `${found.length} messages were found.`);
    return [el("h2", {}, "Search"), form, found.length ? list(found, messageItem) : el("p", {}, "Nothing was found.")];
  },
  async outbox() {
    const state = await ask("GET", "/local/outbox");
    const numbers = [["waiting", state.counts.pending], ["being sent", state.counts.in_flight], ["parked", state.counts.parked],
      ["for elsewhere", state.counts.elsewhere],
      ["oldest waits for", state.counts.oldest_at === null ? "–" : span(state.now - state.counts.oldest_at)]];
    const columns = ["id", "state", "kind", "session", "who", "attempts", "text", "reason"];
    const kinds = { session: "id", who: "id", text: "long", reason: "long" };
    return [el("h2", {}, "Outbox"), el("p", { class: "facts" }, `for ${state.destination}`),
      el("dl", { class: "numbers" }, ...numbers.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
      state.history.error ? el("p", {}, `Last failure, ${when(state.history.error_at * 1000)}: ${state.history.error}`) : null,
      el("h3", {}, "Sync latency"), plot(state.deliveries),
      el("h3", {}, "Rows"),
      state.rows.length === 0 ? el("p", {}, "Nothing waits and nothing is parked.") : el("div", { class: "wide", role: "region", "aria-label": "Rows", tabindex: "0" }, el("table", {},
        el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, ...state.rows.map((row) => el("tr", {}, ...columns.map((name) => el("td", { class: kinds[name] ?? "" }, row[name] ?? ""))))))),
    ].filter((part) => part !== null);
  },
};

// How long deliveries took, over time, on a logarithmic scale.
function plot(deliveries) {
  if (deliveries.length === 0) return el("p", {}, "Nothing has been delivered yet.");
  // As wide as it is shown, so that its text is not shrunk with it.
  const [width, height, left, bottom, top] = [Math.max(content.clientWidth, 300), 240, 62, 28, 12];
  const times = deliveries.map((one) => one.at);
  const waits = deliveries.map((one) => Math.max(one.waited, 0.001));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const [low, high] = [Math.floor(Math.log10(Math.min(...waits))), Math.ceil(Math.log10(Math.max(...waits)) + 1e-9)];
  const x = (at) => left + (last === first ? 0.5 : (at - first) / (last - first)) * (width - left - 14);
  const y = (wait) => top + (1 - (Math.log10(wait) - low) / Math.max(1, high - low)) * (height - top - bottom);
  const sorted = [...waits].sort((a, b) => a - b);
  const middle = sorted[Math.floor((sorted.length - 1) / 2)];
  const worst = sorted[sorted.length - 1];
  const told = `Sync latency of the last ${deliveries.length} deliveries: median ${span(middle)}, at most ${span(worst)}.`;
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "plot", role: "img", "aria-label": told });
  for (let power = low; power <= Math.max(high, low + 1); power += 1) {
    const level = y(10 ** power);
    picture.append(svg("line", { class: "grid", x1: left, x2: width - 14, y1: level, y2: level }),
      svg("text", { x: left - 6, y: level + 4, "text-anchor": "end" }, span(10 ** power)));
  }
  picture.append(svg("text", { x: left, y: height - 8 }, when(first * 1000, "short")),
    svg("text", { x: width - 14, y: height - 8, "text-anchor": "end" }, when(last * 1000, "short")));
  const points = deliveries.map((one, place) => [x(one.at), y(waits[place])]);
  picture.append(svg("polyline", { class: "line", points: points.map((point) => point.join(",")).join(" ") }));
  deliveries.forEach((one, place) => {
    const point = svg("circle", { class: "point", cx: points[place][0], cy: points[place][1], r: 2.5 });
    point.append(svg("title", {}, `${when(one.at * 1000)}: ${span(one.waited)}, ${one.rows} rows`));
    picture.append(point);
  });
  return el("figure", {}, picture, el("figcaption", { class: "facts" }, told));
}

function report(error) {
  if (!(error instanceof Failed)) console.error(error);
  tell(error instanceof Failed ? error.message : "The page failed unexpectedly.", true);
}

async function loadWorkspaces() {
  const chosen = picker.value || sessionStorage.getItem("honcho-exec-workspace");
  const ids = new Set();
  for (let page = 1, pages = 1; page <= pages; page += 1) {
    const found = await ask("POST", `/v3/workspaces/list?page=${page}&size=100`, {});
    found.items.forEach((one) => ids.add(one.id));
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
  const mine = ++shown;
  const [name = "", ...rest] = location.hash.replace(/^#\//, "").split("/").map(decoded);
  const view = Object.hasOwn(views, name) ? name : "sessions";
  for (const tab of document.querySelectorAll("#tabs a")) {
    if (tab.getAttribute("href") === `#/${view}`) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  tell("");
  content.setAttribute("aria-busy", "true");
  try {
    const any = picker.options.length || (await loadWorkspaces());
    const parts = !any && view !== "outbox" ? [el("p", {}, "Nothing has been remembered yet.")] : await views[view](rest[0]);
    if (mine !== shown) return;
    content.replaceChildren(...parts);
    document.title = `${parts[0].textContent} · Honcho memory`;
  } catch (error) {
    if (mine === shown) {
      content.replaceChildren();
      document.title = `${view[0].toUpperCase()}${view.slice(1)} · Honcho memory`;
      report(error);
    }
  } finally {
    content.removeAttribute("aria-busy");
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

// #code=… is what `serve --open` passes on: it is exchanged once for the key, and worth nothing afterwards. The server
// never sees what stands behind the #, and the history keeps the page without it.
async function redeem() {
  if (!location.hash.startsWith("#code=")) return;
  const code = decoded(location.hash.slice(6));
  history.replaceState(null, "", "/");
  try {
    const answer = await fetch("/local/login", { method: "POST", headers: { "Honcho-Exec-Code": code } });
    if (answer.ok) sessionStorage.setItem(KEY, (await answer.json()).key);
  } catch {
    // The page asks for the key then, as it does after a code that is not valid.
  }
}
redeem().then(show);
