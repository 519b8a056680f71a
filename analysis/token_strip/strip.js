// The strip in the page: scrolling, pointer, keyboard, theme, and its wires to Python (the strip in, the pin both ways).

import { luminance, Palette, parseColour } from "./colour.js";
import { el } from "./dom.js";
import { Overview } from "./map.js";
import { drawHead, drawLine } from "./draw.js";
import { Inspector, summary } from "./inspector.js";
import { characterAt, itemAt, layBlocks, layLines } from "./layout.js";
import { legendParts } from "./legend.js";
import { placeOf, Places, tokenRow } from "./places.js";
import { digest, unpack } from "./unpack.js";

/** @import { Cell, DrawnLine } from "./draw.js" */
/** @import { Block, Head, Line } from "./layout.js" */
/** @import { Command } from "../../app/token_strip/pin.js" */
/** @import { Spot } from "./places.js" */
/** @import { StripData } from "./unpack.js" */

const OVERSCAN = 240; // pixels drawn above and below what is in view
const PROBE = 64; // characters measured to know one's width
const LEAST_COLUMNS = 8;
const GUTTER = { least: 26, most: 160, share: 0.22, character: 6.8, gap: 12 }; // pixels, and a share of the width
const REPORT_AFTER = 160; // ms without another step before Python hears of the pin

