// The Label tab: place points, correct predictions, accept, go on to the next image.

import { get } from "./api.js";
import { $, fill, h, icon, isTyping, number, plural, toast } from "./dom.js";
import { canRedo, canUndo, changes, labels, learned, marksOf, nameOf, redo, saved, statusOf, undo } from "./labels.js";
import { LandmarkList } from "./landmarks.js";
import { exchange, exchangeOf, exchangeRemark, offer, pairsNow } from "./pairs.js";
import * as picture from "./picture.js";
import { accepted, pointsOf } from "./points.js";
import { Tile } from "./tile.js";

const STATUS = { new: "not checked", partial: "in progress", labelled: "labelled", accepted: "accepted" };

let page;
let list;
let turn = 0; // of openings: an answer to an earlier one is of no use

export function begin(everything) {
  page = everything;
  picture.begin(render);
  list = new LandmarkList($("#landmarks"), $("#add-landmark"), {
    chosen: () => picture.chosen,
    choose: picture.choose,
    done: () => $("#label-canvas").focus(),
    stateOf: picture.stateHere,
    colours: page.state.colours,
  });
  changes.addEventListener("reloaded", () => picture.item && open(picture.item.key));
  changes.addEventListener("remarks", renderRemarks);
  changes.addEventListener("saving", renderBars);
  for (const button of document.querySelectorAll("#label [data-do]")) {
    button.addEventListener("click", () => actions[button.dataset.do]());
  }
}

// ---- the image at hand, and those to come

/** Show the tab: the image that was asked for, or the one at hand, or the one to label next. */
export async function show(key) {
  if (key && key !== picture.item?.key) await open(key);
  else if (!picture.item) await next();
  else {
    page.went("label", picture.item.key);
    picture.viewer.resize();
    await refresh();
  }
  if (!labels.landmarks.length) $("#add-landmark").elements.name.focus();
  else $("#label-canvas").focus();
}

async function open(key) {
  const mine = (turn += 1);
  const found = await get(`/api/images/${key}`);
  if (mine !== turn) return;
  const another = key !== picture.item?.key;
  picture.show(found);
  page.went("label", key);
  if (another) suggest();
}

/** Something was learned or seen in the background. */
export async function learnedAnew() {
  if (picture.item) await refresh();
  await suggest();
}

async function refresh() {
  const mine = turn;
  const found = await get(`/api/images/${picture.item.key}`);
  if (mine === turn && found.key === picture.item.key) picture.show(found);
}

async function suggest() {
  const { items } = await get("/api/suggestions?count=7");
  const others = items.filter(({ key }) => key !== picture.item?.key).slice(0, 6);
  others.forEach(learned);
  fill($("#suggestions"), others.map((each) => {
    const tile = new Tile(each, { role: "button", tabindex: "0", title: each.name, "aria-label": `Open ${each.name}`, onclick: () => open(each.key), onkeydown: (event) => event.key === "Enter" && (event.stopPropagation(), open(each.key)) });
    tile.draw(pointsOf(each));
    return tile.element;
  }));
  for (const each of others.slice(0, 2)) new Image().src = each.picture; // so that they come up at once
  return others;
}

async function next() {
  const others = await suggest();
  const key = others[0]?.key ?? picture.item?.next ?? (await get("/api/images?count=1")).items[0]?.key;
  if (key && key !== picture.item?.key) await open(key);
  else if (!others.length && picture.item) toast("There is no image left to suggest.");
}

// ---- buttons and keys

const actions = {
  async acceptAll() {
    if (!picture.item) return;
    picture.acceptAll();
    await saved();
    await next();
  },
  acceptOne: picture.acceptOne,
  hide: picture.hide,
  clear: picture.clear,
  exchange: () => picture.item?.box && exchange(picture.item, pairsNow()),
  others() {
    const other = labels.remarks.exchanges.find(({ image }) => image !== picture.item?.key);
    if (other) open(other.image);
  },
  next,
  following: () => picture.item?.next && open(picture.item.next),
  previous: () => picture.item?.previous && open(picture.item.previous),
  undo: () => back(undo(), "Undid"),
  redo: () => back(redo(), "Did again:"),
  zoomIn: () => picture.viewer.zoom(1.5),
  zoomOut: () => picture.viewer.zoom(1 / 1.5),
  fit: () => picture.viewer.fit(),
  hush: picture.hush,
};

