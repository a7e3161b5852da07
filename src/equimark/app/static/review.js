// The Review tab: all images, worst first, to accept or to correct.

import { get, withQuery } from "./api.js";
import { $, fill, h, icon, isTyping, number, percent, plural, toast } from "./dom.js";
import { change, changes, labels, learned, marksOf, redo, saved, statusOf, undo } from "./labels.js";
import { exchange, exchangeOf, exchangeRemark, pairsNow } from "./pairs.js";
import { accepted, pointsOf } from "./points.js";
import { Tile } from "./tile.js";

const PAGE = 48;
const NAMES = { new: "predicted", partial: "in progress", labelled: "labelled", accepted: "accepted" };

let page;
let tiles = [];
let total = 0;
let first = 0;
let turn = 0;
const query = { filter: "all", order: "confidence", search: "", low: null }; // null: as the program thinks best

export function begin(everything) {
  page = everything;
  for (const button of document.querySelectorAll("#filters [data-filter]")) {
    button.addEventListener("click", () => ask({ filter: button.dataset.filter }));
  }
  $("#order").addEventListener("change", ({ target }) => ask({ order: target.value }));
  let timer;
  $("#search").addEventListener("input", ({ target }) => {
    clearTimeout(timer);
    timer = setTimeout(() => ask({ search: target.value.trim() }), 200);
  });
  $("#low").addEventListener("input", ({ target }) => {
    showLow(target.value);
    clearTimeout(timer);
    timer = setTimeout(() => ask({ low: target.value }), 200);
  });
  $("#page-back").addEventListener("click", () => go(first - PAGE));
  $("#page-forward").addEventListener("click", () => go(first + PAGE));
  $("#page-number").addEventListener("change", ({ target }) => go((Number(target.value) - 1) * PAGE));
  $("#accept-page").addEventListener("click", () => accept(tiles));
  changes.addEventListener("marks", ({ detail }) => tiles.filter(({ item }) => detail.includes(item.key)).forEach(draw));
  changes.addEventListener("remarks", () => tiles.forEach(drawRemark));
  changes.addEventListener("reloaded", () => page.where() === "review" && load());
}

export async function show() {
  await saved();
  await load();
}

/** The predictions have changed: show them in the tiles there are, without moving any of them. */
export async function learnedAnew() {
  if (tiles.length && tiles.every(({ item }) => !item.confidence)) await load();
  else $("#review-stale").hidden = !tiles.length;
}

function ask(what) {
  Object.assign(query, what);
  first = 0;
  return load();
}

function go(to) {
  first = Math.min(Math.max(0, to || 0), Math.max(0, Math.floor((total - 1) / PAGE) * PAGE));
  $("#review-scroll").scrollTop = 0;
  return load();
}

async function load() {
  const mine = (turn += 1);
  const found = await get(withQuery("/api/images", { ...query, first, count: PAGE }));
  if (mine !== turn) return;
  total = found.total;
  if (first && first >= total) return go(total - 1);
  found.items.forEach(learned);
  tiles = found.items.map(tileOf);
  fill($("#gallery"), tiles.map(({ element }) => element));
  tiles.forEach(draw);
  if (query.low === null) showLow(found.low);
  renderBars(found.counts);
}

function showLow(low) {
  $("#low").value = low;
  $("#low-value").textContent = percent(low);
}

function tileOf(item) {
  const button = (name, words, run) =>
    h("button", { type: "button", class: "round", title: words, "aria-label": `${words}: ${item.name}`, tabindex: "-1", onclick: (event) => { event.stopPropagation(); run(); } }, icon(name));
  const tile = new Tile(item, {
    tabindex: "0",
    "aria-label": item.name,
    onclick: () => page.open("label", item.key),
    onkeydown: (event) => tileKey(event, tile),
    caption: [],
    corner: item.unreadable ? [] : [
      h("span", { class: "corner" }, button("correct", "Correct (Enter)", () => page.open("label", item.key)), button("accept", "Accept (A)", () => accept([tile]))),
    ],
  });
  return tile;
}

