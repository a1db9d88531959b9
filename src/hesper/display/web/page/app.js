// The page: one screen of the guest through noVNC, and the live figures.
// Everything it may do hangs on the token in the address, behind '#'.

import RFB from "/novnc/core/rfb.js";
import { Sound } from "./sound.js";

const HISTORY = 60;
const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 8000;

const element = (id) => document.getElementById(id);
const address = new URLSearchParams(location.hash.slice(1));
const token = address.get("token") ?? "";
const protocols = ["hesper", `hesper.${token}`];
const base = `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}`;

let screen = Math.max(0, (Number.parseInt(address.get("screen"), 10) || 1) - 1);
let rfb = null;
let retryMs = RETRY_FIRST_MS;
let retryTimer = 0;

function remember() {
  address.set("screen", String(screen + 1));
  history.replaceState(null, "", `#${address}`);
  document.title = `Hesper, screen ${screen + 1}`;
}

function notice(title, text = "", mayRetry = false) {
  element("notice").hidden = title === "";
  element("notice-title").textContent = title;
  element("notice-text").textContent = text;
  element("retry").hidden = !mayRetry;
}

// The guest's screen.

function connect() {
  clearTimeout(retryTimer);
  if (rfb !== null) {
    const old = rfb;
    rfb = null;
    old.disconnect();
  }
  notice("Connecting", `screen ${screen + 1}`);
  const session = new RFB(element("screen"), `${base}/vnc/${screen}`, { wsProtocols: protocols });
  rfb = session;
  session.background = "transparent";
  applyScaling();
  session.addEventListener("connect", () => {
    if (session !== rfb) return;
    retryMs = RETRY_FIRST_MS;
    notice("");
    session.focus();
  });
  session.addEventListener("clipboard", (event) => {
    if (session === rfb) takeFromGuest(event.detail.text);
  });
  session.addEventListener("disconnect", () => {
    if (session !== rfb) return;
    rfb = null;
    notice("Not connected", "Hesper has stopped, or this address has no valid token.", true);
    retryTimer = setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, RETRY_LAST_MS);
  });
}

function applyScaling() {
  if (rfb === null) return;
  const mode = element("scaling").value;
  rfb.scaleViewport = mode !== "actual";
  rfb.resizeSession = mode === "guest";
}

function showFocus() {
  const typing = element("screen").contains(document.activeElement) && document.hasFocus();
  element("stage").classList.toggle("typing", typing);
  element("focus-hint").hidden = typing || rfb === null || !element("notice").hidden;
}

function choose(index) {
  if (index === screen) return;
  screen = index;
  remember();
  connect();
  markScreens();
}

// The clipboard.  The browser's own is read and written only where somebody has asked for it: the
// guest would see whatever was copied, in other programs, too.

let shared = null;

function takeFromGuest(text) {
  const box = element("clipboard-text");
  if (document.activeElement !== box) box.value = text;
  shared = text;
  if (sharing()) navigator.clipboard.writeText(text).catch(() => {});
}

function giveToGuest(text) {
  element("clipboard-text").value = text;
  shared = text;
  rfb?.clipboardPasteFrom(text);
}

function canShare() {
  return navigator.clipboard?.readText !== undefined;
}

function sharing() {
  return canShare() && element("clipboard-share").checked;
}

async function readBrowsers() {
  if (!sharing() || rfb === null || !document.hasFocus()) return;
  try {
    const text = await navigator.clipboard.readText();
    if (text !== "" && text !== shared) giveToGuest(text);
  } catch {
    // The browser has been told not to let us.
  }
}

// The live figures.

const graphs = new Map();

function draw(id, value) {
  const values = graphs.get(id);
  if (values === undefined) {
    // The first figures cover no time yet.
    graphs.set(id, []);
    return;
  }
  values.push(value);
  if (values.length > HISTORY) values.shift();
  const top = Math.max(...values, 1e-9);
  const points = values.map((v, i) => {
    const x = (i + HISTORY - values.length) * 120 / (HISTORY - 1);
    return `${x.toFixed(1)},${(26 - 24 * v / top).toFixed(1)}`;
  });
  element(id).querySelector("polyline").setAttribute("points", points.join(" "));
}

function short(value, step, units) {
  let unit = 0;
  while (value >= step && unit < units.length - 1) {
    value /= step;
    unit += 1;
  }
  const digits = unit > 0 && value < 10 ? 1 : 0;
  return [value.toFixed(digits), units[unit]];
}

function write(id, number, unit = "") {
  const cell = element(id);
  const small = document.createElement("small");
  small.textContent = ` ${unit}`;
  cell.replaceChildren(number, small);
}

function markScreens() {
  [...element("screens").children].forEach((button, index) => {
    button.setAttribute("aria-current", String(index === screen));
  });
}