/** @typedef {{at: number | null, turn: number}} Report */
/** @typedef {{row: string, token: number, rank: number, turn: number}} Chosen */
/** @typedef {(name: string, value: Report | Chosen) => void} Tell */

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
    this.tools = el("div", "tools");
    this.overview = new Overview((share) => this.show(share));
    this.inspector = new Inspector((row, token, rank) => this.tell("edit", { row, token, rank, turn: this.nextTurn() }));
    /** @type {any} */ this.body = null;
    /** @type {any} */ this.look = null;
    /** @type {any} */ this.joined = null; // the look that `data` holds
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
    this.bodyName = "";
    this.stale = false; // the look has changed since the lines were laid
    this.theme = "";
    /** @type {Palette | null} */ this.palette = null;
    /** @type {Spot | null | undefined} what the inspector speaks of */ this.told = undefined;
    this.toldHover = false;
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
    this.tools.append(this.overview.element, this.jumpButton(-1), this.jumpButton(1));
    const main = el("div", "main");
    main.append(this.tools, this.scroller, this.legend);
    const panes = el("div", "panes");
    panes.append(main, this.inspector.element);
    this.root.append(this.probe, panes, this.live);
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
    on(window, "micro-step-body", () => this.look && this.join());
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
    this.root.remove();
  }

  // Data and theme

  /** @param {Uint8Array} bytes */
  update(bytes) {
    const found = digest(bytes);
    if (found === this.digest) return this.refresh(false);
    this.digest = found;
    this.look = unpack(bytes);
    this.join();
  }

  /** Takes the look, and its body if it is another one; which of the two comes first is not known. */
  join() {
    const name = this.look.body.join(" ");
    const bytes = globalThis.microStepBodies?.get(name);
    if (name !== this.bodyName) {
      if (!bytes) return;
      this.bodyName = name;
      this.body = unpack(bytes);
      this.cell = 0; // lay anew
    } else if (this.joined === this.look) return; // an event for another strip
    this.joined = this.look;
    if (this.look.key !== this.data?.key) this.obeyed = undefined;
    const looks = this.look.rows;
    const rows = this.body.rows.map((/** @type {object} */ row, /** @type {number} */ index) => ({ ...row, ...looks[index], index }));
    this.take({ ...this.body, ...this.look, rows });
    for (const { rows } of this.blocks) for (const row of rows) Object.assign(row, looks[row.index]);
    this.refresh(true);
  }

  /** @param {boolean} changed */
  refresh(changed) {
    if (!this.data) return;
    this.dress(changed);
    this.lay();
    this.obey();
  }

  /** @param {StripData} data */
  take(data) {
    this.data = data;
    this.stale = true;
    this.inspector.fit(data);
    this.tools.hidden = !data.overview;
    this.scroller.style.maxHeight = `${data.height}px`;
    this.scroller.setAttribute("aria-label", `Tokens of ${data.rows.map((row) => row.title).join(", ")}`);
    this.hovered = null;
    this.told = undefined;
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
    this.stale = true;
    this.palette = new Palette(colours);
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
    if (cell === this.cell && columns === this.columns && !this.stale) return this.draw();
    const anchor = this.items.length ? this.place() : this.pin; // laid late, as in a tab that was closed: show the pin
    if (cell !== this.cell) this.blocks = layBlocks(this.data, measurer(this.probe, cell));
    Object.assign(this, { cell, columns, gutter, stale: false });
    this.items = layLines(this.blocks, columns, !this.data.aligned, this.data.turns);
    this.places = new Places(this.blocks, this.items);
    const end = this.items[this.items.length - 1];
    this.sheet.style.height = `${end ? end.top + end.height : 0}px`;
    this.root.style.setProperty("--gutter", `${gutter}px`);
    this.clear();
    if (anchor !== null) this.scroller.scrollTop = this.items[this.places.itemOf(anchor)]?.top ?? 0;
    this.drawOverview();
    this.draw();
  }

  drawOverview() {
    const row = this.blocks[0]?.every.find(({ key }) => key === this.data.overview);
    if (row?.value) this.overview.draw(row, this.blocks[0].text.length, this.data.jumps, this.palette);
  }

  /** The place of the first character in view; null at the very top. */
  place() {
    const item = this.items[itemAt(this.items, this.scroller.scrollTop)];
    if (!item || this.scroller.scrollTop === 0) return null;
    return item.block.base + item.block.text.point[item.from];
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
    if (this.data.overview && this.items.length) this.frameView();
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

  /** Marks on the map what is in view. */
  frameView() {
    const { scrollTop, clientHeight } = this.scroller;
    const top = this.items[itemAt(this.items, scrollTop)];
    const bottom = this.items[itemAt(this.items, scrollTop + clientHeight - 1)];
    const { text } = top.block;
    this.overview.frame(text.point[top.from] / text.length, text.point[bottom.to ?? bottom.from] / text.length);
  }

  /** Outlines what is pinned and what is hovered, and shows the values of the one or the other. */
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
    this.inspect(this.hovered ?? pinned);
  }

  /** @param {Spot | null} spot */
  inspect(spot) {
    const hovering = this.hovered !== null;
    const same = spot?.block === this.told?.block && spot?.character === this.told?.character;
    if (this.told !== undefined && same && this.toldHover === hovering) return;
    this.inspector.fill(this.data, spot, !hovering);
    this.told = spot;
    this.toldHover = hovering;
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
    const jump = { n: 1, p: -1 }[event.key];
    if (jump && !event.ctrlKey && this.data.jumps.length) {
      event.preventDefault();
      event.stopPropagation();
      return this.jump(jump);
    }
    const place = event.key === "Escape" ? null : this.places.goal(event, this.pin, this.activeRow, this.place() ?? 0);
    if (place === undefined || (place === null && this.pin === null)) return;
    event.preventDefault();
    event.stopPropagation();
    this.hovered = null;
    this.move(place, REPORT_AFTER);
    if (place !== null) this.reveal(place, false);
  }

  /**
   * Pins the next or the previous of the places to jump to; after the last comes the first.
   * @param {number} by  1 or -1
   */
  jump(by) {
    const { jumps } = this.data;
    const now = this.pin ?? (this.place() ?? 0) - (by > 0 ? 1 : 0);
    const next = by > 0 ? jumps.find((place) => place > now) : jumps.findLast((place) => place < now);
    const place = next ?? jumps[by > 0 ? 0 : jumps.length - 1];
    this.hovered = null;
    this.move(place, REPORT_AFTER);
    this.reveal(place, false);
  }

  /** @param {number} by */
  jumpButton(by) {
    const button = el("button", "jump", by > 0 ? "›" : "‹");
    const name = by > 0 ? "Next change (key n)" : "Previous change (key p)";
    button.title = name;
    button.setAttribute("aria-label", name);
    button.addEventListener("click", () => this.data?.jumps.length && this.jump(by));
    return button;
  }

  /**
   * Scrolls to a share of the text.
   * @param {number} share
   */
  show(share) {
    const { text } = this.blocks[0];
    const item = this.items[this.places.itemOf(Math.min(text.length - 1, Math.floor(share * text.length)))];
    if (item) this.scroller.scrollTop = item.top - this.scroller.clientHeight / 2;
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
    this.tell("pin", { at: this.pin, turn: this.nextTurn() });
  }

  /** Python tells reports apart by it, across reloads too. */
  nextTurn() {
    return (this.turn = Math.max(Date.now(), this.turn + 1));
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
    this.told = undefined; // the inspector is written anew
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
