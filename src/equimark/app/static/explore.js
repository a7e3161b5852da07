// The Explore tab: a point of one image found on the others.

import { get, post, withQuery } from "./api.js";
import { $, fill, h, icon, isTyping, percent, toast } from "./dom.js";
import { mapOf } from "./maps.js";
import { Tile } from "./tile.js";
import { drawFrame, drawMark, Viewer } from "./viewer.js";

const OTHERS = 20;
const REACH = 12;
const FAINT = 0.15; // confidence below which a point is as good as not found

let page;
let sparse = false;
let viewer;
let source = null; // the large image
let tiles = [];
let points = []; // {key, at, colour}
let chosen = null; // place in points, or of an own landmark
let mode = "points";
let sights = {};
let passing = null; // where the pointer is: a point for the moment
let seed = 1;
let shown = []; // the points that the sights are of
let asking = false;
let again = false;

export function begin(everything) {
  page = everything;
  sparse = page.state.own_landmarks > 0;
  viewer = new Viewer($("#explore-canvas"), { draw: drawSource, press, click, hover });
  $("#explore").classList.toggle("sparse", sparse);
  for (const button of document.querySelectorAll("#modes [data-mode]")) {
    button.addEventListener("click", () => setMode(button.dataset.mode));
  }
  $("#shuffle").addEventListener("click", () => shuffle());
  $("#own-points").hidden = !page.state.landmarks_beside;
  $("#own-points").addEventListener("click", () => placeOwn());
  $("#clear-points").addEventListener("click", () => setPoints([]));
  if (sparse) points = page.state.colours.slice(0, page.state.own_landmarks).map((colour) => ({ colour }));
}

export async function show(key) {
  if (key || !source) await open(key ?? (await firstKey()));
  else page.went("explore", source.key);
  if (!tiles.length) await shuffle(false);
  viewer.resize();
  render();
}

/** Suggested images are typical ones: good to begin with. */
async function firstKey() {
  const [suggested] = (await get("/api/suggestions?count=1")).items;
  return suggested?.key ?? (await get("/api/images?count=1")).items[0].key;
}

async function open(key) {
  source = await get(`/api/images/${key}`);
  page.went("explore", key);
  viewer.show(source);
  $("#source-name").textContent = source.name;
  await look();
}

async function shuffle(next = true) {
  if (next) seed += 1;
  const { items } = await get(withQuery("/api/images", { order: "random", seed, count: OTHERS + 1 }));
  const others = items.filter(({ key, unreadable }) => key !== source?.key && !unreadable).slice(0, OTHERS);
  tiles = others.map(tileOf);
  fill($("#others"), tiles.map(({ element }) => element));
  await look();
}

function tileOf(item) {
  const large = h("button", { type: "button", class: "round", title: "Show large", "aria-label": `Show ${item.name} large`, onclick: (event) => { event.stopPropagation(); swap(item); } }, icon("source"));
  const tile = new Tile(item, {
    title: sparse ? "Show large" : "Click a point to find it on the others",
    onclick: (event) => (sparse || !tile.item.box ? swap(item) : addPoint(tile.item, tile.placeOf(event))),
    corner: [h("span", { class: "corner" }, large), h("output", { class: "sure", title: "share of the heat map around the place found; no probability" })],
    caption: [h("span", { class: "file", title: item.name }, item.name)],
  });
  return tile;
}

/** A tile becomes the large image, and the large image a tile. */
async function swap(item) {
  const place = tiles.findIndex((tile) => tile.item.key === item.key);
  const old = source;
  source = null;
  await open(item.key);
  if (place >= 0) {
    tiles[place] = tileOf(old);
    fill($("#others"), tiles.map(({ element }) => element));
  }
  await look();
}

/** Whether a place lies in the part of an image that the model sees. */
function isSeen({ frame }, [x, y]) {
  return !frame || (x >= frame[0] - 0.5 && y >= frame[1] - 0.5 && x <= frame[2] - 0.5 && y <= frame[3] - 0.5);
}

// ---- points

