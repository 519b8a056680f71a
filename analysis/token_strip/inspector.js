// The panel beside the strip: all that is known of the tokens under the pointer, or pinned.

import { el } from "./dom.js";
import { slopes } from "./slopes.js";
import { visible } from "./text.js";

/** @import { Block, LaidTokens } from "./layout.js" */
/** @import { Spot } from "./places.js" */
/** @import { StripData } from "./unpack.js" */

const MOST_COLUMNS = 12;
const MOST_BESIDE = 3; // rows of the strip that stand side by side in the panel; more stand one under the other
const EMPTY = "Point at the text to see its values here. A click, or an arrow key, pins a token.";

/** @typedef {{row: LaidTokens, token: number, name: string}} Column */
/** @typedef {(row: string, token: number, rank: number) => void} Edit */

/** The element. Its height depends on the strip alone, so that nothing moves while the pointer does. */
export class Inspector {
  /** @param {Edit} edit */
  constructor(edit) {
    this.element = el("aside", "inspector");
    this.element.setAttribute("aria-label", "Values of the token");
    this.edit = edit;
  }

  /** @param {StripData} data */
  fit(data) {
    const rows = /** @type {LaidTokens[]} */ (data.rows.filter((row) => row.kind === "tokens"));
    this.element.classList.toggle("tall", rows.some(({ topk }) => topk));
    this.element.classList.toggle("under", new Set(rows.map(({ key }) => key)).size > MOST_BESIDE);
  }

  /**
   * @param {StripData} data
   * @param {Spot | null} spot
   * @param {boolean} pinned
   */
  fill(data, spot, pinned) {
    if (!spot) return this.element.replaceChildren(el("div", "soft", EMPTY));
    const columns = columnsAt(spot);
    const shown = columns.slice(0, MOST_COLUMNS);
    this.element.replaceChildren(
      heading(data, spot, columns, pinned),
      ...scores(data, spot, shown),
      ...slopes(data, shown, data.editable && pinned ? this.edit : null),
      ...names(spot.block, columns.length - shown.length),
    );
  }
}

/**
 * One sentence on a spot, for a screen reader.
 * @param {StripData} data
 * @param {Spot} spot
 */
export function summary(data, spot) {
  const parts = columnsAt(spot).map(({ row, token, name }) => {
    const details = row.details.map((d) => `${d.label} ${number(d.values[token], d.digits)}`);
    return [`${name} ${quoted(data, spot, row, token)}`, ...details].join(", ");
  });
  return `Pinned, character ${spot.block.text.point[spot.character]}. ${parts.join("; ")}.`;
}

/**
 * The tokens of every row on a character.
 * @param {Spot} spot
 * @returns {Column[]}
 */
function columnsAt({ block, character }) {
  return block.every.flatMap((row) => {
    /** @type {number[]} */
    const tokens = [];
    const first = row.first[character];
    for (let token = first; first >= 0 && token <= row.last[character]; token++)
      if (row.end[token] > row.start[token]) tokens.push(token);
    const name = (/** @type {number} */ i) => (tokens.length > 1 ? `${row.key} ${i + 1}/${tokens.length}` : row.key);
    return tokens.map((token, i) => ({ row, token, name: name(i) }));
  });
}

/**
 * @param {StripData} data
 * @param {Spot} spot
 * @param {LaidTokens} row
 * @param {number} token
 */
function quoted(data, { block: { text } }, row, token) {
  const own = text.slice(text.characterOf[row.start[token]], text.characterOf[row.end[token] - 1] + 1);
  return `“${visible(row.display ? data.strings[row.display[token]] : own)}”`;
}

/**
 * @param {Column[]} columns
 */
function sameSpan(columns) {
  const span = ({ row, token }) => `${row.start[token]} ${row.end[token]}`;
  return columns.every((column) => span(column) === span(columns[0]));
}

/**
 * @param {StripData} data
 * @param {Spot} spot
 * @param {Column[]} columns
 * @param {boolean} pinned
 */