function back(step, words) {
  if (!step) return;
  if (step.key && step.key !== picture.item?.key && page.where() === "label") open(step.key);
  toast(`${words} ${step.what}.`);
}

const KEYS = {
  Enter: actions.acceptAll,
  a: actions.acceptOne,
  h: actions.hide,
  Delete: actions.clear,
  Backspace: actions.clear,
  n: () => picture.step(1),
  b: () => picture.step(-1),
  s: actions.next,
  x: actions.exchange,
  ".": actions.following,
  ",": actions.previous,
  PageDown: actions.following,
  PageUp: actions.previous,
  "+": actions.zoomIn,
  "=": actions.zoomIn,
  "-": actions.zoomOut,
  0: actions.fit,
  v: actions.hush,
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
  else if (/^[1-9]$/.test(letter)) picture.choose(labels.landmarks[letter - 1]?.id ?? picture.chosen);
  else if (letter in ARROWS) {
    const by = event.shiftKey ? 10 : 1;
    picture.nudge(by * ARROWS[letter][0], by * ARROWS[letter][1]);
  } else if (letter in KEYS) KEYS[letter]();
  else return false;
  return true;
}

// ---- what stands around the picture

function render() {
  const { item, viewer } = picture;
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
  const { item, chosen } = picture;
  $("#label [data-do=undo]").disabled = !canUndo();
  $("#label [data-do=redo]").disabled = !canRedo();
  $("#label [data-do=hush]").setAttribute("aria-pressed", String(picture.hushed));
  $("#label [data-do=previous]").disabled = !item?.previous;
  $("#label [data-do=following]").disabled = !item?.next;
  if (!item) return;
  const open = accepted(item).length;
  const set = Object.keys(marksOf(item.key)).length;
  $("#accept-words").textContent = open ? `Accept ${open}, next` : "Next image";
  $("#image-summary").textContent = labels.landmarks.length
    ? `${set} of ${plural(labels.landmarks.length, "point")} set`
    : "";
  const one = picture.stateHere(chosen).kind;
  $("#label [data-do=acceptOne]").disabled = one !== "predicted";
  $("#label [data-do=hide]").disabled = !chosen;
  $("#hide-words").textContent = one === "hidden" ? "Visible" : "Not visible";
  $("#label [data-do=clear]").disabled = !(chosen && chosen in marksOf(item.key));
}

/** What the program remarks: pairs that the names propose, left and right exchanged here or elsewhere. */
function renderRemarks() {
  const { item } = picture;
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
  const { item, chosen, stateHere } = picture;
  const box = $("#coach");
  const open = picture.nextOpen();
  const dot = (id) => {
    const swatch = h("i", { class: "swatch" });
    swatch.style.setProperty("--colour", labels.landmarks.find((each) => each.id === id).colour);
    return swatch;
  };
  if (item.unreadable) fill(box, `This image cannot be read: ${item.unreadable}`);
  else if (!labels.landmarks.length) fill(box, "Name your first point on the left, for example “left eye”.");
  else if (!open) fill(box, icon("accept"), "All points are set. Press ", h("kbd", {}, "Enter"), " for the next image.");
  else if (accepted(item).length && chosen && stateHere(chosen).kind !== "none") {
    fill(box, "Hollow points are predicted: drag those that are off, then press ", h("kbd", {}, "Enter"));
  } else {
    const id = chosen && stateHere(chosen).kind !== "hidden" ? chosen : open;
    fill(box, "Click on ", dot(id), h("b", {}, nameOf(id)), stateHere(id).at ? "to place it anew" : "");
  }
}
