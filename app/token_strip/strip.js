// The strip in the page: scrolling, pointer, keyboard, theme, and its wires to Python (the strip in, the pin both ways).

import { Card, summary } from "./card.js";
import { luminance, Palette, parseColour } from "./colour.js";
import { el } from "./dom.js";
import { drawHead, drawLine } from "./draw.js";
import { characterAt, itemAt, layBlocks, layLines } from "./layout.js";
import { legendParts } from "./legend.js";
import { placeOf, Places, tokenRow } from "./places.js";
import { digest, unpack } from "./unpack.js";

/** @import { Cell, DrawnLine } from "./draw.js" */
/** @import { Block, Head, Line } from "./layout.js" */
/** @import { Command } from "./pin.js" */
/** @import { Spot } from "./places.js" */
/** @import { StripData } from "./unpack.js" */

const OVERSCAN = 240; // pixels drawn above and below what is in view
const PROBE = 64; // characters measured to know one's width
const LEAST_COLUMNS = 8;
const GUTTER = { least: 26, most: 112, share: 0.22, character: 6.8, gap: 12 }; // pixels, and a share of the width
const REPORT_AFTER = 160; // ms without another step before Python hears of the pin

/** @typedef {{at: number | null, turn: number}} Report */
/** @typedef {(name: string, value: Report) => void} Tell */

/** One strip, from mount to unmount. */
class TokenStrip {
  /** @param {HTMLElement | ShadowRoot} parent */
  constructor(parent) {
    this.root = el("div", "strip");
    this.probe = el("span", "probe", "0".repeat(PROBE));
    this.scroller = el("div", "scroller");
    this.sheet = el("div", "sheet");
    this.legend = el("div", "legend");
    this.live = el("div", "live");
    this.card = new Card();
    /** @type {StripData | null} */ this.data = null;
    /** @type {Block[]} */ this.blocks = [];
    /** @type {(Head | Line)[]} */ this.items = [];
    this.places = new Places([], []);
    /** @type {Map<number, DrawnLine | HTMLElement>} */ this.drawn = new Map();
    /** @type {WeakMap<Element, DrawnLine>} */ this.lineOf = new WeakMap();
    /** @type {Spot | null} */ this.hovered = null;
    /** @type {number | null} */ this.pin = null;
    /** @type {number | undefined} */ this.obeyed = undefined;
    this.cell = 0; // the width of a column, in pixels
    this.columns = 0; // of a line
    this.gutter = 0; // pixels
    this.activeRow = 0;
    this.turn = 0;
    this.frame = 0;
    this.timer = 0;
    this.digest = "";
    this.theme = "";
    /** @type {Palette | null} */ this.palette = null;
    /** @type {Spot | null} what the card speaks of */ this.told = null;
    /** @type {Tell} */ this.tell = () => {};
    this.build(parent);
    this.listen();
  }

  /** @param {HTMLElement | ShadowRoot} parent */
  build(parent) {
    this.scroller.tabIndex = 0;
    this.scroller.role = "listbox";
    this.scroller.setAttribute("aria-orientation", "horizontal");
    this.sheet.role = "presentation";
    this.live.setAttribute("aria-live", "polite");
    this.scroller.append(this.sheet);
    this.root.append(this.probe, this.scroller, this.legend, this.live, this.card.element);
    parent.querySelector(".strip")?.remove(); // of an earlier version of this script
    parent.append(this.root);
  }

  listen() {
    const stop = new AbortController();
    const on = (
      /** @type {EventTarget} */ target,
      /** @type {string} */ type,
      /** @type {(event: any) => void} */ act,
    ) =>
      target.addEventListener(type, act, {
        signal: stop.signal,
        passive: type !== "keydown",
        capture: target === window,
      });
    on(this.scroller, "scroll", () => this.soon());
    on(this.scroller, "pointermove", (event) => event.pointerType !== "touch" && this.hover(this.spotAt(event)));
    on(this.scroller, "pointerleave", () => this.hover(null));
    on(this.scroller, "click", (event) => this.click(event));
    on(this.scroller, "keydown", (event) => this.key(event));
    on(window, "micro-step-pin", () => this.obey());
    on(window, "scroll", () => this.placeCard());
    on(window, "resize", () => this.placeCard());
    const resized = new ResizeObserver(() => this.data && this.lay());
    resized.observe(this.root);
    resized.observe(this.probe); // its size changes when the face has loaded
    this.unlisten = () => {
      stop.abort();
      resized.disconnect();
    };
  }

