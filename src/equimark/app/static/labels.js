// The labels as this window knows them: changed at once on the screen, then saved one after the other.
//
// A change is {landmarks: [...], dismissed: [...]}, of which one may be left out, or {marks: {key: {id: mark}}}, a mark
// [x, y], [x, y, "accepted"] or null (not visible). Every change can be undone, also those that the program kept from
// before the page was loaded. The program refuses one that was made on older labels than it has.
//
// Images keep the marks of deleted landmarks, so that undoing brings them back.

import { get, put, Refusal, Silence } from "./api.js";
import { clearNotice, clearToast, notice, toast } from "./dom.js";

const RETRY = 1500; // milliseconds

/** Tells "landmarks", "marks" (detail: keys), "remarks", "saving" and "reloaded". */
export const changes = new EventTarget();
const tell = (name, detail) => changes.dispatchEvent(new CustomEvent(name, { detail }));

/** `remarks` are what the program makes of the labels: pairs that names propose, and labels that seem exchanged. */
export const labels = { landmarks: [], dismissed: [], revision: 0, marks: new Map(), remarks: { pairs: [], exchanges: [] } };

const queue = [];
let working = false;
let silent = false;
const past = [];
const future = [];

export function begin(state) {
  labels.landmarks = state.landmarks;
  labels.dismissed = state.dismissed;
  labels.remarks = state.remarks;
  labels.revision = state.revision;
  past.splice(0, Infinity, ...state.past);
  future.splice(0, Infinity, ...state.future);
}

/** Take over what the program says of an image, unless this window has said something newer since. */
export function learned(item) {
  const older = queue.length > 0 || item.revision < labels.revision;
  if (!older || !labels.marks.has(item.key)) labels.marks.set(item.key, item.marks);
}

/** Another window has changed the labels, says a progress report: take them over. */
export async function follow(revision) {
  const mine = labels.revision;
  if (working || revision === mine) return;
  const now = await get("/api/state");
  if (working || mine !== labels.revision || now.revision === mine) return; // this window has changed them meanwhile
  labels.marks.clear();
  begin(now);
  toast("The labels were changed in another window; here they are.");
  tell("reloaded");
}

export const nameOf = (id) => labels.landmarks.find((each) => each.id === id)?.name;

/** The marks of an image, of the landmarks there are. */
export function marksOf(key) {
  const given = labels.marks.get(key) ?? {};
  return Object.fromEntries(labels.landmarks.filter(({ id }) => id in given).map(({ id }) => [id, given[id]]));
}

/** As the program would say it. */
export function statusOf(key) {
  const given = Object.values(marksOf(key));
  if (!given.length) return "new";
  if (given.length < labels.landmarks.length) return "partial";
  return given.every((mark) => mark?.[2] === "accepted") ? "accepted" : "labelled";
}

export const saving = () => ({ waiting: queue.length, silent });
export const canUndo = () => past.length > 0;
export const canRedo = () => future.length > 0;

/** Change labels; `what` names the change for people, `key` is the image to show when it is undone. */
export function change(what, given, key = null) {
  clearToast(); // what it offers to undo is no longer the last change
  const after = given.marks ? given : { landmarks: labels.landmarks, dismissed: labels.dismissed, ...given };
  past.push({ what, key, before: inverse(after), after });
  future.length = 0;
  apply(after, { what, key, turn: "change" });
}

/** Undo the last change; the answer is what it was. */
export function undo() {
  return turn(past, future, "before", "undo");
}

/** Do again what was undone last. */
export function redo() {
  return turn(future, past, "after", "redo");
}

function turn(from, to, side, name) {
  const step = from.pop();
  if (!step) return null;
  to.push(step);
  apply(step[side], { what: step.what, key: step.key, turn: name });
  return step;
}

function inverse(after) {
  if (after.landmarks) return { landmarks: labels.landmarks, dismissed: labels.dismissed };
  return { marks: Object.fromEntries(Object.keys(after.marks).map((key) => [key, marksOf(key)])) };
}

