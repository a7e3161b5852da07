// The Export tab: labels and predictions as files, and what was learned as a head.

import { get, post } from "./api.js";
import { $, fill, h, icon, number, percent, plural, toast } from "./dom.js";
import { labels, saved } from "./labels.js";

let page;
let chosen = false; // whether the person has moved the slider, which else stands where the labels suggest

export function begin(everything) {
  page = everything;
  const { formats, labels_file: file } = page.state;
  fill($("#format"), formats.map(({ name, about }) => h("option", { value: name }, `${name}: ${about}`)));
  $("#labels-file").textContent = file;
  $("#head-name").value = "head";
  $("#least").addEventListener("input", ({ target }) => {
    chosen = true;
    $("#least-value").textContent = percent(target.value);
  });
  for (const radio of document.querySelectorAll("[name=content]")) {
    radio.addEventListener("change", () => ($("#least-row").hidden = content() !== "everything"));
  }
  submit("#export-form", exportTable);
  submit("#head-form", exportHead);
}

const content = () => document.querySelector("[name=content]:checked").value;

export async function show() {
  await saved();
  const [{ counts }, { visible_from: suggested }] = await Promise.all([get("/api/images?count=1"), get("/api/progress")]);
  if (!chosen) {
    $("#least").value = suggested;
    $("#least-value").textContent = percent($("#least").value);
  }
  const checked = counts.labelled + counts.accepted;
  $("#counts").replaceChildren(
    ...[
      [counts.labelled, "labelled"],
      [counts.accepted, "accepted"],
      [counts.predicted, "not checked"],
      [labels.landmarks.length, "points"],
    ].map(([count, words]) => h("div", {}, h("b", {}, number.format(count)), h("span", {}, words))),
  );
  $("#checked-count").textContent = `${plural(checked, "image")} complete`;
}

export function learnedAnew() {}

export const key = () => false;

function submit(form, run) {
  $(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = $(form).querySelector("[type=submit]");
    button.disabled = true;
    button.classList.add("busy");
    try {
      await saved();
      await run();
    } catch (error) {
      toast(error.message);
    } finally {
      button.disabled = false;
      button.classList.remove("busy");
    }
  });
}

async function exportTable() {
  const everything = content() === "everything";
  const made = await post("/api/export", { format: $("#format").value, everything, least: everything ? Number($("#least").value) : 0 });
  const address = `/api/exports/${encodeURIComponent(made.file)}`;
  fill($("#export-result"),
    h("p", {}, icon("accept"), `${plural(made.images, "image")} written to `, h("code", {}, made.path)),
    made.notes.map((note) => h("p", { class: "note" }, note)),
    h("p", {}, h("a", { href: address, download: made.file }, icon("down"), `Download ${made.file}`)));
}

async function exportHead() {
  const made = await post("/api/head", { name: $("#head-name").value });
  const copy = h("button", { type: "button", class: "plain", title: "Copy", "aria-label": "Copy the command", onclick: async () => { await navigator.clipboard.writeText(made.command); toast("Copied."); } }, icon("copy"));
  fill($("#head-result"),
    h("p", {}, icon("accept"), `${plural(made.names.length, "point")} learned; written to `, h("code", {}, made.path)),
    made.pairs ? h("p", {}, `Of ${plural(made.pairs, "pair")} of left and right: mirror images ${made.mirrored ? "were learned from as well" : "did not help and were left out"}.`) : null,
    h("p", {}, "Find them on any images with:"),
    h("div", { class: "command" }, h("code", {}, made.command), copy));
}