  destroy() {
    this.unlisten?.();
    cancelAnimationFrame(this.frame);
    if (this.timer) this.report();
    this.card.hide();
    this.root.remove();
  }

  // Data and theme

  /** @param {Uint8Array} bytes */
  update(bytes) {
    const found = digest(bytes);
    const changed = found !== this.digest;
    if (changed) {
      this.digest = found;
      this.take(unpack(bytes));
    }
    this.dress(changed);
    this.lay();
    this.obey();
  }

  /** @param {StripData} data */
  take(data) {
    if (data.key !== this.data?.key) this.obeyed = undefined;
    this.data = data;
    this.scroller.style.maxHeight = `${data.height}px`;
    this.scroller.setAttribute("aria-label", `Tokens of ${data.rows.map((row) => row.title).join(", ")}`);
    this.hovered = null;
    this.told = null;
    this.cell = 0; // lay anew
  }

  /**
   * Takes the colours of Streamlit's theme as it is now.
   * @param {boolean} anew  even if the theme is as it was
   */
  dress(anew) {
    const { color, backgroundColor } = getComputedStyle(this.probe);
    const theme = `${color} ${backgroundColor}`;
    if (theme === this.theme && !anew) return;
    this.theme = theme;
    const ground = parseColour(backgroundColor);
    const dark = luminance(ground) < 0.2;
    const colours = this.data.colours[dark ? "dark" : "light"];
    this.root.style.colorScheme = dark ? "dark" : "light";
    this.root.style.setProperty("--more", colours.more);
    this.root.style.setProperty("--less", colours.less);
    this.root.style.setProperty("--zero", `rgb(${colours.ramp[0].join(" ")})`);
    this.palette = new Palette(colours, parseColour(color), ground);
    this.legend.replaceChildren(...legendParts(this.data, this.palette));
    this.clear();
  }

  // Layout

  /** Lays the text on the width there is; keeps the first character in view where it was. */
  lay() {
    const cell = this.probe.getBoundingClientRect().width / PROBE;
    const width = this.scroller.clientWidth;
    if (!cell || !width) return; // not shown yet
    const gutter = gutterWidth(this.data, width);
    const columns = Math.max(LEAST_COLUMNS, Math.floor((width - gutter) / cell) - 1); // one for the mark of a line break
    if (cell === this.cell && columns === this.columns) return this.draw();
    const anchor = this.items.length ? this.place() : this.pin; // laid late, as in a tab that was closed: show the pin
    if (cell !== this.cell) this.blocks = layBlocks(this.data, measurer(this.probe, cell));
    Object.assign(this, { cell, columns, gutter });
    this.items = layLines(this.blocks, columns, !this.data.aligned);
    this.places = new Places(this.blocks, this.items);
    const end = this.items[this.items.length - 1];
    this.sheet.style.height = `${end ? end.top + end.height : 0}px`;
    this.root.style.setProperty("--gutter", `${gutter}px`);
    this.clear();
    if (anchor !== null) this.scroller.scrollTop = this.items[this.places.itemOf(anchor)]?.top ?? 0;
    this.draw();
  }

  /** The place of the first character in view; null at the very top. */
  place() {
    const item = this.items[itemAt(this.items, this.scroller.scrollTop)];
    if (!item || this.scroller.scrollTop === 0) return null;
    return item.block.base + (item.kind === "line" ? item.block.text.point[item.from] : 0);
  }

  // Drawing: only the lines in view are in the page