function showScreens(count) {
  const nav = element("screens");
  if (nav.childElementCount === count) return;
  nav.replaceChildren(...Array.from({ length: count }, (_, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Screen ${index + 1}`;
    button.addEventListener("click", () => choose(index));
    return button;
  }));
  nav.hidden = count < 2;
  markScreens();
}

function showFigures(live) {
  element("sound").hidden = !live.sound || window.AudioWorkletNode === undefined;
  showScreens(live.screens.length);
  const one = live.screens[screen];
  if (one === undefined) {
    notice("No such screen", `The guest has ${live.screens.length}.`);
    return;
  }
  const perViewer = one.sentFramesPerSecond / Math.max(one.viewers, 1);
  write("f-shown", perViewer.toFixed(0), "frames/s");
  draw("g-shown", perViewer);
  if (one.latency !== null) {
    write("f-latency", (one.latency * 1000).toFixed(0), `ms, p99 ${(one.late * 1000).toFixed(0)}`);
    draw("g-latency", one.latency);
  } else {
    write("f-latency", "–");
  }
  write("f-coding", one.videos > 0 ? "H.264, Tight" : "Tight");
  write("f-guest", one.guestFramesPerSecond.toFixed(0), "frames/s");
  draw("g-guest", one.guestFramesPerSecond);
  write("f-sent", ...short(one.sentBytesPerSecond, 1000, ["B/s", "kB/s", "MB/s", "GB/s"]));
  draw("g-sent", one.sentBytesPerSecond);
  write("f-size", one.width ? `${one.width} × ${one.height}` : "none");
  write("f-viewers", String(one.viewers));
  const known = live.contexts !== null;
  for (const id of ["f-commands", "f-contexts", "f-memory"]) {
    element(id).parentElement.hidden = !known;
  }
  if (known) {
    write("f-commands", ...short(live.commandsPerSecond, 1000, ["/s", "k/s", "M/s", "G/s"]));
    draw("g-commands", live.commandsPerSecond);
    write("f-contexts", String(live.contexts));
    write("f-memory", ...short(live.memory, 1024, ["B", "KiB", "MiB", "GiB"]));
  }
}

function watchFigures() {
  const socket = new WebSocket(`${base}/live`, protocols);
  socket.addEventListener("message", (event) => showFigures(JSON.parse(event.data)));
  socket.addEventListener("close", () => setTimeout(watchFigures, RETRY_LAST_MS / 4));
}

// Controls.

element("scaling").value = localStorage.getItem("scaling") ?? "fit";
element("scaling").addEventListener("change", (event) => {
  localStorage.setItem("scaling", event.target.value);
  applyScaling();
  rfb?.focus();
});
element("cad").addEventListener("click", () => {
  rfb?.sendCtrlAltDel();
  rfb?.focus();
});
element("full").addEventListener("click", async () => {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
  } else {
    await element("stage").requestFullscreen();
    // So that Esc, Alt+Tab and the like reach the guest; not every browser has it.
    await navigator.keyboard?.lock?.();
  }
  rfb?.focus();
});
element("save").addEventListener("click", async () => {
  if (rfb === null) return;
  const blob = await new Promise((done) => rfb.toBlob(done, "image/png"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `hesper-screen-${screen + 1}.png`;
  link.click();
  URL.revokeObjectURL(link.href);
  rfb?.focus();
});
element("figures-toggle").addEventListener("click", (event) => {
  const panel = element("figures");
  panel.hidden = !panel.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!panel.hidden));
  rfb?.focus();
});
const sound = new Sound(`${base}/sound`, protocols, showSound);

function showSound() {
  element("sound").setAttribute("aria-pressed", String(sound.isOn));
}

element("sound").addEventListener("click", async () => {
  if (sound.isOn) sound.stop();
  else await sound.start();
  showSound();
  rfb?.focus();
});
element("clipboard-toggle").addEventListener("click", (event) => {
  const panel = element("clipboard");
  panel.hidden = !panel.hidden;
  event.currentTarget.setAttribute("aria-expanded", String(!panel.hidden));
  if (panel.hidden) rfb?.focus();
  else element("clipboard-text").focus();
});
element("clipboard").addEventListener("submit", (event) => {
  event.preventDefault();
  giveToGuest(element("clipboard-text").value);
  rfb?.focus();
});
element("clipboard-share").checked = localStorage.getItem("clipboard") === "shared";
element("clipboard-share").addEventListener("change", (event) => {
  localStorage.setItem("clipboard", event.target.checked ? "shared" : "");
  readBrowsers();
});
element("clipboard-share-label").hidden = !canShare();
window.addEventListener("focus", readBrowsers);
element("screen").addEventListener("focusin", readBrowsers);
element("retry").addEventListener("click", () => {
  retryMs = RETRY_FIRST_MS;
  connect();
});
for (const kind of ["focusin", "focusout"]) document.addEventListener(kind, showFocus);
for (const kind of ["focus", "blur"]) window.addEventListener(kind, showFocus);

if (token === "") {
  notice("No token", "Open the whole address that Hesper printed, with the part behind #.");
} else {
  remember();
  connect();
  watchFigures();
}
