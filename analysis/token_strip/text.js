// A text as characters on a grid: what a reader calls a character (a grapheme), its columns, and how it is shown.
//
// Python counts code points, JavaScript UTF-16 units, the reader graphemes; here they are brought together, once.

/** How a character stands on the grid. */
export const Kind = Object.freeze({
  PLAIN: 0, // one column in any fixed-width face: may run on with its neighbours
  BOXED: 1, // given its columns by a box of its own
  CONTROL: 2, // has no shape: its name stands for it
  SPACE: 3,
  TAB: 4,
  BREAK: 5, // ends the line
  FREE: 6, // cannot stand on the grid: right-to-left, or wider than any box
});

const ASCII = /^[\n\t\x20-\x7e]*$/;
const SHAPELESS = /^[\p{Cc}\p{Cf}\p{Cn}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]+$/u;
const ODD_SPACE = /^(?! )\p{Zs}$/u;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const EMOJI = /\p{Emoji_Presentation}|\ufe0f/u;
const WIDE =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u;
const NARROW = /^[\u00a1-\u0589]/;
const TAB_COLUMNS = 4;
const WIDEST_BOX = 12;
const SMALL_TYPE = 0.75; // of a control character's name, against the text's own size

/** @typedef {{columns: number, kind: number}} Shape */
/** @typedef {(text: string) => number} Measure  how many columns the browser draws a text on */

/** The characters of one text. Arrays are indexed by character; a place is a code point offset. */
export class Text {
  /**
   * @param {string} source
   * @param {Measure} measure
   */
  constructor(source, measure) {
    const { units, points, columns, kinds } = read(source, measure);
    this.source = source;
    this.count = columns.length;
    this.unit = Uint32Array.from(units); // [count + 1], where the character starts in `source`
    this.point = Uint32Array.from(points); // [count + 1], its place
    this.columns = Uint8Array.from(columns);
    this.kind = Uint8Array.from(kinds);
    this.column = new Uint16Array(this.count); // in its line, set by wrap
    this.length = this.point[this.count];
    this.characterOf = new Uint32Array(this.length + 1); // of each place
    for (let i = 0; i < this.count; i++) this.characterOf.fill(i, this.point[i], this.point[i + 1]);
    this.characterOf[this.length] = this.count;
  }

  /**
   * The characters from `from` up to `to`, as they are.
   * @param {number} from
   * @param {number} to
   */
  slice(from, to) {
    return this.source.slice(this.unit[from], this.unit[to]);
  }

  /** @param {number} i */
  shown(i) {
    return mark(this.slice(i, i + 1), this.kind[i]);
  }
}

/**
 * Any short text with its spaces, line breaks and control characters made visible.
 * @param {string} text
 */
export function visible(text) {
  let result = "";
  for (const piece of pieces(text)) result += mark(piece, shape(piece, () => 1).kind);
  return result;
}

/**
 * @param {string} piece
 * @param {number} kind
 */
function mark(piece, kind) {
  switch (kind) {
    case Kind.SPACE:
      return "·";
    case Kind.TAB:
      return "→";
    case Kind.BREAK:
      return piece.length > 1 ? "␍¶" : "¶";
    case Kind.CONTROL:
      return controlName(piece);
    default:
      return /^\p{M}/u.test(piece) ? `\u25cc${piece}` : piece;
  }
}

/** @param {string} piece */
function controlName(piece) {
  const code = /** @type {number} */ (piece.codePointAt(0));
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "␡";
  return Array.from(piece, (c) => `U+${/** @type {number} */ (c.codePointAt(0)).toString(16).toUpperCase()}`).join(" ");
}

/**
 * @param {string} source
 * @param {Measure} measure
 */
function read(source, measure) {
  const units = [0];
  const points = [0];
  /** @type {number[]} */
  const columns = [];
  /** @type {number[]} */
  const kinds = [];
  /** @type {Map<string, Shape>} */
  const known = new Map();
  for (const piece of pieces(source)) {
    let found = known.get(piece);
    if (!found) known.set(piece, (found = shape(piece, measure)));
    columns.push(found.columns);
    kinds.push(found.kind);
    units.push(units[units.length - 1] + piece.length);
    points.push(points[points.length - 1] + (piece.length === 1 ? 1 : Array.from(piece).length));
  }
  return { units, points, columns, kinds };
}

/**
 * The graphemes of a text. Paragraphs of ASCII need no segmenter, which is slow.
 * @param {string} text
 * @returns {Generator<string>}
 */
function* pieces(text) {
  const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });
  for (const paragraph of text.split(/(?<=\n)/)) {
    if (ASCII.test(paragraph)) yield* paragraph;
    else for (const { segment } of segmenter.segment(paragraph)) yield segment;
  }
}

/**
 * @param {string} piece
 * @param {Measure} measure
 * @returns {Shape}
 */
function shape(piece, measure) {
  if (piece === " ") return { columns: 1, kind: Kind.SPACE };
  if (piece === "\n" || piece === "\r\n") return { columns: piece.length, kind: Kind.BREAK };
  if (piece === "\t") return { columns: TAB_COLUMNS, kind: Kind.TAB };
  if (piece.length === 1 && /[\x21-\x7e\xa1-\xac\xae-\xff]/.test(piece)) return { columns: 1, kind: Kind.PLAIN };
  if (SHAPELESS.test(piece) || ODD_SPACE.test(piece)) return named(piece);
  if (RIGHT_TO_LEFT.test(piece)) return { columns: 1, kind: Kind.FREE };
  if (WIDE.test(piece)) return { columns: 2, kind: Kind.BOXED };
  if (NARROW.test(piece) || /^\p{M}/u.test(piece)) return { columns: 1, kind: Kind.BOXED };
  return measured(piece, measure);
}

/** @param {string} piece */
function named(piece) {
  const name = controlName(piece);
  return { columns: name.length === 1 ? 1 : Math.ceil(name.length * SMALL_TYPE + 0.5), kind: Kind.CONTROL };
}

/**
 * @param {string} piece
 * @param {Measure} measure
 */
function measured(piece, measure) {
  const least = EMOJI.test(piece) ? 2 : 1;
  const columns = Math.max(least, Math.ceil(measure(piece) - 0.25));
  return columns > WIDEST_BOX ? { columns: 1, kind: Kind.FREE } : { columns, kind: Kind.BOXED };
}