function apply(side, said) {
  const step = { ...side, said };
  if (step.landmarks) {
    Object.assign(labels, side);
    outdate(() => true);
    tell("landmarks");
  } else {
    outdate(({ image }) => image in step.marks);
    for (const [key, marks] of Object.entries(step.marks)) labels.marks.set(key, { ...deletedOf(key), ...only(marks, known()) });
    tell("marks", Object.keys(step.marks));
  }
  queue.push(step);
  tell("saving");
  if (!working) save();
}

const known = () => new Set(labels.landmarks.map(({ id }) => id));

/** The marks of an image of landmarks that are no longer there. */
function deletedOf(key) {
  const there = known();
  return Object.fromEntries(Object.entries(labels.marks.get(key) ?? {}).filter(([id]) => !there.has(id)));
}

/** Remarks on what has changed wait until the program has seen it. */
function outdate(concerns) {
  const { pairs, exchanges } = labels.remarks;
  labels.remarks = { pairs: pairs.filter((each) => !concerns(each)), exchanges: exchanges.filter((each) => !concerns(each)) };
  tell("remarks");
}

/** Resolves when everything is saved. */
export async function saved() {
  while (queue.length) await new Promise((done) => changes.addEventListener("saving", done, { once: true }));
}

async function save() {
  working = true;
  while (queue.length) {
    const step = queue[0];
    try {
      const { revision, remarks } = await deliver(step);
      labels.revision = revision;
      queue.shift();
      remark(remarks);
      if (silent) clearNotice();
      silent = false;
    } catch (error) {
      if (error instanceof Silence) await waitForAnswer();
      else await giveUp(error);
    }
    tell("saving");
  }
  working = false;
}

function remark(remarks) {
  if (queue.length) return; // there are newer ones to come
  labels.remarks = remarks;
  tell("remarks");
}

/** Have a change saved, which may have arrived before, its answer being lost. */
async function deliver(step) {
  try {
    return await send(step);
  } catch (error) {
    if (!(error instanceof Refusal && error.status === 409)) throw error;
    const now = await get("/api/state");
    if (await holds(now, step)) return now;
    throw error;
  }
}

function send(step) {
  const { said, landmarks, dismissed } = step;
  const revision = labels.revision;
  if (landmarks) return put("/api/landmarks", { revision, landmarks, dismissed, said });
  const there = known();
  const marks = Object.entries(step.marks).map(([key, given]) => [key, only(given, there)]);
  return put("/api/marks", { revision, marks: Object.fromEntries(marks), said });
}

function only(given, there) {
  return Object.fromEntries(Object.entries(given).filter(([id]) => there.has(id)));
}

async function waitForAnswer() {
  silent = true;
  notice("Equimark does not answer. Your last changes wait here and are saved when it runs again: keep this window open.", { sticky: true });
  tell("saving");
  await new Promise((done) => setTimeout(done, RETRY));
}

/** Whether what the program has is what this window had and the change, nothing else. */
async function holds(now, step) {
  if (now.revision !== labels.revision + 1) return false;
  if (step.landmarks) return equal(step.landmarks, now.landmarks) && equal(step.dismissed, now.dismissed);
  const there = known();
  const arrived = async ([key, given]) => equal(only(given, there), only((await get(`/api/images/${key}`)).marks, there));
  return (await Promise.all(Object.entries(step.marks).map(arrived))).every(Boolean);
}

function equal(a, b) {
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return a === b;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && equal(a[key], b[key]));
}

/** Nothing is overwritten in silence: take over what the program has, and say so. */
async function giveUp(error) {
  queue.length = past.length = future.length = 0;
  labels.marks.clear();
  const conflict = error.status === 409;
  notice(conflict ? `Your last change was not saved: ${error.message}.` : `Your last change was refused: ${error.message}.`);
  try {
    begin(await get("/api/state"));
  } catch {
    toast("Reload this window to go on.");
  }
  tell("reloaded");
}

window.addEventListener("beforeunload", (event) => {
  if (queue.length) event.preventDefault();
});