function addPoint(item, at) {
  if (!isSeen(item, at)) return toast("The model does not see this part of the image.");
  const used = new Set(points.map(({ colour }) => colour));
  const colour = page.state.colours.find((each) => !used.has(each)) ?? page.state.colours[0];
  return setPoints([...points, { key: item.key, at: at.map((each) => Math.round(10 * each) / 10), colour }], points.length);
}

/** The landmarks that the run has beside descriptors take the place of the points. */
async function placeOwn() {
  const { key } = source;
  const { points: own } = await get(`/api/images/${key}/own-points`);
  const { colours } = page.state;
  if (key === source?.key) setPoints(own.map((at, i) => ({ key, at, colour: colours[i % colours.length] })), 0);
}

function setPoints(given, pick = null) {
  points = given;
  chosen = pick !== null && pick < points.length ? pick : points.length ? points.length - 1 : null;
  passing = null;
  if (points.length < 2 && mode === "colours") mode = "points";
  render();
  look();
}

function at(place) {
  const point = points[place];
  if (!sparse && point.key === source.key) return [...point.at, 1];
  return sights[source.key]?.points[place];
}

function near([x, y]) {
  const [px, py] = viewer.toScreen([x, y]);
  const places = points.flatMap((_, i) => {
    const found = at(i);
    if (!found) return [];
    const [qx, qy] = viewer.toScreen(found);
    return Math.hypot(px - qx, py - qy) <= REACH ? [i] : [];
  });
  return places.at(-1) ?? null;
}

function press(point) {
  const place = near(point);
  if (place === null) return null;
  choose(place);
  if (sparse || points[place].key !== source.key) return { move() {}, end() {} };
  return {
    move(here) {
      const to = viewer.inside(here);
      if (isSeen(source, to)) points[place] = { ...points[place], at: to };
      look();
    },
    end() {
      look();
    },
  };
}

function click(point) {
  if (sparse) return;
  const [x0, y0, x1, y1] = source.box;
  if (point[0] < x0 - 0.5 || point[1] < y0 - 0.5 || point[0] > x1 - 0.5 || point[1] > y1 - 0.5) return;
  addPoint(source, viewer.inside(point));
}

function hover(point) {
  if (sparse || !source?.box) return;
  const [x0, y0, x1, y1] = source.box;
  const inside = point && point[0] > x0 - 0.5 && point[1] > y0 - 0.5 && point[0] < x1 - 0.5 && point[1] < y1 - 0.5;
  const follow = $("#follow").checked && (mode === "points" || mode === "heat");
  const before = passing;
  passing = inside && isSeen(source, point) && follow && near(point) === null ? { key: source.key, at: point, colour: "#ffffff" } : null;
  if (passing || before) {
    viewer.redraw();
    look();
  }
}

function choose(place) {
  chosen = place;
  render();
  if (mode === "heat") look();
  else draw();
}

function setMode(wanted) {
  if (wanted === "colours" && points.length < 2) return toast("Choose two points or more first.");
  mode = wanted;
  render();
  return look();
}

// ---- asking

/** Ask for what is to be seen; while an answer is on its way, only the last wish is kept. */
async function look() {
  if (!source) return;
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    do {
      again = false;
      await lookOnce();
    } while (again);
  } catch (error) {
    page.failed(error);
  } finally {
    asking = false;
  }
}

async function lookOnce() {
  const targets = [source.key, ...tiles.map(({ item }) => item.key)];
  const wanted = sparse ? [] : [...points, ...(passing ? [passing] : [])];
  const heat = passing ? wanted.length - 1 : chosen;
  const quiet = !sparse && !wanted.length && mode !== "place";
  const asked = {
    points: wanted.map(({ key, at: [x, y] }) => [key, x, y]),
    targets,
    heat_of: mode === "heat" ? heat : null,
    colours: mode === "colours" ? wanted.map(({ colour }) => colour) : null,
    reference: mode === "place" ? source.key : null,
  };
  sights = quiet ? {} : (await post("/api/explore", asked)).sights;
  const missing = tiles.filter(({ item }) => !item.box && sights[item.key]);
  for (const tile of missing) Object.assign(tile.item, await get(`/api/images/${tile.item.key}`));
  shown = sparse ? points : wanted;
  draw();
}

