// The Label tab: place points, correct predictions, accept, go on to the next image.

import { get } from "./api.js";
import { $, fill, h, icon, isTyping, number, plural, toast } from "./dom.js";
import { canRedo, canUndo, change, changes, labels, learned, marksOf, redo, saved, statusOf, undo } from "./labels.js";
import { LandmarkList } from "./landmarks.js";
import { exchange, exchangeOf, exchangeRemark, offer, pairsNow } from "./pairs.js";
import { Tile } from "./tile.js";
import { drawFrame, drawMark, Viewer } from "./viewer.js";

const REACH = 12; // screen pixels around a point that belong to it
const STATUS = { new: "not checked", partial: "in progress", labelled: "labelled", accepted: "accepted" };

let page;
let item = null; // the image at hand, as the program described it
let chosen = null; // id of a landmark
let hovered = null;
let hushed = false; // points out of sight
let viewer;
let list;
let turn = 0; // of openings: an answer to an earlier one is of no use

export function begin(everything) {
  page = everything;
  viewer = new Viewer($("#label-canvas"), { draw: drawPoints, press, click: place, hover });
  list = new LandmarkList($("#landmarks"), $("#add-landmark"), {
    chosen: () => chosen,
    choose,
    done: () => $("#label-canvas").focus(),
    stateOf,
    colours: page.state.colours,
  });
  changes.addEventListener("landmarks", () => {
    if (!labels.landmarks.some(({ id }) => id === chosen)) chosen = nextOpen() ?? labels.landmarks[0]?.id ?? null;
    render();
  });
  changes.addEventListener("marks", ({ detail }) => detail.includes(item?.key) && render());
  changes.addEventListener("reloaded", () => item && open(item.key));
  changes.addEventListener("remarks", renderRemarks);
  changes.addEventListener("saving", renderBars);
  for (const button of document.querySelectorAll("#label [data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
}

/** Show the tab: the image that was asked for, or the one at hand, or the one to label next. */
export async function show(key) {
  if (key && key !== item?.key) await open(key);
  else if (!item) await next();
  else {
    page.went("label", item.key);
    viewer.resize();
    await refresh();
  }
  if (!labels.landmarks.length) $("#add-landmark").elements.name.focus();
  else $("#label-canvas").focus();
}

async function open(key) {
  const mine = (turn += 1);
  const found = await get(`/api/images/${key}`);
  if (mine !== turn) return;
  const another = key !== item?.key;
  item = found;
  learned(item);
  page.went("label", key);
  if (another || !labels.landmarks.some(({ id }) => id === chosen)) chosen = nextOpen() ?? labels.landmarks[0]?.id ?? null;
  viewer.show(item);
  render();
  if (another) suggest();
}

/** Something was learned or seen in the background. */
export async function learnedAnew() {
  if (item) await refresh();
  await suggest();
}

async function refresh() {
  const mine = turn;
  const found = await get(`/api/images/${item.key}`);
  if (mine !== turn || found.key !== item.key) return;
  learned(found);
  item = found;
  viewer.show(item);
  render();
}

async function suggest() {
  const { items } = await get("/api/suggestions?count=7");
  const others = items.filter(({ key }) => key !== item?.key).slice(0, 6);
  fill($("#suggestions"), others.map((each) => {
    const tile = new Tile(each, { role: "button", tabindex: "0", title: each.name, "aria-label": `Open ${each.name}`, onclick: () => open(each.key), onkeydown: (event) => event.key === "Enter" && (event.stopPropagation(), open(each.key)) });
    tile.draw(pointsOf(each));
    return tile.element;
  }));
  for (const each of others.slice(0, 2)) new Image().src = each.picture; // so that they come up at once
  return others;
}

/** Points of any image for a tile: marks full, predictions hollow. */
export function pointsOf(each) {
  const marks = labels.marks.has(each.key) ? marksOf(each.key) : each.marks;
  return labels.landmarks.flatMap(({ id, colour }) => {
    const mark = marks[id];
    if (mark) return [{ at: mark, colour }];
    const found = mark === undefined ? each.predicted[id] : null;
    return found ? [{ at: found, colour, hollow: true, sure: found[2] }] : [];
  });
}

// ---- the points of the image at hand

function stateOf(id) {
  if (!item) return { kind: "none" };
  const mark = marksOf(item.key)[id];
  if (mark) return { kind: mark[2] === "accepted" ? "accepted" : "set", at: mark };
  if (mark === null) return { kind: "hidden" };
  const found = item.predicted[id];
  return found ? { kind: "predicted", at: found, sure: found[2] } : { kind: "none" };
}

const nameOf = (id) => labels.landmarks.find((each) => each.id === id)?.name;

/** The first landmark after another, round and round, that is not marked. */
function nextOpen(after = null) {
  if (!item) return null;
  const marks = marksOf(item.key);
  const ids = labels.landmarks.map(({ id }) => id);
  const start = ids.indexOf(after) + 1;
  return [...ids.slice(start), ...ids.slice(0, start)].find((id) => !(id in marks)) ?? null;
}

function mark(what, given) {
  change(what, { marks: { [item.key]: { ...marksOf(item.key), ...given } } }, item.key);
}

function choose(id) {
  chosen = id;
  const { at } = stateOf(id);
  if (at) viewer.reveal(at);
  render();
}

function step(by) {
  const ids = labels.landmarks.map(({ id }) => id);
  if (ids.length) choose(ids[(ids.indexOf(chosen) + by + ids.length) % ids.length]);
}

function near(point, event) {
  if (event.shiftKey) return null;
  const [x, y] = viewer.toScreen(point);
  const distances = labels.landmarks.flatMap(({ id }) => {
    const { at } = stateOf(id);
    if (!at || hushed) return [];
    const [px, py] = viewer.toScreen(at);
    return [{ id, distance: Math.hypot(px - x, py - y) - (id === chosen ? 2 : 0) }];
  });
  const best = distances.sort((a, b) => a.distance - b.distance)[0];
  return best && best.distance <= REACH ? best.id : null;
}

function press(point, event) {
  const id = near(point, event);
  if (!id) return null;
  const from = stateOf(id).at;
  const offset = [from[0] - point[0], from[1] - point[1]];
  let at = null;
  choose(id);
  return {
    move(here) {
      at = viewer.inside([here[0] + offset[0], here[1] + offset[1]]);
      dragged = { id, at };
      viewer.redraw();
    },
    end(moved) {
      dragged = null;
      if (moved && at) mark(`moving ${nameOf(id)}`, { [id]: at });
      viewer.redraw();
    },
  };
}

let dragged = null;

function place(point, event) {
  if (!labels.landmarks.length) {
    toast("Name a point first, on the left.");
    $("#add-landmark").elements.name.focus();
    return;
  }
  const [x0, y0, x1, y1] = item.box;
  const [x, y] = point;
  if (near(point, event) || x < x0 - 0.5 || y < y0 - 0.5 || x > x1 - 0.5 || y > y1 - 0.5) return;
  put(viewer.inside(point));
}

/** Place the chosen landmark, and go on to the next that is open. */
function put(at) {
  const id = chosen ?? labels.landmarks[0].id;
  const fresh = !(id in marksOf(item.key));
  mark(`placing ${nameOf(id)}`, { [id]: at });
  if (fresh) chosen = nextOpen(id) ?? id;
  render();
}

function hover(point, event) {
  const id = point && item ? near(point, event) : null;
  $("#label-canvas").classList.toggle("over-point", Boolean(id));
  if (id !== hovered) {
    hovered = id;
    viewer.redraw();
  }
}

function nudge(dx, dy) {
  if (!item?.box || !chosen) return;
  const at = stateOf(chosen).at ?? viewer.middle();
  const moved = viewer.inside([at[0] + dx, at[1] + dy]);
  mark(`moving ${nameOf(chosen)}`, { [chosen]: moved });
  viewer.reveal(moved);
}

function predictions() {
  return labels.landmarks.flatMap(({ id }) => {
    const state = stateOf(id);
    return state.kind === "predicted" ? [[id, [...viewer.inside(state.at), "accepted"]]] : [];
  });
}

const actions = {
  async acceptAll() {
    if (!item) return;
    const found = predictions();
    if (found.length) mark(`accepting ${item.name}`, Object.fromEntries(found));
    await saved();
    await next();
  },
  acceptOne() {
    const state = chosen && stateOf(chosen);
    if (state?.kind !== "predicted") return;
    mark(`accepting ${nameOf(chosen)}`, { [chosen]: [...viewer.inside(state.at), "accepted"] });
    choose(nextOpen(chosen) ?? chosen);
  },
  hide() {
    if (!item || !chosen) return;
    const { kind } = stateOf(chosen);
    if (kind === "hidden") return actions.clear();
    mark(`hiding ${nameOf(chosen)}`, { [chosen]: null });
    choose(nextOpen(chosen) ?? chosen);
  },
  clear() {
    if (!item || !chosen || !(chosen in marksOf(item.key))) return;
    const { [chosen]: _, ...others } = marksOf(item.key);
    change(`clearing ${nameOf(chosen)}`, { marks: { [item.key]: others } }, item.key);
  },
  exchange: () => item?.box && exchange(item, pairsNow()),
  others() {
    const other = labels.remarks.exchanges.find(({ image }) => image !== item?.key);
    if (other) open(other.image);
  },
  next: () => next(),
  following: () => item?.next && open(item.next),
  previous: () => item?.previous && open(item.previous),
  undo: () => back(undo(), "Undid"),
  redo: () => back(redo(), "Did again:"),
  zoomIn: () => viewer.zoom(1.5),
  zoomOut: () => viewer.zoom(1 / 1.5),
  fit: () => viewer.fit(),
  hush() {
    hushed = !hushed;
    render();
  },
};

function back(step, words) {
  if (!step) return;
  if (step.key && step.key !== item?.key && page.where() === "label") open(step.key);
  toast(`${words} ${step.what}.`);
}

async function next() {
  const others = await suggest();
  const key = others[0]?.key ?? item?.next ?? (await firstKey());
  if (key && key !== item?.key) await open(key);
  else if (!others.length && item) toast("There is no image left to suggest.");
}

async function firstKey() {
  return (await get("/api/images?count=1")).items[0]?.key;
}

const KEYS = {
  Enter: () => actions.acceptAll(),
  a: () => actions.acceptOne(),
  h: () => actions.hide(),
  Delete: () => actions.clear(),
  Backspace: () => actions.clear(),
  n: () => step(1),
  b: () => step(-1),
  s: () => actions.next(),
  x: () => actions.exchange(),
  ".": () => actions.following(),
  ",": () => actions.previous(),
  PageDown: () => actions.following(),
  PageUp: () => actions.previous(),
  "+": () => actions.zoomIn(),
  "=": () => actions.zoomIn(),
  "-": () => actions.zoomOut(),
  0: () => actions.fit(),
  v: () => actions.hush(),
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** A key was pressed while the tab was open; whether it was meant for it. */
export function key(event) {
  if (isTyping(event)) return false;
  const command = event.ctrlKey || event.metaKey;
  const letter = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (command && letter === "z") (event.shiftKey ? actions.redo : actions.undo)();
  else if (command && letter === "y") actions.redo();
  else if (command || event.altKey) return false;
  else if (letter === "Enter" && event.target.closest("button, a, [role=button], [role=tab]")) return false;
  else if (event.target.closest("[role=tab]") && letter in ARROWS) return false;
  else if (/^[1-9]$/.test(letter)) choose(labels.landmarks[letter - 1]?.id ?? chosen);
  else if (letter in ARROWS) {
    const by = event.shiftKey ? 10 : 1;
    nudge(by * ARROWS[letter][0], by * ARROWS[letter][1]);
  } else if (letter in KEYS) KEYS[letter]();
  else return false;
  return true;
}

// ---- drawing

function drawPoints(context) {
  if (!item) return;
  drawFrame(context, viewer, item);
  if (hushed) return;
  const order = [...labels.landmarks].sort((a, b) => (a.id === chosen) - (b.id === chosen));
  for (const { id, colour, name } of order) {
    const state = stateOf(id);
    const at = dragged?.id === id ? dragged.at : state.at;
    if (!at) continue;
    drawMark(context, viewer.toScreen(at), {
      colour,
      hollow: state.kind === "predicted" && dragged?.id !== id,
      chosen: id === chosen,
      sure: state.sure ?? 1,
      name: id === chosen || id === hovered ? name : "",
    });
  }
}

function render() {
  viewer.redraw();
  list.render();
  renderBars();
  renderRemarks();
  $("#landmark-count").textContent = labels.landmarks.length ? number.format(labels.landmarks.length) : "";
  $("#landmarks-empty").hidden = labels.landmarks.length > 0;
  if (!item) return;
  const status = statusOf(item.key);
  $("#image-name").textContent = item.name;
  $("#image-name").title = item.name;
  $("#image-place").textContent = `${number.format(item.index + 1)} of ${number.format(page.state.count)}`;
  $("#image-status").textContent = STATUS[status];
  $("#image-status").className = `chip ${status}`;
  coach();
}

function renderBars() {
  $("#label [data-do=undo]").disabled = !canUndo();
  $("#label [data-do=redo]").disabled = !canRedo();
  $("#label [data-do=hush]").setAttribute("aria-pressed", String(hushed));
  $("#label [data-do=previous]").disabled = !item?.previous;
  $("#label [data-do=following]").disabled = !item?.next;
  if (!item) return;
  const open = predictions().length;
  const set = Object.keys(marksOf(item.key)).length;
  $("#accept-words").textContent = open ? `Accept ${open}, next` : "Next image";
  $("#image-summary").textContent = labels.landmarks.length
    ? `${set} of ${plural(labels.landmarks.length, "point")} set`
    : "";
  const one = chosen && stateOf(chosen).kind;
  $("#label [data-do=acceptOne]").disabled = one !== "predicted";
  $("#label [data-do=hide]").disabled = !chosen;
  $("#hide-words").textContent = one === "hidden" ? "Visible" : "Not visible";
  $("#label [data-do=clear]").disabled = !(chosen && chosen in marksOf(item.key));
}

/** What the program remarks: pairs that the names propose, left and right exchanged here or elsewhere. */
function renderRemarks() {
  const question = offer();
  $("#offer").hidden = !question;
  fill($("#offer"), question ?? []);
  const remark = item && exchangeOf(item.key);
  $("#coach").hidden = Boolean(remark);
  $("#remark").hidden = !remark;
  fill($("#remark"), remark ? exchangeRemark(item, remark) : []);
  const others = labels.remarks.exchanges.filter(({ image }) => image !== item?.key).length;
  $("#exchanged-others").hidden = !others;
  $("#exchanged-words").textContent = `Left and right exchanged on ${plural(others, "other image")}?`;
}

/** One line that says what to do now. */
function coach() {
  const box = $("#coach");
  const open = nextOpen();
  const found = predictions();
  const dot = (id) => {
    const swatch = h("i", { class: "swatch" });
    swatch.style.setProperty("--colour", labels.landmarks.find((each) => each.id === id).colour);
    return swatch;
  };
  if (item.unreadable) fill(box, `This image cannot be read: ${item.unreadable}`);
  else if (!labels.landmarks.length) fill(box, "Name your first point on the left, for example “left eye”.");
  else if (!open) fill(box, icon("accept"), "All points are set. Press ", h("kbd", {}, "Enter"), " for the next image.");
  else if (found.length && chosen && stateOf(chosen).kind !== "none") {
    fill(box, "Hollow points are predicted: drag those that are off, then press ", h("kbd", {}, "Enter"));
  } else {
    const id = chosen && stateOf(chosen).kind !== "hidden" ? chosen : open;
    fill(box, "Click on ", dot(id), h("b", {}, nameOf(id)), stateOf(id).at ? "to place it anew" : "");
  }
}
