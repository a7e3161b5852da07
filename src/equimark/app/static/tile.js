// One image in a gallery: thumbnail, points and maps over it, a caption below.

import { fill, h } from "./dom.js";

export class Tile {
  /** @param item as the program describes it. @param caption elements below the picture. */
  constructor(item, { caption = [], corner = [], ...properties } = {}) {
    this.item = item;
    this.image = h("img", { alt: "", loading: "lazy", decoding: "async", draggable: "false" });
    this.dots = h("div", { class: "dots" });
    this.map = h("div", { class: "map" });
    this.fitted = h("div", { class: "fitted" }, this.image, this.map, this.dots);
    this.picture = h("div", { class: "picture" }, this.fitted, ...corner);
    this.caption = h("div", { class: "caption" }, ...caption);
    this.element = h("article", { class: "tile", data: { key: item.key }, ...properties }, this.picture, this.caption);
    if (item.unreadable) fill(this.picture, h("p", { class: "unreadable" }, "cannot be read: ", item.unreadable));
    else {
      this.image.onload = () => this.shape(this.image.naturalWidth, this.image.naturalHeight);
      this.image.src = item.thumbnail;
      if (item.box) this.shape(item.box[2] - item.box[0], item.box[3] - item.box[1]);
    }
  }

  shape(width, height) {
    const wide = width >= height;
    Object.assign(this.fitted.style, {
      aspectRatio: `${width} / ${height}`,
      width: wide ? "100%" : "auto",
      height: wide ? "auto" : "100%",
    });
  }

  /** Where a place of the image is in the picture, in percent. */
  percentOf([x, y]) {
    const [x0, y0, x1, y1] = this.item.box;
    return { left: `${(100 * (x + 0.5 - x0)) / (x1 - x0)}%`, top: `${(100 * (y + 0.5 - y0)) / (y1 - y0)}%` };
  }

  /** The place of the image under the pointer. */
  placeOf(event) {
    const { left, top, width, height } = this.fitted.getBoundingClientRect();
    const [x0, y0, x1, y1] = this.item.box;
    return [x0 + ((event.clientX - left) / width) * (x1 - x0) - 0.5, y0 + ((event.clientY - top) / height) * (y1 - y0) - 0.5];
  }

  /** Show points [{at, colour, hollow, sure, faint, chosen}]. */
  draw(points) {
    if (!this.item.box) return;
    fill(this.dots, points.map(({ at, colour, hollow, sure = 1, faint, chosen }) => {
      const kind = ["dot", hollow && "hollow", faint && "faint", chosen && "chosen"].filter(Boolean).join(" ");
      const dot = h("i", { class: kind, style: { ...this.percentOf(at), opacity: faint ? 0.25 : 0.35 + 0.65 * sure } });
      dot.style.setProperty("--colour", colour);
      return dot;
    }));
  }

  /** Show a map as of maps.js, or none. */
  drawMap(map) {
    if (!map || !this.item.box) return fill(this.map);
    const [x0, y0, x1, y1] = map.box;
    const { left, top } = this.percentOf([x0 - 0.5, y0 - 0.5]);
    const [a0, b0, a1, b1] = this.item.box;
    Object.assign(map.canvas.style, {
      left,
      top,
      width: `${(100 * (x1 - x0)) / (a1 - a0)}%`,
      height: `${(100 * (y1 - y0)) / (b1 - b0)}%`,
      opacity: map.alpha,
    });
    return fill(this.map, map.canvas);
  }
}
