// The picture of the Label tab: the image at hand, and its points to choose, place, move and accept.

import { $, toast } from "./dom.js";
import { change, changes, labels, learned, marksOf, nameOf } from "./labels.js";
import { accepted, stateOf } from "./points.js";
import { drawFrame, drawMark, Viewer } from "./viewer.js";

const REACH = 12; // screen pixels around a point that belong to it

export let item = null; // the image at hand, as the program described it
export let chosen = null; // id of a landmark
export let hushed = false; // points out of sight
export let viewer;
let hovered = null; // id of a landmark
let dragged = null; // {id, at}
let render;

/** `changed` is called when the image, its points or the choice are others. */
export function begin(changed) {
  render = changed;
  viewer = new Viewer($("#label-canvas"), { draw, press, click: place, hover });
  changes.addEventListener("landmarks", () => {
    keepChoice();
    render();
  });
  changes.addEventListener("marks", ({ detail }) => detail.includes(item?.key) && render());
}

/** Show an image, or the same as it is described now. */
export function show(found) {
  if (found.key !== item?.key) chosen = null;
  item = found;
  learned(item);
  keepChoice();
  viewer.show(item);
  render();
}

function keepChoice() {
  if (!labels.landmarks.some(({ id }) => id === chosen)) chosen = nextOpen() ?? labels.landmarks[0]?.id ?? null;
}

export const stateHere = (id) => stateOf(item, id);

/** The first landmark after another, round and round, that is not marked. */
export function nextOpen(after = null) {
  if (!item) return null;
  const marks = marksOf(item.key);
  const ids = labels.landmarks.map(({ id }) => id);
  const start = ids.indexOf(after) + 1;
  return [...ids.slice(start), ...ids.slice(0, start)].find((id) => !(id in marks)) ?? null;
}

// ---- what is done to them

function mark(what, given) {
  change(what, { marks: { [item.key]: { ...marksOf(item.key), ...given } } }, item.key);
}

export function choose(id) {
  chosen = id;
  const { at } = stateHere(id);
  if (at) viewer.reveal(at);
  render();
}

export function step(by) {
  const ids = labels.landmarks.map(({ id }) => id);
  if (ids.length) choose(ids[(ids.indexOf(chosen) + by + ids.length) % ids.length]);
}

export function nudge(dx, dy) {
  if (!item?.box || !chosen) return;
  const at = stateHere(chosen).at ?? viewer.middle();
  const moved = viewer.inside([at[0] + dx, at[1] + dy]);
  mark(`moving ${nameOf(chosen)}`, { [chosen]: moved });
  viewer.reveal(moved);
}

export function acceptAll() {
  const found = accepted(item);
  if (found.length) mark(`accepting ${item.name}`, Object.fromEntries(found));
}

export function acceptOne() {
  const { kind, at } = stateHere(chosen);
  if (kind !== "predicted") return;
  mark(`accepting ${nameOf(chosen)}`, { [chosen]: [...viewer.inside(at), "accepted"] });
  choose(nextOpen(chosen) ?? chosen);
}

export function hide() {
  if (!item || !chosen) return;
  if (stateHere(chosen).kind === "hidden") return clear();
  mark(`hiding ${nameOf(chosen)}`, { [chosen]: null });
  choose(nextOpen(chosen) ?? chosen);
}

export function clear() {
  if (!item || !chosen || !(chosen in marksOf(item.key))) return;
  const { [chosen]: _, ...others } = marksOf(item.key);
  change(`clearing ${nameOf(chosen)}`, { marks: { [item.key]: others } }, item.key);
}

export function hush() {
  hushed = !hushed;
  render();
}

// ---- the pointer

function near(point, event) {
  if (event.shiftKey) return null;
  const [x, y] = viewer.toScreen(point);
  const distances = labels.landmarks.flatMap(({ id }) => {
    const { at } = stateHere(id);
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
  const from = stateHere(id).at;
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

// ---- drawing

function draw(context) {
  if (!item) return;
  drawFrame(context, viewer, item);
  if (hushed) return;
  const order = [...labels.landmarks].sort((a, b) => (a.id === chosen) - (b.id === chosen));
  for (const { id, colour, name } of order) {
    const state = stateHere(id);
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
