// Values to colours. One ink stands on all of them, with a contrast of at least 4.5 to 1 (theme.py; WCAG 2.2, 1.4.3).

/** @import { Colour, ThemeColours } from "./unpack.js" */

const STEPS = 254; // a value is 0 to 254
const FADE = 0.6; // how far a muted token goes towards the ground

/** @typedef {string[]} Table  the fill of each value, 0 to 254 */

/** The colours of one theme. */
export class Palette {
  /** @param {ThemeColours} colours */
  constructor(colours) {
    this.colours = colours;
    this.ink = colours.ink;
    const neutral = colours.ramp[0];
    this.stops = { sequential: colours.ramp, diverging: colours.diverging };
    const { sequential, diverging } = this.stops;
    this.tables = { sequential: colourTable(sequential), diverging: colourTable(diverging) };
    this.muted = {
      sequential: colourTable(fade(sequential, neutral)),
      diverging: colourTable(fade(diverging, neutral)),
    };
  }

  /**
   * @param {"sequential" | "diverging"} scale
   * @param {boolean} muted
   */
  table(scale, muted) {
    return (muted ? this.muted : this.tables)[scale];
  }

  /**
   * The scale as a CSS gradient, for the legend.
   * @param {"sequential" | "diverging"} scale
   */
  gradient(scale) {
    return `linear-gradient(90deg, ${this.stops[scale].map(css).join(", ")})`;
  }
}

/**
 * @param {string} text  "#rrggbb", or "rgb(...)" and "color(srgb ...)" as a computed style gives them
 * @returns {Colour}
 */
export function parseColour(text) {
  if (text.startsWith("#")) {
    const n = parseInt(text.slice(1, 7), 16);
    return [n >> 16, (n >> 8) & 255, n & 255];
  }
  const numbers = (text.match(/-?[\d.]+/g) ?? ["0", "0", "0"]).slice(0, 3).map(Number);
  return /** @type {Colour} */ (text.startsWith("color(") ? numbers.map((x) => x * 255) : numbers);
}

/**
 * @param {Colour} colour
 */
export function luminance(colour) {
  const [r, g, b] = colour.map((x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * @param {Colour[]} stops
 * @returns {Table}
 */
function colourTable(stops) {
  return Array.from({ length: STEPS + 1 }, (_, step) => css(along(stops, step / STEPS)));
}

/**
 * @param {Colour[]} stops
 * @param {number} x  0 to 1
 */
function along(stops, x) {
  const at = x * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  return mix(stops[i], stops[i + 1], at - i);
}

/**
 * @param {Colour[]} stops
 * @param {Colour} towards
 */
function fade(stops, towards) {
  return stops.map((stop) => mix(stop, towards, FADE));
}

/**
 * @param {Colour} a
 * @param {Colour} b
 * @param {number} part
 * @returns {Colour}
 */
function mix(a, b, part) {
  const at = (/** @type {number} */ i) => Math.round(a[i] * (1 - part) + b[i] * part);
  return [at(0), at(1), at(2)];
}

/** @param {Colour} colour */
function css([r, g, b]) {
  return `rgb(${r}, ${g}, ${b})`;
}