function draw(tile) {
  const { item } = tile;
  const status = statusOf(item.key);
  const bar = h("span", { class: "sureness", title: item.confidence === null ? "nothing predicted yet" : `confidence ${percent(item.confidence)}` }, h("i"));
  bar.firstChild.style.width = percent(item.confidence ?? 0).replace(" ", "");
  fill(tile.caption,
    h("span", { class: "file", title: item.name }, item.name),
    item.unreadable ? null : h("span", { class: "row" }, bar, h("small", {}, item.confidence === null ? "–" : percent(item.confidence)),
      h("span", { class: `chip ${status}` }, status === "new" && item.confidence === null ? "not labelled" : NAMES[status])));
  tile.element.dataset.status = status;
  tile.draw(pointsOf(item));
  drawRemark(tile);
}

function drawRemark({ item, picture }) {
  const remark = exchangeOf(item.key);
  $(".remark", picture)?.remove();
  if (remark) picture.append(h("div", { class: "remark", onkeydown: (event) => event.key === "Enter" && event.stopPropagation() }, exchangeRemark(item, remark, { short: true })));
}

function accept(some) {
  const given = {};
  for (const { item } of some) {
    const found = accepted(item);
    if (found.length && !item.unreadable) given[item.key] = { ...marksOf(item.key), ...Object.fromEntries(found) };
  }
  const count = Object.keys(given).length;
  if (!count) return toast(labels.landmarks.length ? "There is nothing to accept here." : "Label an image first: then there are predictions.");
  change(`accepting ${plural(count, "image")}`, { marks: given });
  toast(`Accepted ${plural(count, "image")}.`, { name: "Undo", run: undo });
  return refreshCounts();
}

async function refreshCounts() {
  await saved();
  const { counts } = await get(withQuery("/api/images", { ...query, first, count: 1 }));
  renderBars(counts);
}

function renderBars(counts) {
  for (const button of document.querySelectorAll("#filters [data-filter]")) {
    const which = button.dataset.filter;
    button.setAttribute("aria-pressed", String(which === query.filter));
    button.querySelector("b").textContent = number.format(counts[which]);
    if (["unreadable", "exchanged"].includes(which)) button.hidden = counts[which] === 0 && query.filter !== which;
  }
  $("#low-row").hidden = query.filter !== "low";
  $("#review-stale").hidden = true;
  $("#review-empty").hidden = total > 0;
  const last = Math.min(first + PAGE, total);
  $("#page-range").textContent = total ? `${number.format(first + 1)}–${number.format(last)} of ${number.format(total)}` : "";
  $("#page-number").value = String(Math.floor(first / PAGE) + 1);
  $("#page-number").max = $("#page-last").textContent = String(Math.max(1, Math.ceil(total / PAGE)));
  $("#page-back").disabled = first === 0;
  $("#page-forward").disabled = last >= total;
}

function tileKey(event, tile) {
  const place = tiles.indexOf(tile);
  const columns = getComputedStyle($("#gallery")).gridTemplateColumns.split(" ").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  if (event.key in steps) tiles[place + steps[event.key]]?.element.focus();
  else if (event.key === "Enter") page.open("label", tile.item.key);
  else if (event.key.toLowerCase() === "x" && tile.item.box) exchange(tile.item, pairsNow());
  else if (event.key.toLowerCase() === "a" && !event.ctrlKey && !event.metaKey) {
    accept([tile]);
    tiles[place + 1]?.element.focus();
  } else return;
  event.preventDefault();
  event.stopPropagation();
}

$("#review-stale").addEventListener("click", () => load());

/** A key was pressed while the tab was open; whether it was meant for it. */
export function key(event) {
  if (isTyping(event)) return false;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
    const step = event.shiftKey ? redo() : undo();
    if (step) toast(`${event.shiftKey ? "Did again:" : "Undid"} ${step.what}.`);
  } else if (event.key === "/") $("#search").focus();
  else if (event.key === ".") go(first + PAGE);
  else if (event.key === ",") go(first - PAGE);
  else return false;
  return true;
}
