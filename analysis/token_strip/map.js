// The whole text in one thin line: where changes are, what is in view, and a click leads there.

import { el } from "./dom.js";

/** @import { Palette } from "./colour.js" */
/** @import { LaidTokens } from "./layout.js" */

const HEIGHT = 22;
const NO_VALUE = 255;
const ZERO = 127; // of a diverging scale

/** The element: a canvas, and a frame around the part that is in view. */
export class Overview {
  /** @param {(share: number) => void} go  shows the place at this share of the text */
  constructor(go) {
    this.element = el("div", "map");
    this.element.setAttribute("aria-hidden", "true"); // n and p lead to the same places
    this.canvas = document.createElement("canvas");
    this.view = el("div", "view");
    this.element.append(this.canvas, this.view);
    const lead = (/** @type {PointerEvent} */ event) => {
      const { left, width } = this.element.getBoundingClientRect();
      go(Math.max(0, Math.min(1, (event.clientX - left) / width)));
    };
    this.element.addEventListener("pointerdown", (event) => {
      this.element.setPointerCapture(event.pointerId);
      lead(event);
    });
    this.element.addEventListener("pointermove", (event) => event.buttons && lead(event));
  }

  /**
   * A bar for each pixel: the value furthest from nothing among the pieces of text that fall on it.
   * @param {LaidTokens} row
   * @param {number} length  of the text
   * @param {number[]} marks  places with a mark of their own
   * @param {Palette} palette
   */
  draw(row, length, marks, palette) {
    const scale = devicePixelRatio || 1;
    const width = Math.max(1, Math.round(this.element.clientWidth * scale));
    const height = Math.round(HEIGHT * scale);
    Object.assign(this.canvas, { width, height });
    const canvas = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    const signed = row.scale === "diverging";
    const zero = signed ? ZERO : 0;
    const values = /** @type {ArrayLike<number>} */ (row.value);
    const deepest = new Int16Array(width).fill(-1);
    for (let i = 0; i < values.length; i++) {
      if (values[i] === NO_VALUE) continue;
      const from = Math.floor((row.start[i] / length) * width);
      const to = Math.max(from + 1, Math.ceil((row.end[i] / length) * width));
      for (let x = from; x < Math.min(to, width); x++)
        if (deepest[x] < 0 || Math.abs(values[i] - zero) > Math.abs(deepest[x] - zero)) deepest[x] = values[i];
    }
    const { more, less } = palette.colours;
    const room = signed ? height / 2 : height;
    for (let x = 0; x < width; x++) {
      if (deepest[x] < 0) continue;
      const share = (deepest[x] - zero) / (254 - zero);
      canvas.fillStyle = share < 0 ? less : more;
      canvas.fillRect(x, share > 0 ? room - share * room : room, 1, Math.abs(share) * room);
    }
    canvas.fillStyle = palette.ink;
    for (const mark of marks) canvas.fillRect(Math.floor((mark / length) * width), 0, Math.ceil(scale), 3 * scale);
  }

  /**
   * @param {number} from  share of the text
   * @param {number} to
   */
  frame(from, to) {
    this.view.style.left = `${100 * from}%`;
    this.view.style.width = `${100 * (to - from)}%`;
  }
}
