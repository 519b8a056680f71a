// What each row's model expected: its list of likeliest tokens, and between two lists lines that join the same token.

import { clamp, el, svg } from "./dom.js";
import { visible } from "./text.js";

/** @import { Column, Edit } from "./inspector.js" */
/** @import { StripData } from "./unpack.js" */

const FEWEST = 0.001; // probability that is still shown as a number
const CERTAIN = 65534; // a probability of 1
const NO_CHANCE = 65535;
const ROW = 18; // pixels, the height of a line of a list
const LEAD = 16; // from a list to its axis
const SLOPE = 44; // between the axes

/** @typedef {{rank: number, string: number, name: string, p: number, actual: boolean, writable: boolean}} Guess */

/**
 * Lists, side by side; two lists of tokens that start at one character are joined.
 * @param {StripData} data
 * @param {Column[]} columns
 * @param {Edit | null} edit  writes a token in place of the one that stands there
 */
export function slopes(data, columns, edit) {
  const known = columns.filter(({ row, token }) => row.topk && row.topk.probability[token * row.topk.k] !== NO_CHANCE);
  if (known.length === 0) return [];
  const [a, b] = known;
  const joined = known.length === 2 && a.row !== b.row && a.row.start[a.token] === b.row.start[b.token];
  const element = el("div", joined ? "topk joined" : "topk");
  const lists = known.map((column) => ({ column, guesses: guesses(data, column) }));
  const drawn = lists.map(({ column, guesses }) => list(column, guesses, edit));
  if (joined) drawn.splice(1, 0, lines(lists[0].guesses, lists[1].guesses));
  element.append(...drawn);
  /** @type {Node[]} */
  const parts = [element];
  if (joined) parts.push(el("div", "soft hint", "dotted: not in the other list, where it can be at most as likely as the last"));
  else if (known.length === 2) parts.push(el("div", "soft hint", "not joined: the tokens start at different characters"));
  if (edit) parts.push(el("div", "soft hint", "click an alternative to write it into the text"));
  return parts;
}

/**
 * @param {StripData} data
 * @param {Column} column
 * @returns {Guess[]}
 */
function guesses(data, { row, token }) {
  const { k, ids, probability } = /** @type {import("./unpack.js").TopK} */ (row.topk);
  const own = row.display ? data.strings[row.display[token]] : null;
  return Array.from({ length: k }, (_, rank) => {
    const string = ids[token * k + rank];
    const name = data.strings[string];
    const p = probability[token * k + rank] / CERTAIN;
    return { rank, string, name, p, actual: name === own, writable: name !== "" && !/^<.*>$|\(id \d+\)$/.test(name) };
  });
}

/**
 * @param {Column} column
 * @param {Guess[]} guesses
 * @param {Edit | null} edit
 */
function list({ row, token, name }, guesses, edit) {
  const element = el("div", "guesses");
  element.append(el("div", "soft", `${name} expected`));
  for (const { rank, name: text, p, actual, writable } of guesses) {
    const choice = edit && writable && !actual;
    const guess = el(choice ? "button" : "div", actual ? "guess actual" : "guess");
    guess.style.setProperty("--p", String(clamp(p, 0, 1)));
    const word = el("span");
    word.append(el("bdi", "", visible(text)));
    guess.append(word, el("span", "", chance(p)));
    if (choice) {
      guess.title = `Write “${visible(text)}” here`;
      guess.addEventListener("click", () => edit(row.key, token, rank));
    }
    element.append(guess);
  }
  return element;
}

/**
 * From each list to its axis of probability, and across for each token.
 * @param {Guess[]} a
 * @param {Guess[]} b
 */
function lines(a, b) {
  const height = ROW * Math.max(a.length, b.length);
  const width = 2 * LEAD + SLOPE;
  const canvas = svg("svg", { width, height, "aria-hidden": "true" });
  const top = Math.max(a[0].p, b[0].p) || 1;
  const y = (/** @type {number} */ p) => (1 - p / top) * (height - 8) + 4;
  const add = (/** @type {string} */ className, /** @type {string} */ d) =>
    canvas.append(svg("path", { class: className, d }));
  for (const x of [LEAD, LEAD + SLOPE]) add("axis", `M${x} 0V${height}`);
  const other = new Map(b.map((guess) => [guess.string, guess]));
  a.forEach((guess, i) => {
    add("lead", `M0 ${(i + 0.5) * ROW}L${LEAD} ${y(guess.p)}`);
    const same = other.get(guess.string);
    const to = same ? same.p : Math.min(guess.p, b[b.length - 1].p);
    add(same ? (guess.p >= to ? "slope more" : "slope less") : "slope alone", `M${LEAD} ${y(guess.p)}L${LEAD + SLOPE} ${y(to)}`);
    other.delete(guess.string);
  });
  b.forEach((guess, i) => {
    add("lead", `M${width} ${(i + 0.5) * ROW}L${LEAD + SLOPE} ${y(guess.p)}`);
    if (!other.has(guess.string)) return;
    add("slope alone", `M${LEAD} ${y(Math.min(guess.p, a[a.length - 1].p))}L${LEAD + SLOPE} ${y(guess.p)}`);
  });
  const element = el("div", "lines");
  element.style.width = `${width}px`;
  element.append(canvas);
  return element;
}

/** @param {number} p */
function chance(p) {
  return p > 0 && p < FEWEST ? `< ${FEWEST}` : p.toFixed(3);
}
