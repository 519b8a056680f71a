// Values to colours, and the ink that can be read on each: at least 4.5 to 1 (WCAG 2.2, 1.4.3).

/** @import { Colour, ThemeColours } from "./unpack.js" */

const STEPS = 254; // a value is 0 to 254
const CONTRAST = 4.5;
const FADE = 0.6; // how far a muted token goes towards the ground

/** @typedef {{fill: string[], ink: string[]}} Table  by value, 0 to 254 */

/** The colours of one theme. */
export class Palette {
  /**
   * @param {ThemeColours} colours
   * @param {Colour} ink    the theme's own
   * @param {Colour} ground what the strip lies on
   */
  constructor(colours, ink, ground) {
    this.colours = colours;
    const inks = [ink, ground, /** @type {Colour} */ ([0, 0, 0]), /** @type {Colour} */ ([255, 255, 255])];
    const neutral = colours.ramp[0];
    const stops = {
      sequential: colours.ramp,
      diverging: [parseColour(colours.less), neutral, parseColour(colours.more)],
    };
    this.stops = stops;
    this.tables = { sequential: colourTable(stops.sequential, inks), diverging: colourTable(stops.diverging, inks) };
    this.muted = {
      sequential: colourTable(fade(stops.sequential, neutral), inks),
      diverging: colourTable(fade(stops.diverging, neutral), inks),
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
 * @param {Colour} a
 * @param {Colour} b
 */
function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/**
 * @param {Colour[]} stops
 * @param {Colour[]} inks  in order of liking; black and white among them, one of which can always be read
 * @returns {Table}
 */
function colourTable(stops, inks) {
  const fills = Array.from({ length: STEPS + 1 }, (_, step) => along(stops, step / STEPS));
  return {
    fill: fills.map(css),
    ink: fills.map((fill) => css(inks.find((ink) => contrast(ink, fill) >= CONTRAST) ?? inks[0])),
  };
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
