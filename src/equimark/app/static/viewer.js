// A picture on a canvas that can be zoomed and moved. Positions are pixels of the image, pixel centres at integers.

const LARGEST = 48; // screen pixels per image pixel
const SMOOTH_UP_TO = 6;
const MOVED = 4; // screen pixels from which on a press is a drag

/** The nearest place that lies in the box of an image, to a hundredth of a pixel. */
export function inside([x0, y0, x1, y1], [x, y]) {
  const clamp = (value, low, high) => Math.round(100 * Math.min(Math.max(value, low), high)) / 100;
  return [clamp(x, x0 - 0.5, x1 - 0.5), clamp(y, y0 - 0.5, y1 - 0.5)];
}

export class Viewer {
  /**
   * @param canvas on which to draw; it fills its parent.
   * @param hooks draw(context, viewer), and optional press(point, event) -> drag handler or null,
   *   click(point, event), hover(point or null, event).
   */
  constructor(canvas, hooks) {
    this.canvas = canvas;
    this.hooks = hooks;
    this.context = canvas.getContext("2d");
    this.box = null;
    this.image = null;
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    this.asked = false;
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.listen();
  }

  /** Show an item: at once its thumbnail, then the picture. */
  show(item) {
    const another = item.key !== this.key;
    this.key = item.key;
    this.box = item.box;
    if (another) {
      this.image = null;
      for (const address of [item.thumbnail, item.picture]) this.load(item.key, address);
      this.fit();
    }
    this.redraw();
  }

  load(key, address) {
    const image = new Image();
    const better = address.includes("/picture");
    image.onload = () => {
      if (key !== this.key || (this.image?.better && !better)) return;
      image.better = better;
      this.image = image;
      this.redraw();
    };
    image.src = address;
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas.parentElement;
    const ratio = window.devicePixelRatio || 1;
    if (!width || !height) return;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.size = { width, height, ratio };
    if (this.fitted) this.fit();
    this.paint();
  }

  fit() {
    if (!this.box || !this.size) return;
    const [x0, y0, x1, y1] = this.box;
    const [across, down] = [28, 62]; // room for what floats over the picture
    const scale = Math.min((this.size.width - 2 * across) / (x1 - x0), (this.size.height - 2 * down) / (y1 - y0));
    this.view = {
      scale: Math.max(scale, 0.001),
      x: this.size.width / 2 - (scale * (x0 + x1)) / 2,
      y: this.size.height / 2 - (scale * (y0 + y1)) / 2,
    };
    this.smallest = scale / 2;
    this.fitted = true;
    this.redraw();
  }

  /** Zoom by a factor, so that a place on the screen stays where it is. */
  zoom(factor, at = null) {
    if (!this.box || !this.size) return;
    const x = at ? at[0] : this.size.width / 2;
    const y = at ? at[1] : this.size.height / 2;
    const scale = Math.min(Math.max(this.view.scale * factor, this.smallest), Math.max(LARGEST, this.smallest));
    const by = scale / this.view.scale;
    this.view = { scale, x: x - by * (x - this.view.x), y: y - by * (y - this.view.y) };
    this.fitted = false;
    this.redraw();
  }

  pan(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.fitted = false;
    this.redraw();
  }

  /** Move the view just so far that a point of the image is on the screen. */
  reveal(point, room = 40) {
    if (!this.size) return;
    const [x, y] = this.toScreen(point);
    const dx = x < room ? room - x : x > this.size.width - room ? this.size.width - room - x : 0;
    const dy = y < room ? room - y : y > this.size.height - room ? this.size.height - room - y : 0;
    if (dx || dy) this.pan(dx, dy);
  }

  toScreen([x, y]) {
    return [this.view.x + this.view.scale * (x + 0.5), this.view.y + this.view.scale * (y + 0.5)];
  }

  toImage([x, y]) {
    return [(x - this.view.x) / this.view.scale - 0.5, (y - this.view.y) / this.view.scale - 0.5];
  }

  /** The nearest place that lies in the image, to a hundredth of a pixel. */
  inside(point) {
    return inside(this.box, point);
  }

  /** Where the middle of the screen is in the image. */
  middle() {
    return this.inside(this.toImage([this.size.width / 2, this.size.height / 2]));
  }

