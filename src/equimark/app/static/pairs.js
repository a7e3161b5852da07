// Points that change places in a mirror: declared in pairs, and exchanged where left and right were confused.

import { h, icon, plural, toast } from "./dom.js";
import { change, labels, marksOf, nameOf, undo } from "./labels.js";
import { inside } from "./viewer.js";

const keyOf = (...pair) => pair.sort().join(" = "); // as the program knows the remark that two look like a pair

/** The declared pairs of ids, each once. */
export function pairsNow() {
  return labels.landmarks.flatMap(({ id, mirror }, i) => {
    const place = labels.landmarks.findIndex((each) => each.id === mirror);
    return place > i ? [[id, mirror]] : [];
  });
}

/** A point shall be the mirror image of another, or of none. A pair that is given up is not proposed again. */
export function pair(id, other) {
  const given = labels.landmarks.filter((each) => [id, other].includes(each.id) && each.mirror && each.mirror !== other && each.mirror !== id);
  const dismissed = [...new Set([...labels.dismissed, ...given.map((each) => keyOf(each.id, each.mirror))])];
  const landmarks = paired(without(without(labels.landmarks, id), other), [[id, other]]);
  const what = other ? `${nameOf(id)} and ${nameOf(other)} as a pair` : `${nameOf(id)} without mirror image`;
  change(what, { landmarks, dismissed });
}

/** Landmarks that no longer mirror one. */
export function without(landmarks, id) {
  return landmarks.map((each) => (id && (each.mirror === id || each.id === id) ? { ...each, mirror: null } : each));
}

function paired(landmarks, pairs) {
  const mirrors = new Map(pairs.flatMap(([a, b]) => [[a, b], [b, a]]));
  return landmarks.map((each) => (mirrors.has(each.id) ? { ...each, mirror: mirrors.get(each.id) } : each));
}

/** What names propose, as a question; null if they propose nothing. */
export function offer() {
  const proposed = labels.remarks.pairs;
  if (!proposed.length) return null;
  const pairs = proposed.map(({ pair }) => pair);
  const [first] = pairs.map((each) => each.map(nameOf));
  const list = pairs.map((each) => each.map(nameOf).join(" – ")).join("\n");
  const words = pairs.length === 1
    ? [h("b", {}, first[0]), " and ", h("b", {}, first[1]), " look like a pair. Use them as mirror images?"]
    : [h("b", { title: list }, `${plural(pairs.length, "pair")} of left and right`), `, such as ${first[0]} and ${first[1]}. Use them as mirror images?`];
  const yes = () => change(`declaring ${plural(pairs.length, "pair")}`, { landmarks: paired(labels.landmarks, pairs) });
  const no = () => change("leaving points unpaired", { dismissed: [...labels.dismissed, ...proposed.map(({ key }) => key)] });
  return [
    h("p", {}, ...words),
    h("span", { class: "row" }, h("button", { type: "button", class: "quiet", onclick: yes }, "Yes"), h("button", { type: "button", class: "quiet", onclick: no }, "No")),
  ];
}

/** Which pairs seem to be exchanged on an image, if any: {key, pairs, whole}. */
export const exchangeOf = (key) => labels.remarks.exchanges.find(({ image }) => image === key);

/** It in words, to act upon or to dismiss; in few words on a tile. */
export function exchangeRemark(item, remark, { short = false } = {}) {
  const [first] = remark.pairs.map((each) => each.map(nameOf).join(" and "));
  const what = remark.whole ? "Left and right" : remark.pairs.length === 1 ? first : plural(remark.pairs.length, "pair");
  const words = `${what[0].toUpperCase()}${what.slice(1)} seem to be exchanged`;
  const quietly = (run) => (event) => {
    event.stopPropagation();
    run();
  };
  return [
    h("span", { title: `${words}, compared with the other labelled images` }, short ? "Exchanged?" : words),
    h("button", { type: "button", class: "do", "aria-label": `Exchange them: ${item.name}`, onclick: quietly(() => exchange(item, remark.pairs)) }, short ? "Exchange" : "Exchange them"),
    h("button", { type: "button", class: "plain", title: "They are right: do not say so again", "aria-label": `Dismiss: ${item.name}`, onclick: quietly(() => dismiss(item, remark)) }, icon("close")),
  ];
}

function dismiss(item, remark) {
  change("dismissing a remark", { dismissed: [...labels.dismissed, remark.key] }, item.key);
  toast("This will not be remarked again.", { name: "Undo", run: undo });
}

/** Have the two points of each pair change places on an image, those that are predicted, too. */
export function exchange(item, pairs) {
  const before = marksOf(item.key);
  const found = (id) => item.predicted[id] && inside(item.box, item.predicted[id]);
  const shown = (id) => (id in before ? before[id] : found(id));
  const places = pairs.flatMap(([a, b]) => [[a, shown(b)], [b, shown(a)]]);
  if (!places.some(([, place]) => place)) {
    toast(pairs.length ? "No point of a pair is shown here." : "No points are declared as left and right: choose in the list which is the mirror image of which.");
    return;
  }
  const moved = new Set(places.map(([id]) => id));
  const kept = Object.entries(before).filter(([id]) => !moved.has(id));
  const given = places.filter(([, place]) => place !== undefined).map(([id, place]) => [id, place && place.slice(0, 2)]);
  change(`exchanging left and right on ${item.name}`, { marks: { [item.key]: Object.fromEntries([...kept, ...given]) } }, item.key);
  toast("Exchanged left and right.", { name: "Undo", run: undo });
}