function heading(data, spot, columns, pinned) {
  const { text } = spot.block;
  const head = el("div", "what");
  const one = columns.length > 0 && sameSpan(columns) && columns.every(({ name }) => !name.includes("/"));
  const token = one
    ? quoted(data, spot, columns[0].row, columns[0].token)
    : `“${visible(text.slice(spot.character, spot.character + 1))}”`;
  const place = one
    ? `characters ${columns[0].row.start[columns[0].token]} to ${columns[0].row.end[columns[0].token]}`
    : `character ${text.point[spot.character]}`;
  head.append(bdi("b", token), el("span", "soft", `${pinned ? " pinned, " : " "}${place}`));
  return head;
}

/**
 * @param {StripData} data
 * @param {Spot} spot
 * @param {Column[]} columns
 */
function scores(data, spot, columns) {
  /** @type {Node[][]} */
  const lines = [];
  const add = (/** @type {string} */ label, /** @type {Node[]} */ cells) => lines.push([el(label ? "th" : "td", "", label), ...cells]);
  add(
    "",
    columns.map(({ row, name }) => el("th", tint(spot.block, row), name)),
  );
  if (!sameSpan(columns) || columns.some(({ name }) => name.includes("/"))) {
    add(
      "token",
      columns.map(({ row, token }) => bdi("td", quoted(data, spot, row, token))),
    );
    add(
      "characters",
      columns.map(({ row, token }) => el("td", "", `${row.start[token]}–${row.end[token]}`)),
    );
  }
  for (const label of new Set(columns.flatMap(({ row }) => row.details.map((d) => d.label)))) {
    const cells = columns.map(({ row, token }) => {
      const detail = row.details.find((d) => d.label === label);
      return el("td", "", detail ? number(detail.values[token], detail.digits) : "");
    });
    add(label, cells);
  }
  if (columns.some(({ row }) => row.boundary))
    add(
      "starts a segment",
      columns.map(({ row, token }) => el("td", "", row.boundary ? (row.boundary[token] ? "yes" : "no") : "")),
    );
  for (const label of new Set(columns.flatMap(({ row }) => row.notes.map((n) => n.label)))) {
    const cells = columns.map(({ row, token }) => {
      const note = row.notes.find((n) => n.label === label);
      return el("td", "words", note ? data.strings[note.words[token]] : "");
    });
    add(label, cells);
  }
  if (lines.length < 2) return [];
  const turned = new Set(columns.map(({ row }) => row)).size > MOST_BESIDE;
  const element = el("table", turned ? "turned" : "");
  for (const cells of turned ? lines[0].map((_, i) => lines.map((line) => line[i])) : lines) {
    const line = el("tr");
    line.append(...cells);
    element.append(line);
  }
  return [element];
}

/**
 * The full names of a few rows, where they say more than their keys.
 * @param {Block} block
 * @param {number} left  columns that had no room
 */
function names(block, left) {
  const few = block.every.length <= MOST_BESIDE ? block.every : [];
  const lines = few
    .filter((row) => row.title !== row.key)
    .map((row) => el("div", "soft name", `${row.key}  ${row.title}`));
  if (left > 0) lines.push(el("div", "soft name", `and ${left} more`));
  return lines;
}

/**
 * Of two models one is orange, the other blue, as in every figure.
 * @param {Block} block
 * @param {LaidTokens} row
 */
function tint(block, row) {
  const models = block.every.filter(({ topk }) => topk);
  if (models.length !== 2 || !models.includes(row)) return "";
  return row === models[0] ? "more" : "less";
}

/**
 * @param {string} tag
 * @param {string} text
 */
function bdi(tag, text) {
  const element = el(tag);
  element.append(el("bdi", "", text));
  return element;
}

/**
 * @param {number} value
 * @param {number} digits
 */
function number(value, digits) {
  return Number.isNaN(value) ? "missing" : value.toFixed(digits).replace("-", "−");
}
