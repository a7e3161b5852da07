// The page: its tabs, what stands in the address, and how far the work in the background is.

import { get } from "./api.js";
import { $, clearNotice, drawIcons, isTyping, notice, number } from "./dom.js";
import * as explore from "./explore.js";
import * as exporting from "./export.js";
import * as label from "./label.js";
import * as store from "./labels.js";
import * as review from "./review.js";

const TABS = { explore, label, review, export: exporting };
const SOON = 300; // milliseconds between reports while something is learned, or worked on, or nothing
const BUSY = 800;
const IDLE = 3000;

const page = {
  state: null,
  where: () => document.body.dataset.tab,
  open,
  went,
  failed,
};
let progress = null;
let timer;

async function begin() {
  drawIcons(document);
  for (const button of document.querySelectorAll("[role=tab]")) {
    button.addEventListener("click", () => turnTo(button.dataset.tab));
    button.addEventListener("keydown", tabKey);
  }
  page.state = await get("/api/state");
  store.begin(page.state);
  $("#run-name").textContent = nameOf(page.state.images);
  $("#run-name").title = `images: ${page.state.images}\nrun: ${page.state.run} (${page.state.method})`;
  document.title = `${nameOf(page.state.images)} – Equimark`;
  for (const tab of Object.values(TABS)) tab.begin(page);
  for (const button of document.querySelectorAll("[data-help]")) button.addEventListener("click", help);
  store.changes.addEventListener("saving", () => {
    renderStatus();
    report(SOON);
  });
  document.addEventListener("keydown", key);
  window.addEventListener("hashchange", fromAddress);
  window.addEventListener("unhandledrejection", ({ reason }) => failed(reason));
  await fromAddress();
  report(0);
}

const nameOf = (path) => path.replace(/[\\/]+$/, "").split(/[\\/]/).at(-1) || path;

// ---- tabs

async function fromAddress() {
  const [tab, wanted] = location.hash.slice(1).split("/");
  const known = tab in TABS ? tab : "explore";
  if (known !== page.where() || wanted) await open(known, wanted || null);
}

/** Open a tab; as long as the program has not said what there is to show, only note it in the address. */
function turnTo(tab) {
  if (page.state) open(tab);
  else history.replaceState(null, "", `#${tab}`);
}

let opened = null;

async function open(tab, wanted = null) {
  if (opened === `${tab}/${wanted}`) return;
  document.body.dataset.tab = tab;
  for (const button of document.querySelectorAll("[role=tab]")) {
    const mine = button.dataset.tab === tab;
    button.setAttribute("aria-selected", String(mine));
    button.tabIndex = mine ? 0 : -1;
    $(`#${button.dataset.tab}`).hidden = !mine;
  }
  if (!wanted) went(tab, "");
  try {
    await TABS[tab].show(wanted);
  } catch (error) {
    failed(error);
  }
}

/** Note in the address what is shown, so that reloading shows it again. */
function went(tab, key) {
  if (page.where() !== tab) return;
  opened = `${tab}/${key}`;
  const address = key ? `#${tab}/${key}` : `#${tab}`;
  if (location.hash !== address) history.replaceState(null, "", address);
}

function tabKey(event) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const next = tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length];
  next.focus();
  next.click();
  event.preventDefault();
}

function key(event) {
  if ($("#help").open) return;
  if (event.key === "?" && !isTyping(event)) help();
  else if (event.key === "Escape" && isTyping(event)) event.target.blur();
  else if (!TABS[page.where()].key(event)) return;
  event.preventDefault();
}

function help() {
  $("#help").showModal();
}

function failed(error) {
  notice(error.message);
}

// ---- progress

function report(delay) {
  clearTimeout(timer);
  timer = setTimeout(ask, delay);
}

async function ask() {
  let wait = IDLE;
  try {
    const now = await get("/api/progress");
    const before = progress;
    progress = now;
    if (page.silent) clearNotice();
    page.silent = false;
    await store.follow(now.revision);
    const learned = before && now.lesson !== before.lesson;
    const done = before && busy(before) && !busy(now);
    const begun = before && !before.seen && now.seen;
    if (learned || done || begun) await TABS[page.where()].learnedAnew?.();
    if (now.learning) wait = SOON;
    else if (busy(now)) wait = BUSY;
  } catch (error) {
    if (!store.saving().waiting) notice(error.message, { sticky: true });
    page.silent = true;
    wait = BUSY;
  }
  renderStatus();
  report(wait);
}

function busy({ images, seen, unreadable, predicted, lesson, learning }) {
  return learning || seen + unreadable < images || (lesson > 0 && predicted > 0 && predicted < seen);
}

function renderStatus() {
  const box = $("#status");
  const { waiting, silent } = store.saving();
  const [words, share] = statusWords(waiting, silent);
  box.dataset.kind = silent || page.silent || progress?.fault ? "alarm" : share === null ? "rest" : "busy";
  $("#status-words").textContent = words;
  box.title = progress?.fault ?? words;
  $("#accept-page").disabled = progress?.learning ?? false; // what it would accept is about to change
  $("#status-bar").hidden = share === null;
  $("#status-bar i").style.width = `${100 * (share ?? 0)}%`;
}

function statusWords(waiting, silent) {
  if (silent || page.silent) return ["No answer: not saved", null];
  if (!progress) return ["", null];
  const { images, seen, unreadable, predicted, lesson, learning, turned, fault } = progress;
  if (fault) return [`Trouble: ${fault}`, null];
  if (waiting) return ["Saving …", null];
  if (learning) return ["Learning from your labels …", 0.05];
  if (lesson > 0 && predicted < seen && predicted > 0) return [`${turned ? "Looking in all directions" : "Predicting"}: ${number.format(predicted)} of ${number.format(images)}`, predicted / images];
  if (seen + unreadable < images) return [`Looking at images: ${number.format(seen)} of ${number.format(images)}`, seen / images];
  if (!store.labels.revision) return [`${number.format(images - unreadable)} images ready`, null];
  return ["All changes saved", null];
}

begin().catch(failed);