  redraw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.paint();
    });
  }

  paint() {
    if (!this.size) return;
    const { context, view, box } = this;
    const { width, height, ratio } = this.size;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!box) return;
    this.canvas.dataset.view = [view.scale, view.x, view.y].join(" ");
    if (this.image) {
      context.imageSmoothingEnabled = view.scale < SMOOTH_UP_TO;
      context.imageSmoothingQuality = "high";
      this.drawOver(this.image, box);
    }
    this.hooks.draw(context, this);
  }

  /** Draw a picture or another canvas so that it covers a box of the image. */
  drawOver(source, [x0, y0, x1, y1]) {
    const { scale, x, y } = this.view;
    this.context.drawImage(source, x + scale * x0, y + scale * y0, scale * (x1 - x0), scale * (y1 - y0));
  }

  place(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  listen() {
    const { canvas, hooks } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      this.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0016)), this.place(event));
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => {
      if (!this.pressed && this.box) hooks.hover?.(this.toImage(this.place(event)), event);
    });
    canvas.addEventListener("pointerleave", (event) => hooks.hover?.(null, event));
  }

  press(event) {
    if (!this.box || event.button > 2) return;
    const { canvas, hooks } = this;
    const start = this.place(event);
    const drag = event.button === 0 && !this.panning ? hooks.press?.(this.toImage(start), event) : null;
    let last = start;
    let moved = false;
    this.pressed = true;
    canvas.setPointerCapture(event.pointerId);
    const move = (next) => {
      const here = this.place(next);
      moved ||= Math.hypot(here[0] - start[0], here[1] - start[1]) >= (drag ? 2 : MOVED);
      if (!moved) return;
      if (drag) drag.move(this.toImage(here), next);
      else this.pan(here[0] - last[0], here[1] - last[1]);
      last = here;
      canvas.classList.toggle("panning", !drag);
    };
    const end = (next) => {
      canvas.removeEventListener("pointermove", move);
      canvas.removeEventListener("pointerup", end);
      canvas.removeEventListener("pointercancel", end);
      canvas.classList.remove("panning");
      this.pressed = false;
      const cancelled = next.type === "pointercancel";
      if (drag) drag.end(moved && !cancelled);
      else if (!moved && !cancelled && event.button === 0) hooks.click?.(this.toImage(start), event);
    };
    canvas.addEventListener("pointermove", move);
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
  }
}

/** What lies beyond the frame the model does not see: say so by a shade. */
export function drawFrame(context, viewer, { frame, box }) {
  if (!frame) return;
  const [x0, y0, x1, y1] = frame;
  const [a0, b0, a1, b1] = box;
  if (x0 <= a0 + 1 && y0 <= b0 + 1 && x1 >= a1 - 1 && y1 >= b1 - 1) return;
  const rectangle = (left, top, right, bottom) => {
    const [ax, ay] = viewer.toScreen([left - 0.5, top - 0.5]);
    const [bx, by] = viewer.toScreen([right - 0.5, bottom - 0.5]);
    context.rect(ax, ay, bx - ax, by - ay);
  };
  context.save();
  context.beginPath();
  rectangle(a0, b0, a1, b1);
  rectangle(Math.max(x0, a0), Math.max(y0, b0), Math.min(x1, a1), Math.min(y1, b1));
  context.fillStyle = "rgba(10, 14, 20, .42)";
  context.fill("evenodd");
  context.restore();
}

/** A landmark on a canvas: full where it was placed, hollow where it is predicted. */
export function drawMark(context, [x, y], { colour, hollow = false, chosen = false, sure = 1, name = "" }) {
  const radius = chosen ? 7.5 : 6;
  context.save();
  context.globalAlpha = hollow ? 0.6 + 0.4 * sure : 1;
  if (chosen) ring(context, x, y, radius + 5, "rgba(255, 255, 255, .9)", 1.5);
  ring(context, x, y, radius, "rgba(10, 14, 20, .75)", hollow ? 5.5 : 4);
  if (hollow) {
    ring(context, x, y, radius, "#fff", 4);
    ring(context, x, y, radius, colour, 2.5);
    disc(context, x, y, 1.4, colour);
  } else {
    disc(context, x, y, radius, colour);
    ring(context, x, y, radius, "#fff", 2);
  }
  context.restore();
  if (name) caption(context, x, y, radius + 9, name.length > 42 ? `${name.slice(0, 40)} …` : name);
}

function ring(context, x, y, radius, colour, width) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

function disc(context, x, y, radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
}

/** Words to the right of a place, or to the left where there is no room. */
function caption(context, at, y, away, text) {
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  const width = context.measureText(text).width;
  const room = context.canvas.clientWidth;
  const x = at + away + width + 8 > room && at > room / 2 ? at - away - width : at + away;
  context.fillStyle = "rgba(16, 20, 26, .78)";
  context.beginPath();
  context.roundRect(x - 5, y - 10, width + 10, 20, 5);
  context.fill();
  context.fillStyle = "#fff";
  context.fillText(text, x, y + 0.5);
}
