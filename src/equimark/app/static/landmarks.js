// The list of landmarks beside the picture: add, rename, recolour, reorder, delete.

import { fill, h, icon, percent, toast } from "./dom.js";
import { change, labels, undo } from "./labels.js";
import { pair, without } from "./pairs.js";

export class LandmarkList {
  /**
   * @param list, form: elements of the page.
   * @param hooks chosen() -> id, choose(id), done() after the last name, stateOf(id) -> {kind: "set" | "accepted" | "hidden" | "predicted" |
   *   "none", sure}, colours: for new landmarks.
   */
  constructor(list, form, hooks) {
    this.list = list;
    this.hooks = hooks;
    this.input = form.elements.name;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.add(this.input.value);
    });
  }

  /** Add landmarks: one name, or several with commas between. */
  add(text) {
    const known = new Set(labels.landmarks.map(({ name }) => name));
    const names = text.split(/[,;\n\t]/).map((name) => name.trim()).filter(Boolean);
    const again = names.find((name, i) => known.has(name) || names.indexOf(name) !== i);
    if (!names.length) return this.hooks.done();
    if (again) return toast(`There is a point “${again}” already.`);
    const used = new Set(labels.landmarks.map(({ colour }) => colour));
    const free = this.hooks.colours.filter((colour) => !used.has(colour));
    const made = names.map((name, i) => ({
      id: `p${Date.now().toString(36)}${i}`,
      name,
      colour: free[i % free.length] ?? this.hooks.colours[i % this.hooks.colours.length],
      mirror: null,
    }));
    change(names.length > 1 ? "adding points" : `adding ${names[0]}`, { landmarks: [...labels.landmarks, ...made] });
    this.hooks.choose(this.hooks.chosen() ?? made[0].id);
    this.input.value = "";
    return this.list.lastElementChild?.scrollIntoView({ block: "nearest" });
  }

  remove(id) {
    const { name } = labels.landmarks.find((each) => each.id === id);
    change(`deleting ${name}`, { landmarks: without(labels.landmarks, id).filter((each) => each.id !== id) });
    toast(`Deleted “${name}” on all images.`, { name: "Undo", run: undo });
  }

  alter(id, what) {
    const landmarks = labels.landmarks.map((each) => (each.id === id ? { ...each, ...what } : each));
    change(what.name ? "renaming a point" : "a colour", { landmarks });
  }

  /** Put a landmark where another one stands. */
  move(id, place) {
    const from = labels.landmarks.findIndex((each) => each.id === id);
    const to = Math.min(Math.max(place, 0), labels.landmarks.length - 1);
    if (from === to) return;
    const landmarks = [...labels.landmarks];
    landmarks.splice(to, 0, ...landmarks.splice(from, 1));
    change("the order of the points", { landmarks });
    this.list.querySelector(`[data-id="${id}"] .name`)?.focus();
  }

  rename(id) {
    const row = this.list.querySelector(`[data-id="${id}"]`);
    const { name } = labels.landmarks.find((each) => each.id === id);
    const input = h("input", { class: "rename", value: name, "aria-label": `New name of ${name}`, maxlength: 200 });
    const finish = (keep) => {
      if (finish.done) return;
      finish.done = true;
      const given = input.value.trim();
      if (!keep || !given || given === name) return this.render();
      if (labels.landmarks.some((each) => each.name === given)) {
        toast(`There is a point “${given}” already.`);
        return this.render();
      }
      return this.alter(id, { name: given });
    };
    input.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Enter") finish(true);
      if (event.key === "Escape") finish(false);
    });
    input.addEventListener("blur", () => finish(true));
    row.querySelector(".name").replaceWith(input);
    input.select();
  }

  render() {
    if (this.list.contains(document.activeElement) && document.activeElement.matches(".rename, .mirror select")) return;
    const focused = document.activeElement?.closest("[data-id]")?.dataset.id;
    fill(this.list, labels.landmarks.map((landmark, i) => this.row(landmark, i)));
    if (focused && document.activeElement === document.body) this.list.querySelector(`[data-id="${focused}"] .name`)?.focus();
  }

  row({ id, name, colour, mirror }, place) {
    const state = this.hooks.stateOf(id);
    const swatch = h("input", { type: "color", value: colour, title: "Colour", "aria-label": `Colour of ${name}`, onchange: () => this.alter(id, { colour: swatch.value }) });
    const row = h("li", { class: `landmark ${state.kind}`, data: { id }, draggable: "true", "aria-current": id === this.hooks.chosen() ? "true" : null },
      h("span", { class: "grip", title: "Drag to reorder (or Alt with the arrow keys)" }, icon("grip")),
      swatch,
      h("button", { type: "button", class: "name plain", title: name, onclick: () => this.hooks.choose(id), ondblclick: () => this.rename(id), onkeydown: (event) => this.key(event, id, place) }, name),
      h("span", { class: "state", title: describe(state) }, ...this.stateOf(state)),
      this.mirrorOf(id, name, mirror),
      h("span", { class: "actions" },
        h("button", { type: "button", class: "plain", title: "Rename (F2)", "aria-label": `Rename ${name}`, onclick: () => this.rename(id) }, icon("correct")),
        h("button", { type: "button", class: "plain", title: "Delete on all images", "aria-label": `Delete ${name}`, onclick: () => this.remove(id) }, icon("trash"))),
      h("kbd", {}, place < 9 ? String(place + 1) : ""));
    row.style.setProperty("--colour", colour);
    this.draggable(row, id, place);
    return row;
  }

  /** To choose the point that this one becomes in a mirror. */
  mirrorOf(id, name, mirror) {
    const others = labels.landmarks.filter((each) => each.id !== id);
    const partner = others.find((each) => each.id === mirror);
    const choice = h("select", {
      "aria-label": `Mirror image of ${name}`,
      onchange: () => {
        pair(id, choice.value || null);
        this.hooks.done();
      },
      onblur: () => setTimeout(() => this.render()),
      onkeydown: (event) => {
        if (event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
        event.preventDefault(); // elsewhere than in the open list each press would declare another pair
        choice.showPicker?.();
      },
    },
    h("option", { value: "" }, "no mirror image"),
    others.map((each) => h("option", { value: each.id, selected: each.id === mirror }, `mirror image of ${each.name}`)));
    return h("span", { class: partner ? "mirror paired" : "mirror", title: partner ? `mirror image of ${partner.name}` : "Mirror image of another point?", hidden: !others.length }, choice, icon("mirror"));
  }

  stateOf({ kind, sure }) {
    if (kind === "hidden") return [icon("hidden")];
    if (kind === "predicted") return [h("small", {}, percent(sure)), h("i", { class: "hollow" })];
    return kind === "none" ? [] : [icon("accept")];
  }

  key(event, id, place) {
    if (event.key === "F2") this.rename(id);
    else if (event.altKey && event.key === "ArrowUp") this.move(id, place - 1);
    else if (event.altKey && event.key === "ArrowDown") this.move(id, place + 1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  draggable(row, id, place) {
    row.addEventListener("dragstart", (event) => {
      event.dataTransfer.setData("text/plain", id);
      event.dataTransfer.effectAllowed = "move";
      this.dragged = id;
    });
    row.addEventListener("dragover", (event) => {
      if (!this.dragged) return;
      event.preventDefault();
      row.classList.add("target");
    });
    row.addEventListener("dragleave", () => row.classList.remove("target"));
    row.addEventListener("drop", (event) => {
      event.preventDefault();
      if (this.dragged) this.move(this.dragged, place);
    });
    row.addEventListener("dragend", () => {
      this.dragged = null;
      row.classList.remove("target");
    });
  }
}

function describe({ kind, sure }) {
  const words = { set: "placed by you", accepted: "accepted prediction", hidden: "not visible", none: "not placed yet" };
  return words[kind] ?? `predicted, confidence ${percent(sure)}`;
}