  soon() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      this.hovered = null; // another token may have moved under the pointer
      this.draw();
    });
  }

  clear() {
    this.drawn.clear();
    this.sheet.replaceChildren();
  }

  draw() {
    const top = this.scroller.scrollTop - OVERSCAN;
    const bottom = this.scroller.scrollTop + this.scroller.clientHeight + OVERSCAN;
    const first = itemAt(this.items, top);
    let end = first;
    while (end < this.items.length && this.items[end].top < bottom) end++;
    for (const [index, drawn] of this.drawn) {
      if (index >= first && index < end) continue;
      ("element" in drawn ? drawn.element : drawn).remove();
      this.drawn.delete(index);
    }
    for (let index = first; index < end; index++) if (!this.drawn.has(index)) this.drawItem(index);
    this.mark();
  }

  /** @param {number} index */
  drawItem(index) {
    const item = this.items[index];
    const look = { cell: this.cell, palette: this.palette, strings: this.data.strings };
    const drawn = item.kind === "head" ? drawHead(item) : drawLine(item, look);
    const element = "element" in drawn ? drawn.element : drawn;
    if ("element" in drawn) this.lineOf.set(element, drawn);
    element.style.top = `${item.top}px`;
    this.drawn.set(index, drawn);
    this.sheet.append(element);
  }

  /** Outlines what is pinned and what is hovered, and shows the card of the one or the other. */
  mark() {
    const pinned = this.places.spotOf(this.pin);
    let active = "";
    for (const drawn of this.drawn.values()) {
      if (!("cells" in drawn)) continue;
      for (const cell of drawn.cells) {
        const isPinned = covers(cell, drawn, pinned);
        cell.element.classList.toggle("pinned", isPinned);
        cell.element.classList.toggle("hovered", !isPinned && covers(cell, drawn, this.hovered));
        cell.element.ariaSelected = isPinned ? "true" : null;
        cell.element.removeAttribute("id");
        if (isPinned && !active && cell.row === tokenRow(drawn.line.block, this.activeRow))
          cell.element.id = active = "pinned";
      }
    }
    if (active) this.scroller.setAttribute("aria-activedescendant", active);
    else this.scroller.removeAttribute("aria-activedescendant");
    this.showCard(this.hovered ?? pinned);
  }

  /** @param {Spot | null} spot */
  showCard(spot) {
    if (
      spot &&
      (spot.block !== this.told?.block || spot.character !== this.told.character || this.toldHover !== this.hovered)
    ) {
      this.card.fill(this.data, spot, spot !== this.hovered);
      this.toldHover = this.hovered;
    }
    this.told = spot;
    this.placeCard();
  }

  /** Beside the line it speaks of; a pinned card stands at the right, out of the way of the next lines. */
  placeCard() {
    const drawn = this.told && this.drawn.get(this.places.itemOf(placeOf(this.told)));
    if (!drawn || !("cells" in drawn)) return this.card.hide();
    const view = this.scroller.getBoundingClientRect();
    const line = drawn.element.getBoundingClientRect();
    const hidden = line.bottom < Math.max(view.top, 0) + 8 || line.top > Math.min(view.bottom, innerHeight) - 8;
    if (hidden) return this.card.hide();
    this.card.show();
    const x = line.left + this.gutter + this.xOf(this.told);
    this.card.place(line, this.hovered ? x : view.right - this.card.element.offsetWidth);
  }

  /** @param {Spot} spot */
  xOf({ block, character }) {
    return block.text.column[character] * this.cell;
  }

  /**
   * @param {PointerEvent} event
   * @returns {Spot | null}
   */
  spotAt(event) {
    const target = /** @type {Element} */ (event.target);
    const drawn = this.lineOf.get(target.closest(".line"));
    if (!drawn) return null;
    const { block, free } = drawn.line;
    if (free) {
      const cell = drawn.cells.find(({ element }) => element === target.closest(".cell"));
      return cell ? { block, character: cell.from } : null;
    }
    const x = event.clientX - drawn.element.getBoundingClientRect().left - this.gutter;
    const character = characterAt(drawn.line, Math.floor(x / this.cell));
    return character < 0 ? null : { block, character };
  }

  // Pointer and keyboard

  /** @param {Spot | null} spot */
  hover(spot) {
    if (spot?.character === this.hovered?.character && spot?.block === this.hovered?.block) return;
    this.hovered = spot;
    this.mark();
  }

  /** @param {PointerEvent} event */
  click(event) {
    const spot = this.spotAt(event);
    if (!spot) return;
    const track = /** @type {Element} */ (event.target).closest(".row");
    const drawn = this.lineOf.get(/** @type {Element} */ (event.target).closest(".line"));
    const cell = drawn?.cells.find(({ element }) => element.parentElement === track);
    if (cell) this.activeRow = spot.block.tokens.indexOf(cell.row);
    this.move(placeOf(spot), 0);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.altKey || event.metaKey) return;
    const place = event.key === "Escape" ? null : this.places.goal(event, this.pin, this.activeRow, this.place() ?? 0);
    if (place === undefined || (place === null && this.pin === null)) return;
    event.preventDefault();
    event.stopPropagation();
    this.hovered = null;
    this.move(place, REPORT_AFTER);
    if (place !== null) this.reveal(place, false);
  }

  // The pin

  /**
   * The reader moves the pin.
   * @param {number | null} place
   * @param {number} wait  ms before Python hears of it
   */
  move(place, wait) {
    if (place === this.pin) return;
    this.setPin(place);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.report(), wait);
  }

  report() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.turn = Math.max(Date.now(), this.turn + 1); // Python tells reports apart by it, across reloads too
    this.tell("pin", { at: this.pin, turn: this.turn });
  }

  /** Python moves the pin; a command that it has given before is only an echo. */
  obey() {
    /** @type {Command | undefined} */
    const command = globalThis.microStepPins?.get(this.data?.key);
    if (!command || command.turn === this.obeyed) return;
    const { at } = command;
    const first = this.obeyed === undefined;
    this.obeyed = command.turn;
    clearTimeout(this.timer);
    this.timer = 0;
    this.setPin(at);
    if (at !== null) this.reveal(at, !first);
  }

  /** @param {number | null} place */
  setPin(place) {
    this.pin = place;
    this.told = null; // the card is written anew
    this.mark();
    const spot = this.places.spotOf(place);
    this.live.textContent = spot ? summary(this.data, spot) : "";
  }

  /**
   * Scrolls to a place if it is out of view.
   * @param {number} place
   * @param {boolean} page  whether the page too may scroll, where none of the strip is in view
   */
  reveal(place, page) {
    const item = this.items[this.places.itemOf(place)];
    if (!item) return;
    const { scrollTop, clientHeight } = this.scroller;
    if (item.top < scrollTop || item.top + item.height > scrollTop + clientHeight) {
      const far = item.top < scrollTop - clientHeight || item.top > scrollTop + 2 * clientHeight;
      const up = far ? (clientHeight - item.height) / 2 : item.top < scrollTop ? 4 : clientHeight - item.height;
      this.scroller.scrollTop = item.top - up;
      this.draw();
    }
    const { top, bottom } = this.scroller.getBoundingClientRect();
    if (page && (bottom < 0 || top > innerHeight)) this.root.scrollIntoView({ block: "center" });
  }
}

