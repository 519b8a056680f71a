// The foot of the strip: what the colours and marks mean, and what keys do.

import { el } from "./dom.js";

/** @import { Palette } from "./colour.js" */
/** @import { BarRow, StripData } from "./unpack.js" */

/**
 * @param {StripData} data
 * @param {Palette} palette
 */
export function legendParts(data, palette) {
  return [...scale(data, palette), ...bars(data), ...hatches(data), marks(data), ...note(data), keys(data)];
}

/**
 * @param {StripData} data
 * @param {Palette} palette
 */
function scale({ legend }, palette) {
  if (legend.scale === "none") return [];
  const bar = el("span", "scale");
  bar.style.backgroundImage = palette.gradient(legend.scale);
  const element = el("span", "group");
  element.append(el("span", "", legend.low), bar, el("span", "", legend.high));
  return [element];
}

/** @param {StripData} data */
function bars({ rows }) {
  return rows
    .filter((row) => row.kind === "bars" && !row.hidden)
    .map((row) => {
      const { up, down } = /** @type {BarRow} */ (row);
      const element = el("span", "group");
      element.append(el("span", "swatch more"), el("span", "", up), el("span", "swatch less"), el("span", "", down));
      return element;
    });
}

/** @param {StripData} data */
function hatches({ rows }) {
  const missing = rows.some((row) => row.kind === "tokens" && !row.hidden && row.value && row.value.includes(255));
  const split = rows.some((row) => row.kind === "tokens" && !row.hidden && row.start.some((at, i) => i > 0 && at < row.end[i - 1]));
  return [
    ...(missing ? [hatch("missing", "no score")] : []),
    ...(split ? [hatch("split", "one character, several tokens")] : []),
  ];
}

/**
 * @param {string} className
 * @param {string} text
 */
function hatch(className, text) {
  const element = el("span", "group");
  element.append(el("span", `swatch ${className}`), el("span", "", text));
  return element;
}

/** @param {StripData} data */
function marks({ texts }) {
  const found = [
    [" ", "· space"],
    ["\t", "→ tab"],
    ["\n", "¶ line break"],
  ].filter(([character]) => texts.some((text) => text.includes(character)));
  return el("span", "group", found.map(([, name]) => name).join("\u2003"));
}

/** @param {StripData} data */
function note({ legend }) {
  const text = [legend.note, legend.beside].filter(Boolean).join("; ");
  return text ? [el("span", "group", text)] : [];
}

/** @param {StripData} data */
function keys({ jumps, jumpTo }) {
  const help = ["click: pin", "← → ↑ ↓: step", "Esc: unpin"];
  if (jumps.length) help.push(`n p: ${jumpTo}`);
  return el("span", "group keys", help.join("\u2003"));
}
