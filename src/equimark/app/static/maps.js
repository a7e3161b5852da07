// Heat maps and colour maps, as the program sends them, on small canvases.

// Dark red, orange, yellow, nearly white: seen on any picture.
const HEAT = [
  [120, 10, 60],
  [205, 45, 50],
  [250, 130, 20],
  [255, 210, 60],
  [255, 250, 205],
];

function bytes({ data }) {
  return Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
}

function canvasOf(map, colourOf) {
  const canvas = document.createElement("canvas");
  canvas.width = map.width;
  canvas.height = map.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(map.width, map.height);
  const values = bytes(map);
  for (let cell = 0; cell < map.width * map.height; cell += 1) image.data.set(colourOf(values, cell), 4 * cell);
  context.putImageData(image, 0, 0);
  return canvas;
}

function heatColour(values, cell) {
  const share = values[cell] / 255;
  const place = share * (HEAT.length - 1);
  const below = Math.min(Math.floor(place), HEAT.length - 2);
  const rest = place - below;
  const [red, green, blue] = [0, 1, 2].map((c) => HEAT[below][c] * (1 - rest) + HEAT[below + 1][c] * rest);
  return [red, green, blue, 235 * share ** 0.8];
}

function plainColour(values, cell) {
  return [values[3 * cell], values[3 * cell + 1], values[3 * cell + 2], 255];
}

/** The map of what was found on an image, to be drawn over its box; null if there is none. */
export function mapOf(sight) {
  if (sight?.heat) return { canvas: canvasOf(sight.heat, heatColour), box: sight.box, alpha: 0.9 };
  if (sight?.colours) return { canvas: canvasOf(sight.colours, plainColour), box: sight.box, alpha: 0.55 };
  return null;
}
