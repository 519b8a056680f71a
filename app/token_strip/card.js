// The card that shows all that is known of the tokens under the pointer, or pinned.

import { clamp, el } from "./dom.js";
import { visible } from "./text.js";

/** @import { Block, LaidTokens } from "./layout.js" */
/** @import { Spot } from "./places.js" */
/** @import { StripData } from "./unpack.js" */

const MOST_COLUMNS = 12;
const MOST_BESIDE = 3; // rows of the strip that stand side by side in the card; more stand one under the other
const MARGIN = 8; // to the edge of the window
const AWAY = 6; // from the line it speaks of
const FEWEST = 0.001; // probability that is still shown as a number

/** @typedef {{row: LaidTokens, token: number, name: string}} Column */

/** The element; it lies over the page, takes no pointer, and is never part of the page's flow. */
export class Card {
  constructor() {
    this.element = el("div", "card");
    this.element.popover = "manual";
    this.element.setAttribute("aria-hidden", "true"); // the live region says the same
  }

  show() {
    if (!this.element.matches(":popover-open")) this.element.showPopover();
  }

  hide() {
    if (this.element.matches(":popover-open")) this.element.hidePopover();
  }

  /**
   * @param {StripData} data
   * @param {Spot} spot
   * @param {boolean} pinned
   */
  fill(data, spot, pinned) {
    const columns = columnsAt(spot);
    const shown = columns.slice(0, MOST_COLUMNS);
    this.element.replaceChildren(
      heading(data, spot, columns, pinned),
      ...scores(data, spot, shown),
      ...topk(data, shown),
      ...names(spot.block, columns.length - shown.length),
    );
  }

  /**
   * Under the line or above it, inside the window; beside the pointer only where neither has room.
   * @param {DOMRect} line  of the line it speaks of
   * @param {number} x      that it should start near
   */
  place(line, x) {
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const [right, bottom] = [innerWidth - width - MARGIN, innerHeight - height - MARGIN];
    let left = clamp(x, MARGIN, Math.max(MARGIN, right));
    let top = line.bottom + AWAY;
    if (top > bottom) top = line.top - AWAY - height;
    if (top < MARGIN) {
      top = clamp(line.top, MARGIN, Math.max(MARGIN, bottom));
      left = x + 4 * MARGIN <= right ? x + 4 * MARGIN : Math.max(MARGIN, x - 4 * MARGIN - width);
    }
    this.element.style.left = `${left}px`;
    this.element.style.top = `${top}px`;
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
  return block.tokens.flatMap((row) => {
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
  const add = (/** @type {string} */ label, /** @type {Node[]} */ cells) => lines.push([el("th", "", label), ...cells]);
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
 * What each row's model expected instead, side by side.
 * @param {StripData} data
 * @param {Column[]} columns
 */
function topk(data, columns) {
  const known = columns.filter(({ row, token }) => row.topk && !Number.isNaN(row.topk.probability[token * row.topk.k]));
  if (known.length === 0) return [];
  const element = el("div", "topk");
  for (const { row, token, name } of known) {
    const { k, ids, probability } = /** @type {import("./unpack.js").TopK} */ (row.topk);
    const list = el("div", "guesses");
    list.append(el("div", "soft", `${name} expected`));
    for (let i = token * k; i < (token + 1) * k; i++) {
      const guess = el("div", "guess");
      guess.style.setProperty("--p", String(clamp(probability[i], 0, 1)));
      guess.append(bdi("span", visible(data.strings[ids[i]])), el("span", "", chance(probability[i])));
      list.append(guess);
    }
    element.append(list);
  }
  return [element];
}

/**
 * The full names of a few rows, where they say more than their keys.
 * @param {Block} block
 * @param {number} left  columns that had no room
 */
function names(block, left) {
  const few = block.tokens.length <= MOST_BESIDE ? block.tokens : [];
  const lines = few
    .filter((row) => row.title !== row.key)
    .map((row) => el("div", "soft name", `${row.key}  ${row.title}`));
  if (left > 0) lines.push(el("div", "soft name", `and ${left} more`));
  return lines;
}

/**
 * Of two rows one is orange, the other blue, as in every figure.
 * @param {Block} block
 * @param {LaidTokens} row
 */
function tint(block, row) {
  if (block.tokens.length !== 2) return "";
  return row === block.tokens[0] ? "more" : "less";
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

/** @param {number} p */
function chance(p) {
  return p > 0 && p < FEWEST ? `< ${FEWEST}` : p.toFixed(3);
}
