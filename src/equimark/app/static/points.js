// Where the points of an image are: placed, hidden, or predicted.

import { labels, marksOf } from "./labels.js";
import { inside } from "./viewer.js";

/** A point of an image, which may be null: {kind: "set" | "accepted" | "hidden" | "predicted" | "none", at, sure}. */
export function stateOf(item, id) {
  if (!item) return { kind: "none" };
  const mark = marksOf(item.key)[id];
  if (mark) return { kind: mark[2] === "accepted" ? "accepted" : "set", at: mark };
  if (mark === null) return { kind: "hidden" };
  const found = item.predicted[id];
  return found ? { kind: "predicted", at: found, sure: found[2] } : { kind: "none" };
}

/** The points of an image for a tile: marks full, predictions hollow. */
export function pointsOf(item) {
  return labels.landmarks.flatMap(({ id, colour }) => {
    const { kind, at, sure } = stateOf(item, id);
    return at ? [{ at, colour, hollow: kind === "predicted", sure }] : [];
  });
}

/** The predictions of an image as marks: [[id, mark]]. */
export function accepted(item) {
  return labels.landmarks.flatMap(({ id }) => {
    const { kind, at } = stateOf(item, id);
    return kind === "predicted" ? [[id, [...inside(item.box, at), "accepted"]]] : [];
  });
}
