// Places and ways between them. A place is a code point offset in the strip; a spot is the character there.

import { characterAt } from "./layout.js";

/** @import { Block, Head, Line } from "./layout.js" */

/** @typedef {{block: Block, character: number}} Spot */

export class Places {
  /**
   * @param {Block[]} blocks
   * @param {(Head | Line)[]} items
   */
  constructor(blocks, items) {
    this.blocks = blocks;
    this.items = items;
  }

  /**
   * @param {number | null} place
   * @returns {Spot | null}
   */
  spotOf(place) {
    if (place === null) return null;
    const block = this.blocks.findLast(({ base }) => base <= place);
    if (!block || place - block.base >= block.text.length) return null;
    return { block, character: block.text.characterOf[place - block.base] };
  }

  /**
   * The index of the line that holds a place; -1 if none does.
   * @param {number} place
   */
  itemOf(place) {
    const spot = this.spotOf(place);
    if (!spot) return -1;
    let low = 0;
    let high = this.items.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      const { block, from } = this.items[middle];
      const start = block.base + block.text.point[from];
      if (start <= place) low = middle;
      else high = middle - 1;
    }
    return this.items[low]?.kind === "line" ? low : -1;
  }

  /**
   * Where a key leads; undefined if it leads nowhere.
   * @param {KeyboardEvent} event
   * @param {number | null} pin
   * @param {number} row   the token row that arrows follow
   * @param {number} start where a first key press pins, as nothing is pinned yet
   * @returns {number | undefined}
   */
  goal({ key, ctrlKey }, pin, row, start) {
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(key)) return undefined;
    const from = this.spotOf(pin);
    if (!from) return this.spotOf(start) ? start : undefined;
    if (key === "ArrowLeft") return this.step(from, row, -1);
    if (key === "ArrowRight") return this.step(from, row, 1);
    if (key === "ArrowUp") return this.stepLine(from, -1);
    if (key === "ArrowDown") return this.stepLine(from, 1);
    return ctrlKey ? this.edgeOfText(key) : this.edgeOfLine(from, key);
  }

  /**
   * The next token of a row, in the next block if this one has no more.
   * @param {Spot} spot
   * @param {number} row
   * @param {1 | -1} by
   */
  step({ block, character }, row, by) {
    for (let at = this.blocks.indexOf(block); at >= 0 && at < this.blocks.length; at += by) {
      const next = this.blocks[at];
      const { start, end } = tokenRow(next, row);
      let token = next === block ? tokenAt(next, row, character, by) : by > 0 ? -1 : start.length;
      for (token += by; token >= 0 && token < start.length; token += by)
        if (end[token] > start[token]) return next.base + start[token];
    }
    return undefined;
  }

  /**
   * @param {Spot} spot
   * @param {1 | -1} by
   */
  stepLine(spot, by) {
    let index = this.itemOf(placeOf(spot)) + by;
    if (this.items[index]?.kind === "head") index += by;
    const line = this.items[index];
    if (line?.kind !== "line") return undefined;
    const found = characterAt(line, spot.block.text.column[spot.character]);
    return placeOf({ block: line.block, character: found < 0 ? line.to - 1 : found });
  }

  /**
   * @param {Spot} spot
   * @param {string} key
   */
  edgeOfLine(spot, key) {
    const line = this.items[this.itemOf(placeOf(spot))];
    if (line?.kind !== "line") return undefined;
    return placeOf({ block: line.block, character: key === "Home" ? line.from : line.to - 1 });
  }

  /** @param {string} key */
  edgeOfText(key) {
    const last = this.blocks[this.blocks.length - 1];
    return key === "Home" ? 0 : last.base + last.text.length - 1;
  }
}

/** @param {Spot} spot */
export function placeOf({ block, character }) {
  return block.base + block.text.point[character];
}

/**
 * The token row that arrows follow: a block of an unaligned strip has only one.
 * @param {Block} block
 * @param {number} index
 */
export function tokenRow(block, index) {
  return block.tokens[Math.min(Math.max(index, 0), block.tokens.length - 1)];
}

/**
 * The token from which a step starts; where none covers the character, the one before it in the step's direction.
 * @param {Block} block
 * @param {number} index
 * @param {number} character
 * @param {1 | -1} by
 */
function tokenAt(block, index, character, by) {
  const row = tokenRow(block, index);
  const covering = (by > 0 ? row.last : row.first)[character];
  if (covering >= 0) return covering;
  const place = block.text.point[character];
  const next = row.start.findIndex((/** @type {number} */ start) => start > place);
  const after = next < 0 ? row.start.length : next;
  return by > 0 ? after - 1 : after;
}
