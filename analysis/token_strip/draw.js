// One line of the strip as elements: its tokens, bars and curves.

import { el, svg } from "./dom.js";
import { Height, rowHeight } from "./layout.js";
import { Kind } from "./text.js";

/** @import { Palette } from "./colour.js" */
/** @import { Head, LaidCurve, LaidTokens, Line } from "./layout.js" */
/** @import { BarRow, LineRow } from "./unpack.js" */

const MISSING = 255;
const TOKEN_GAP = 1;
const SEGMENT_GAP = 2;
const LEAST_BAR = 0.75; // so that a small difference still has a sign
const LABEL_WIDTH = 6; // of a digit, at most

/** @typedef {{element: HTMLElement, row: LaidTokens, from: number, first: number, last: number}} Cell */
/** @typedef {{element: HTMLElement, line: Line, cells: Cell[]}} DrawnLine */
/** @typedef {{cell: number, palette: Palette, strings: string[]}} Look  cell: the width of a column in pixels */

/**
 * @param {Head} head
 * @returns {HTMLElement}
 */
export function drawHead({ block, role }) {
  if (role) return el("div", "head turn", role);
  const row = block.tokens[0];
  const element = el("div", "head");
  element.append(el("b", "", row.key), ` ${row.title}, on a text of its own: not aligned with the others`);
  return element;
}

/**
 * @param {Line} line
 * @param {Look} look
 * @returns {DrawnLine}
 */
export function drawLine(line, look) {
  /** @type {DrawnLine} */
  const drawn = { element: el("div", line.free ? "line free" : "line"), line, cells: [] };
  drawn.element.role = "presentation";
  if (line.free) drawn.element.append(el("div", "note", "right-to-left or very wide text: these rows are not aligned"));
  for (const row of line.block.rows) {
    if (row.hidden || (row.kind !== "tokens" && line.free)) continue;
    const key = el("span", "key", row.key);
    key.title = row.title;
    const track = row.kind === "tokens" ? drawTokens(row, drawn, look) : drawCurve(row, line, look);
    track.style.height = `${rowHeight(row)}px`;
    drawn.element.append(key, track);
  }
  return drawn;
}

// Tokens

/**
 * @param {LaidTokens} row
 * @param {DrawnLine} drawn
 * @param {Look} look
 */
function drawTokens(row, drawn, look) {
  const { line } = drawn;
  const track = el("div", row.labels ? "row labelled" : "row");
  track.role = "presentation";
  if (line.free) track.dir = "auto";
  let labelEnd = 0;
  for (let from = line.from, to; from < line.to; from = to) {
    to = from + 1;
    while (to < line.to && row.first[to] === row.first[from] && row.last[to] === row.last[from]) to++;
    const element = drawCell(row, line, from, to, look);
    drawn.cells.push({ element, row, from, first: row.first[from], last: row.last[from] });
    track.append(element);
    if (row.labels && element.classList.contains("notch")) labelEnd = drawLabel(row, line, from, labelEnd, track, look);
  }
  return track;
}

/**
 * Characters that the same tokens lie on.
 * @param {LaidTokens} row
 * @param {Line} line
 * @param {number} from
 * @param {number} to
 * @param {Look} look
 */
function drawCell(row, line, from, to, look) {
  const { text } = line.block;
  const first = row.first[from];
  const element = el("span", "cell");
  element.role = "option";
  if (first < 0) element.classList.add("bare");
  else dress(element, row, first, row.last[from], look.palette);
  const begins = first >= 0 && text.characterOf[row.start[first]] === from;
  const ends = to === text.count || row.first[to] !== first;
  if (!begins) element.classList.add("from-before");
  if (!ends) element.classList.add("goes-on");
  if (row.boundary && begins && row.boundary[first]) element.classList.add("notch");
  if (line.free) {
    for (let i = from; i < to; i++) element.append(text.shown(i));
    return element;
  }
  const gap = ends && to < line.to ? gapAfter(row, to) : 0;
  const width = text.column[to - 1] + text.columns[to - 1] - text.column[from];
  element.style.left = `${text.column[from] * look.cell}px`;
  element.style.width = `${width * look.cell - gap}px`;
  fill(element, text, from, to, look.cell);
  return element;
}

/**
 * The space between a cell and the token that starts at character `next`: none inside a segment.
 * @param {LaidTokens} row
 * @param {number} next
 */
function gapAfter(row, next) {
  if (!row.boundary) return TOKEN_GAP;
  return row.first[next] < 0 || row.boundary[row.first[next]] ? SEGMENT_GAP : 0;
}

/**
 * Colour, hatch and tone.
 * @param {HTMLElement} element
 * @param {LaidTokens} row
 * @param {number} first
 * @param {number} last
 * @param {Palette} palette
 */
function dress(element, row, first, last, palette) {
  if (first !== last) element.classList.add("split");
  if (row.segment) element.classList.add("part", row.segment[first] % 2 ? "odd" : "even");
  const muted = Boolean(row.muted?.[first]);
  if (muted) element.classList.add("muted");
  if (row.value === null || row.scale === "none") return;
  const value = strongest(row, first, last);
  if (value === MISSING) element.classList.add("missing");
  else {
    element.style.backgroundColor = palette.table(row.scale, muted)[value];
    element.style.color = palette.ink;
  }
}

