// Where everything stands: which tokens lie on which characters, where lines break, how high each line is.

import { Kind, Text } from "./text.js";

/** @import { Measure } from "./text.js" */
/** @import { BarRow, LineRow, StripData, TokenRow } from "./unpack.js" */

/** Heights in CSS pixels; strip.css takes them from here. */
export const Height = Object.freeze({ TOKENS: 22, LABELS: 11, BARS: 14, LINE: 26, NOTE: 16, GAP: 10, HEAD: 30, TURN: 20 });

/** @typedef {TokenRow & {first: Int32Array, last: Int32Array, segment: Int32Array | null}} LaidTokens */
/** @typedef {(BarRow | LineRow) & {from: Int32Array, to: Int32Array}} LaidCurve */
/** @typedef {LaidTokens | LaidCurve} LaidRow */
/** @typedef {{kind: "head", block: Block, from: number, role: string, top: number, height: number}} Head */
/**
 * Characters `from` up to `to` of a block. A free line is not on the grid: its rows are not aligned.
 * @typedef {{kind: "line", block: Block, from: number, to: number, free: boolean, top: number, height: number}} Line
 */

/** One text with the rows that stand on it. */
export class Block {
  /**
   * @param {string} text
   * @param {number} base  the place of its first character in the strip
   * @param {(TokenRow | BarRow | LineRow)[]} rows
   * @param {Measure} measure
   */
  constructor(text, base, rows, measure) {
    this.text = new Text(text, measure);
    this.base = base;
    this.rows = rows.map((row) => (row.kind === "tokens" ? layTokens(row, this.text) : layCurve(row, this.text)));
    this.every = /** @type {LaidTokens[]} */ (this.rows.filter((row) => row.kind === "tokens"));
  }

  /** The rows of tokens that are drawn. */
  get tokens() {
    return this.every.filter((row) => !row.hidden);
  }

  /** @param {boolean} free */
  height(free) {
    let height = free ? Height.NOTE : 0;
    for (const row of this.rows) if (!row.hidden && (row.kind === "tokens" || !free)) height += rowHeight(row);
    return height + Height.GAP;
  }
}

/** @param {LaidRow} row */
export function rowHeight(row) {
  if (row.kind === "tokens") return Height.TOKENS + (row.labels ? Height.LABELS : 0);
  return row.kind === "bars" ? Height.BARS : Height.LINE;
}

/**
 * @param {StripData} data
 * @param {Measure} measure
 */
export function layBlocks(data, measure) {
  let base = 0;
  return data.texts.map((text, i) => {
    const rows = data.rows.filter((row) => row.block === i);
    const block = new Block(text, base, rows, measure);
    base += block.text.length;
    return block;
  });
}

/**
 * Every line of every block, from top to bottom.
 * @param {Block[]} blocks
 * @param {number} columns  that a line may take
 * @param {boolean} heads   whether each block is announced
 * @param {[number, string][]} turns  places at which a turn starts, and its role
 * @returns {(Head | Line)[]}
 */
export function layLines(blocks, columns, heads, turns) {
  /** @type {(Head | Line)[]} */
  const items = [];
  const roles = new Map(turns);
  let top = 0;
  for (const block of blocks) {
    if (heads) {
      items.push({ kind: "head", block, from: 0, role: "", top, height: Height.HEAD });
      top += Height.HEAD;
    }
    for (const { from, to, free } of wrap(block.text, columns)) {
      const role = roles.get(block.base + block.text.point[from]);
      if (role) {
        items.push({ kind: "head", block, from, role, top, height: Height.TURN });
        top += Height.TURN;
      }
      const height = block.height(free);
      items.push({ kind: "line", block, from, to, free, top, height });
      top += height;
    }
  }
  return items;
}

/**
 * The index of the last item that starts at or above `top`.
 * @param {(Head | Line)[]} items
 * @param {number} top
 */
export function itemAt(items, top) {
  let low = 0;
  let high = items.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (items[middle].top <= top) low = middle;
    else high = middle - 1;
  }
  return low;
}

/**
 * The character of a line that covers a column; -1 beyond its end.
 * @param {Line} line
 * @param {number} column
 */
export function characterAt({ block: { text }, from, to }, column) {
  for (let i = from; i < to; i++) if (column < text.column[i] + text.columns[i]) return column < 0 ? -1 : i;
  return -1;
}

// Tokens on characters

/**
 * The first and the last token on each character (-1: none); they differ where tokens share it.
 * @param {TokenRow} row
 * @param {Text} text
 * @returns {LaidTokens}
 */
function layTokens(row, text) {
  const first = new Int32Array(text.count).fill(-1);
  const last = new Int32Array(text.count).fill(-1);
  for (let token = 0; token < row.start.length; token++) {
    if (row.end[token] <= row.start[token]) continue;
    const to = text.characterOf[row.end[token] - 1];
    for (let i = text.characterOf[row.start[token]]; i <= to; i++) {
      if (first[i] < 0) first[i] = token;
      last[i] = token;
    }
  }
  return { ...row, first, last, segment: row.boundary && countUp(row.boundary) };
}

/** @param {ArrayLike<number>} flags */
function countUp(flags) {
  let count = 0;
  return Int32Array.from(flags, (flag) => (count += flag));
}

/**
 * @param {BarRow | LineRow} row
 * @param {Text} text
 * @returns {LaidCurve}
 */
function layCurve(row, text) {
  const from = Int32Array.from(row.start, (place) => text.characterOf[place]);
  const to = Int32Array.from(row.end, (place, i) => (place > row.start[i] ? text.characterOf[place - 1] + 1 : from[i]));
  return { ...row, from, to };
}

// Lines

/**
 * @param {Text} text
 * @param {number} columns
 */
function* wrap(text, columns) {
  for (let from = 0; from < text.count;) {
    const to = lineEnd(text, from, columns);
    let column = 0;
    let free = false;
    for (let i = from; i < to; i++) {
      text.column[i] = column;
      column += text.columns[i];
      free ||= text.kind[i] === Kind.FREE;
    }
    yield { from, to, free };
    from = to;
  }
}

/**
 * Lines fold after a space or a wide character, else where they are full.
 * @param {Text} text
 * @param {number} from
 * @param {number} columns
 */
function lineEnd(text, from, columns) {
  let used = 0;
  let fold = from;
  for (let i = from; i < text.count; i++) {
    const kind = text.kind[i];
    if (kind === Kind.BREAK) return i + 1;
    used += text.columns[i];
    if (used > columns && i > from) return fold > from ? fold : i;
    if (kind === Kind.SPACE || kind === Kind.TAB || (kind === Kind.BOXED && text.columns[i] === 2)) fold = i + 1;
  }
  return text.count;
}
