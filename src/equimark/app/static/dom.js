// Elements, icons and small things that every part of the page uses.

/** An element: h("button", {class: "quiet", onclick: f}, "text", child). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "style") Object.assign(element.style, value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (selector, within = document) => within.querySelector(selector);

// Drawn on 24 x 24, stroked.
const PATHS = {
  accept: "M5 12.5l4.5 4.5L19 7.5",
  add: "M12 5v14M5 12h14",
  back: "M14.5 5.5L8 12l6.5 6.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM6 15H5V4h10v2",
  correct: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  down: "M12 4v11M7 11l5 5 5-5M5 20h14",
  fit: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  forward: "M9.5 5.5L16 12l-6.5 6.5",
  grip: "M9 6h.01M15 6h.01M9 12h.01M15 12h.01M9 18h.01M15 18h.01",
  hidden: "M4 4l16 16M9.5 5.6A9.6 9.6 0 0121 12a12 12 0 01-2.2 3.2M6.2 7.4A11.5 11.5 0 003 12a9.7 9.7 0 0012.6 5.700M10 10a2.9 2.9 0 004 4",
  in: "M12 6v12M6 12h12",
  mirror: "M12 3v18M8.500 7v10H3zM15.500 7v10H21z",
  out: "M6 12h12",
  redo: "M19 8H9.500a4.5 4.5 0 000 9H13M15.5 4.500L19 8l-3.5 3.5",
  search: "M10.5 4.500a6 6 0 100 12 6 6 0 000-12zM15 15l5 5",
  shuffle: "M4 7h3.500l8 10H20M4 17h3.500l2.3-2.900M13.2 9.900L15.5 7H20M17.5 4.500L20 7l-2.5 2.500M17.5 14.500L20 17l-2.5 2.5",
  source: "M4 12h13M12 7l5 5-5 5M20 5v14",
  trash: "M5 7h14M10 7V4.500h4V7M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
  undo: "M5 8h9.500a4.5 4.5 0 010 9H11M8.5 4.500L5 8l3.5 3.5",
};

/** An icon; decoration only, its button has the words. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** Put an icon in front of each element that asks for one. */
export function drawIcons(within) {
  for (const element of within.querySelectorAll("[data-icon]")) element.prepend(icon(element.dataset.icon));
}

/** Replace all children. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

export const number = new Intl.NumberFormat("en");
export const percent = (share) => `${Math.round(100 * share)} %`;
export const plural = (count, one, many = `${one}s`) => `${number.format(count)} ${count === 1 ? one : many}`;

let toastTimer;

export function clearToast() {
  $("#toast").hidden = true;
}

/** A short message that goes away, perhaps with something to do about it. */
export function toast(message, action = null) {
  const box = $("#toast");
  fill(box, h("span", {}, message));
  if (action) box.append(h("button", { type: "button", onclick: () => { box.hidden = true; action.run(); } }, action.name));
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.hidden = true; }, action ? 7000 : 3500);
}

/** A message that stays until it is dismissed or cleared. */
export function notice(message, { kind = "alarm", sticky = false } = {}) {
  const box = $("#notice");
  box.dataset.kind = kind;
  fill(box, h("span", {}, message));
  if (!sticky) box.append(h("button", { type: "button", class: "plain", "aria-label": "Dismiss", onclick: clearNotice }, icon("close")));
  box.hidden = false;
}

export function clearNotice() {
  $("#notice").hidden = true;
}

/** Whether a key was meant for a field that takes text. */
export function isTyping(event) {
  return event.target.closest?.("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select") !== null;
}