/**
 * Whether a cell shows a token that lies on the spot's character.
 * @param {Cell} cell
 * @param {DrawnLine} drawn
 * @param {Spot | null} spot
 */
function covers({ row, first, last, from }, { line }, spot) {
  if (!spot || spot.block !== line.block) return false;
  const at = row.first[spot.character];
  if (first < 0 || at < 0) return false;
  return first <= row.last[spot.character] && last >= at;
}

/**
 * @param {StripData} data
 * @param {number} width
 */
function gutterWidth({ rows }, width) {
  const longest = Math.max(...rows.map((row) => row.key.length));
  const wanted = Math.max(GUTTER.least, longest * GUTTER.character + GUTTER.gap);
  return Math.round(Math.min(wanted, GUTTER.most, Math.max(GUTTER.least, width * GUTTER.share)));
}

/**
 * Tells how many columns the browser draws a text on.
 * @param {HTMLElement} probe
 * @param {number} cell
 * @returns {import("./text.js").Measure}
 */
function measurer(probe, cell) {
  const canvas = document.createElement("canvas").getContext("2d");
  const { fontWeight, fontSize, fontFamily } = getComputedStyle(probe);
  canvas.font = `${fontWeight} ${fontSize} ${fontFamily}`;
  return (text) => canvas.measureText(text).width / cell;
}

// Mounts. Streamlit calls the default export at every change of data or theme, and what it returns at the end.

/** @type {WeakMap<object, TokenStrip>} */
const mounts = new WeakMap();

/** @param {{parentElement: HTMLElement | ShadowRoot, data: Uint8Array, setStateValue: Tell}} mount */
export default function mount({ parentElement, data, setStateValue }) {
  let strip = mounts.get(parentElement);
  if (!strip) mounts.set(parentElement, (strip = new TokenStrip(parentElement)));
  strip.tell = setStateValue;
  strip.update(data);
  return () => {
    mounts.delete(parentElement);
    strip.destroy();
  };
}