/**
 * The value furthest from nothing among tokens that share a character, so that none is hidden.
 * @param {LaidTokens} row
 * @param {number} first
 * @param {number} last
 */
function strongest(row, first, last) {
  const values = /** @type {ArrayLike<number>} */ (row.value);
  const zero = row.scale === "diverging" ? 127 : 0;
  let found = MISSING;
  for (let token = first; token <= last; token++) {
    const value = values[token];
    if (row.end[token] <= row.start[token] || value === MISSING) continue;
    if (found === MISSING || Math.abs(value - zero) > Math.abs(found - zero)) found = value;
  }
  return found;
}

/**
 * The characters: runs of plain ones as they are, every other in a box of its columns.
 * @param {HTMLElement} element
 * @param {import("./text.js").Text} text
 * @param {number} from
 * @param {number} to
 * @param {number} cell
 */
function fill(element, text, from, to, cell) {
  let run = "";
  for (let i = from; i < to; i++) {
    const kind = text.kind[i];
    if (kind === Kind.PLAIN || kind === Kind.SPACE || (kind === Kind.BREAK && text.columns[i] === 1)) {
      run += text.shown(i);
      continue;
    }
    if (run) element.append(run);
    run = "";
    const box = el("i", kind === Kind.CONTROL && text.columns[i] > 1 ? "named" : "box", text.shown(i));
    if (kind === Kind.TAB) box.classList.add("tab");
    box.style.width = `${text.columns[i] * cell}px`;
    element.append(box);
  }
  if (run) element.append(run);
}

/**
 * A segment's label, unless the one before needs the place.
 * @param {LaidTokens} row
 * @param {Line} line
 * @param {number} from
 * @param {number} taken  where the last label ends
 * @param {HTMLElement} track
 * @param {Look} look
 * @returns {number} where the last label ends now
 */
function drawLabel(row, line, from, taken, track, look) {
  const text = look.strings[/** @type {ArrayLike<number>} */ (row.labels)[row.first[from]]];
  const left = line.block.text.column[from] * look.cell;
  if (!text || line.free || left < taken) return taken;
  const label = el("span", "label", text);
  label.style.left = `${left}px`;
  track.append(label);
  return left + text.length * LABEL_WIDTH + 3;
}

// Bars and curves

/**
 * @param {LaidCurve} row
 * @param {Line} line
 * @param {Look} look
 */
function drawCurve(row, line, look) {
  const { text } = line.block;
  const width = (text.column[line.to - 1] + text.columns[line.to - 1]) * look.cell;
  const height = rowHeight(row);
  const track = el("div", `row ${row.kind}`);
  const canvas = svg("svg", { width, height, "aria-hidden": "true" });
  const paths = row.kind === "bars" ? barPaths(row, line, look) : linePaths(row, line, look, width);
  for (const [className, d] of Object.entries(paths)) if (d) canvas.append(svg("path", { class: className, d }));
  track.append(canvas);
  return track;
}

/**
 * The spans of a row on a line, in pixels, with their values.
 * @param {LaidCurve} row
 * @param {Line} line
 * @param {Look} look
 * @returns {Generator<{left: number, right: number, value: number}>}
 */
function* spans(row, { block: { text }, from, to }, look) {
  for (let i = firstEndingAfter(row.to, from); i < row.from.length && row.from[i] < to; i++) {
    const a = Math.max(row.from[i], from);
    const b = Math.min(row.to[i], to) - 1;
    if (b < a || Number.isNaN(row.value[i])) continue;
    const right = (text.column[b] + text.columns[b]) * look.cell;
    yield { left: text.column[a] * look.cell, right, value: row.value[i] };
  }
}

/**
 * @param {Int32Array} ends
 * @param {number} character
 */
function firstEndingAfter(ends, character) {
  let low = 0;
  let high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > character) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * @param {LaidCurve & BarRow} row
 * @param {Line} line
 * @param {Look} look
 */
function barPaths(row, line, look) {
  const middle = Height.BARS / 2;
  const paths = { more: "", less: "" };
  for (const { left, right, value } of spans(row, line, look)) {
    if (value === 0) continue;
    const size = Math.max(LEAST_BAR, Math.abs(value) * (middle - 1));
    const y = value > 0 ? middle - size : middle;
    paths[value > 0 ? "more" : "less"] += `M${left} ${y}H${right - TOKEN_GAP}V${y + size}H${left}Z`;
  }
  return paths;
}

/**
 * @param {LaidCurve & LineRow} row
 * @param {Line} line
 * @param {Look} look
 * @param {number} width
 */
function linePaths(row, line, look, width) {
  const y = (/** @type {number} */ value) => Height.LINE - 2 - value * (Height.LINE - 5);
  const { threshold } = row;
  const drawn = threshold !== null && threshold >= 0 && threshold <= 1;
  const paths = { riser: "", below: "", above: "", threshold: drawn ? `M0 ${y(threshold)}H${width}` : "" };
  let before = null;
  for (const { left, right, value } of spans(row, line, look)) {
    if (before && before.right === left) paths.riser += `M${left} ${y(before.value)}V${y(value)}`;
    const marked = threshold !== null && (row.marked === "below" ? value < threshold : value > threshold);
    paths[marked ? "above" : "below"] += `M${left} ${y(value)}H${right}`;
    before = { right, value };
  }
  return paths;
}