// ---- drawing

function draw() {
  viewer.redraw();
  const centre = passing && shown.length ? shown.length - 1 : chosen;
  for (const tile of tiles) {
    const sight = sights[tile.item.key];
    const found = sight?.points ?? [];
    tile.draw(found.map(([x, y, sure], i) => ({
      at: !sparse && shown[i].key === tile.item.key ? shown[i].at : [x, y],
      colour: shown[i].colour,
      sure,
      hollow: sure < FAINT || (mode === "heat" && i === centre),
      chosen: i === centre,
      faint: (sparse || mode === "heat") && centre !== null && i !== centre,
    })));
    tile.drawMap(mapOf(sight));
    tile.element.querySelector(".sure").textContent = centre !== null && found[centre] ? percent(found[centre][2]) : "";
  }
}

function drawSource(context) {
  const sight = source && sights[source.key];
  const map = mapOf(sight);
  if (map) {
    context.save();
    context.globalAlpha = map.alpha;
    context.imageSmoothingEnabled = true;
    viewer.drawOver(map.canvas, map.box);
    context.restore();
  }
  if (source) drawFrame(context, viewer, source);
  points.forEach(({ colour, key }, i) => {
    const found = at(i);
    if (!found) return;
    const own = sparse || key === source.key;
    drawMark(context, viewer.toScreen(found), { colour, chosen: i === chosen, hollow: !own, sure: found[2] ?? 1, name: i === chosen && sparse ? `${i + 1}` : "" });
  });
  if (passing) drawMark(context, viewer.toScreen(passing.at), { colour: passing.colour, hollow: true });
}

function render() {
  viewer.redraw();
  for (const button of document.querySelectorAll("#modes [data-mode]")) {
    button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    button.classList.toggle("off", button.dataset.mode === "colours" && points.length < 2);
  }
  $("#clear-points").hidden = sparse || !points.length;
  $("#explore-hint").textContent = sparse
    ? `This run has found ${points.length} landmarks of its own. Choose one to follow it.`
    : HINTS[mode][Math.min(points.length, 1)];
  fill($("#points"), points.map(({ colour }, i) => chip(colour, i)));
}

const HINTS = {
  points: ["Click a point on the picture: it is found on all the others.", "Click more points, drag them, or click one on another picture."],
  heat: ["Click a point: the heat shows where it might be on the others.", "The heat shows where the chosen point might be."],
  colours: ["", "Every place takes the colour of the point it resembles most."],
  place: ["What has the same colour resembles the same place.", "What has the same colour resembles the same place."],
};

function chip(colour, place) {
  const swatch = h("i", { class: "swatch" });
  swatch.style.setProperty("--colour", colour);
  return h("li", { class: place === chosen ? "point chosen" : "point" },
    h("button", { type: "button", class: "plain", "aria-pressed": String(place === chosen), onclick: () => choose(sparse && place === chosen ? null : place) }, swatch, String(place + 1)),
    sparse ? null : h("button", { type: "button", class: "plain", "aria-label": `Remove point ${place + 1}`, onclick: () => setPoints(points.filter((_, i) => i !== place)) }, icon("close")));
}

/** A key was pressed while the tab was open; whether it was meant for it. */
export function key(event) {
  if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return false;
  const modes = { 1: "points", 2: "heat", 3: "colours", 4: "place" };
  if (event.key in modes && !sparse) setMode(modes[event.key]);
  else if (event.key === "r") shuffle();
  else if ((event.key === "Delete" || event.key === "Backspace") && chosen !== null && !sparse) setPoints(points.filter((_, i) => i !== chosen));
  else if (event.key === "+" || event.key === "=") viewer.zoom(1.5);
  else if (event.key === "-") viewer.zoom(1 / 1.5);
  else if (event.key === "0") viewer.fit();
  else return false;
  return true;
}
