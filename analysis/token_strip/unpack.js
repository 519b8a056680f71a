// The bytes of packing.py as an object: the header, with each array in its place.

/** @typedef {Uint8Array | Uint16Array | Uint32Array | Float32Array} Numbers */
/** @typedef {{type: string, at: number, count: number}} Place */
/** @typedef {{label: string, digits: number, values: Numbers}} Detail */
/** @typedef {{label: string, words: Numbers}} Note  words: into strings */
/** @typedef {{k: number, ids: Numbers, probability: Numbers}} TopK */
/** @typedef {"sequential" | "diverging" | "none"} Scale */
/** @typedef {[number, number, number]} Colour */
/** @typedef {{ramp: Colour[], diverging: Colour[], ink: string, more: string, less: string}} ThemeColours */

/**
 * @typedef {object} TokenRow
 * @property {"tokens"} kind
 * @property {string} key
 * @property {string} title
 * @property {number} block
 * @property {Numbers} start
 * @property {Numbers} end
 * @property {boolean} hidden           in the inspector only
 * @property {Scale} scale
 * @property {Numbers | null} value     0 to 254, 255 is missing
 * @property {Detail[]} details
 * @property {Note[]} notes
 * @property {TopK | null} topk
 * @property {Numbers | null} display   into strings
 * @property {Numbers | null} labels    into strings
 * @property {Numbers | null} boundary
 * @property {Numbers | null} muted
 */
/** @typedef {{key: string, title: string, block: number, start: Numbers, end: Numbers, value: Numbers}} Curve */
/** @typedef {Curve & {kind: "bars", hidden: boolean, up: string, down: string}} BarRow */
/** @typedef {Curve & {kind: "line", hidden?: boolean, threshold: number | null, marked: "above" | "below"}} LineRow */
/** @typedef {{low: string, high: string, note: string, scale: Scale, beside: string}} LegendData */

/**
 * The body and the look, as one.
 * @typedef {object} StripData
 * @property {string} key
 * @property {number} height
 * @property {boolean} editable
 * @property {boolean} aligned
 * @property {string[]} texts
 * @property {(TokenRow | BarRow | LineRow)[]} rows
 * @property {string[]} strings
 * @property {[number, string][]} turns
 * @property {number[]} jumps
 * @property {string} jumpTo
 * @property {string} overview
 * @property {LegendData} legend
 * @property {{light: ThemeColours, dark: ThemeColours}} colours
 */

const DIGEST = 16;
const TYPES = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, f4: Float32Array };

/**
 * What tells one strip from another.
 * @param {Uint8Array} bytes
 */
export function digest(bytes) {
  return bytes.subarray(0, DIGEST).join(" ");
}

/**
 * @param {Uint8Array} bytes  of a body or a look
 * @returns {any}
 */
export function unpack(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset + DIGEST, 4).getUint32(0, true);
  const head = bytes.subarray(DIGEST + 4, DIGEST + 4 + length);
  const body = bytes.slice(DIGEST + 4 + length).buffer; // a copy, so that it is aligned
  return JSON.parse(new TextDecoder().decode(head), (_, value) => (isPlace(value) ? view(body, value) : value));
}

/**
 * @param {any} value
 * @returns {value is Place}
 */
function isPlace(value) {
  return value !== null && typeof value === "object" && "count" in value && value.type in TYPES;
}

/**
 * @param {ArrayBuffer} body
 * @param {Place} place
 * @returns {Numbers}
 */
function view(body, { type, at, count }) {
  return new TYPES[/** @type {keyof typeof TYPES} */ (type)](body, at, count);
}
