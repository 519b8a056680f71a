// A generation as a film. The page of the app and the exported file run this same script. All text goes in through
// textContent, and nothing here parses HTML.

const PACE = 400; // ms between macro steps
const SVG = "http://www.w3.org/2000/svg";

/**
 * @typedef {{tau: string, starts: number[], drafted: number[], kept: number[], known: number, whole: boolean}} Play
 * @typedef {{model: string, base: string, checked: boolean, prompt: [string, string][], tokens: string[],
 *   offers: [string, string][][], plays: Play[], own: number, movable: string, folding: string}} Reel
 */

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} text
 * @returns {any}
 */
function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** @param {string} text */
const marked = (text) => text.replace(/ /g, "·").replace(/\n/g, "¶").replace(/\t/g, "→");

/**
 * @param {number} count
 * @param {string} thing
 */
const counted = (count, thing) => `${count} ${thing}${count === 1 ? "" : "s"}`;

/** @param {number[]} values */
const total = (values) => values.reduce((sum, value) => sum + value, 0);

class Film {
  /** @param {HTMLElement | ShadowRoot} parent */
  constructor(parent) {
    this.digest = "";
    this.step = 0; // number of macro steps that are shown
    this.timer = 0;
    this.root = made("section", "film");
    this.root.setAttribute("aria-label", "The generation, macro step by macro step");
    this.text = made("div", "film-text");
    this.text.tabIndex = 0;
    this.text.setAttribute("role", "group");
    this.text.setAttribute("aria-label", "Prompt and answer; the arrow keys go from macro step to macro step");
    this.button = made("button", "film-play");
    this.button.type = "button";
    this.scrubber = this.slider("Macro step");
    this.label = made("output", "film-label");
    this.tau = this.slider("tau");
    this.tauLabel = made("output", "film-tau");
    this.detail = made("div", "film-step");
    this.detail.tabIndex = 0;
    this.detail.setAttribute("role", "group");
    this.detail.setAttribute("aria-label", "What this macro step drafted");
    this.rows = made("div", "film-rows");
    this.note = made("p", "film-note");
    const bar = made("div", "film-bar");
    bar.append(this.button, this.scrubber, this.label);
    this.choice = made("label", "film-choice");
    this.choice.append("tau", this.tau, this.tauLabel);
    const second = made("div", "film-bar");
    second.append(this.legend(), this.choice);
    this.root.append(this.text, bar, second, this.detail, this.rows, this.note);
    parent.append(this.root);
    this.button.addEventListener("click", () => (this.timer ? this.pause() : this.play()));
    this.scrubber.addEventListener("input", () => this.go(Number(this.scrubber.value)));
    this.tau.addEventListener("input", () => this.choose(Number(this.tau.value)));
    this.asked = ""; // the tau that the page asked for, or was told
    /** @type {(tau: string) => void} */
    this.report = () => {};
    this.tau.addEventListener("change", () => this.report((this.asked = this.play_.tau)));
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
  }

  /** @param {string} name */
  slider(name) {
    const input = made("input");
    input.type = "range";
    input.setAttribute("aria-label", name);
    return input;
  }

  legend() {
    const legend = made("span", "film-legend");
    const refused = made("span");
    refused.append(made("del", "", "refused"));
    legend.append(made("span", "base", "written by the base"), made("span", "micro", "micro decoder"), refused);
    return legend;
  }

  /**
   * @param {Reel} reel
   * @param {string} theme  light, dark, or inherit: that of the page around it
   * @param {string} tau  that is shown, one of the reel's; "" for the run's own
   */
  update(reel, theme, tau) {
    this.root.style.colorScheme = theme;
    const digest = JSON.stringify(reel);
    const asked = Math.max(0, reel.plays.findIndex((play) => play.tau === (tau || reel.plays[reel.own].tau)));
    if (digest === this.digest) {
      // the page was drawn anew, the film goes on
      if (reel.plays[asked].tau !== this.asked) this.turn(asked);
      return;
    }
    this.digest = digest;
    this.reel = reel;
    this.pause();
    this.text.replaceChildren();
    for (const [role, said] of reel.prompt) {
      const turn = made("span", "prompt", said);
      if (role !== "text") this.text.append(made("span", "role", role));
      this.text.append(turn, role === "text" ? "" : "\n");
    }
    if (reel.prompt.some(([role]) => role !== "text")) this.text.append(made("span", "role", "assistant"));
    this.tokens = reel.tokens.map((token) => made("span", "token", token));
    this.text.append(...this.tokens);
    this.refused = made("span", "refused");
    this.tau.max = reel.plays.length - 1;
    this.tau.disabled = reel.plays.length < 2;
    this.turn(asked, true);
  }

  /**
   * @param {number} index  of a tau that the page asks for
   * @param {boolean} anew  show the whole run
   */
  turn(index, anew = false) {
    this.asked = this.reel.plays[index].tau;
    this.tau.value = index;
    this.choose(index, anew);
  }

  /**
   * @param {number} index  of a tau
   * @param {boolean} anew  show the whole run
   */
  choose(index, anew = false) {
    const { plays, own, tokens } = this.reel;
    const before = this.play_;
    this.play_ = plays[index];
    const { starts, kept, known, whole, tau } = this.play_;
    this.tauLabel.value = index === own ? `${tau} (this run)` : tau;
    this.tau.setAttribute("aria-valuetext", tau);
    this.scrubber.min = 1;
    this.scrubber.max = starts.length;
    this.writer = new Array(tokens.length).fill("later");
    starts.forEach((start, s) => {
      for (let t = start; t <= start + kept[s] && t < known; t++) this.writer[t] = t === start ? "base" : "micro";
    });
    const last = kept[kept.length - 1];
    this.note.textContent = [
      whole ? "" : `A run at tau ${tau} writes other tokens from macro step ${starts.length} on; Run shows them.`,
      whole || Number(tau) > Number(plays[own].tau) ? "" : `It keeps at least ${counted(last, "drafted token")} there.`,
      this.reel.movable,
      this.reel.folding,
    ].join(" ");
    this.drawRows();
    // the same place of the text, however many macro steps lead there
    const at = before ? before.starts[this.step - 1] : 0;
    const step = starts.findIndex((start, s) => start + kept[s] >= at) + 1 || starts.length;
    this.go(anew || this.ended ? starts.length : step);
  }

  /** @param {number} step  from 1 */
  go(step) {
    const { starts, drafted, kept, known } = this.play_;
    this.step = Math.max(1, Math.min(step, starts.length));
    this.ended = this.step === starts.length;
    const s = this.step - 1;
    const [start, end] = [starts[s], starts[s] + 1 + kept[s]];
    this.tokens.forEach((token, t) => {
      const now = t >= start && t < end ? " now" : "";
      token.className = `token ${t < Math.min(end, known) ? this.writer[t] + now : "later"}`;
    });
    this.refused.replaceChildren(
      ...this.reel.offers[start].slice(kept[s], drafted[s]).map(([text]) => made("del", "", text)),
    );
    this.tokens[Math.min(end, known) - 1]?.after(this.refused);
    this.tell(end, s);
    this.drawStep(s);
    this.markRows(end, s);
    this.reveal(this.tokens[start]);
  }

  /**
   * The passes of the base until a macro step is written: where the base checks drafts, the next one confirms what was drafted.
   * @param {number} s
   */
  passes(s) {
    return s + 1 + (this.reel.checked && this.play_.kept[s] ? 1 : 0);
  }

  /**
   * @param {number} written  tokens
   * @param {number} s
   */
  tell(written, s) {
    const { starts, whole } = this.play_;
    const rate = (written / this.passes(s)).toFixed(2);
    const of = whole ? `${starts.length}` : `${starts.length} known`;
    this.label.value = `macro step ${s + 1} of ${of}, ${counted(written, "token")}, ${rate} tokens per base pass`;
    this.scrubber.value = s + 1;
    this.scrubber.setAttribute("aria-valuetext", this.label.value);
  }

  /** @param {number} s */
  drawStep(s) {
    const { starts, drafted, kept } = this.play_;
    const start = starts[s];
    const parts = [this.chip("base", marked(this.reel.tokens[start]), "the base")];
    this.reel.offers[start].slice(0, drafted[s] + 1).forEach(([text, p], j) => {
      if (j < kept[s]) parts.push(this.chip("micro", text, `${p} kept`));
      else if (j < drafted[s]) parts.push(this.chip("out", text, `${p} refused`));
      else if (Number(p) < Number(this.play_.tau)) parts.push(this.chip("out under", text, `${p} under tau`));
    });
    this.detail.replaceChildren(...parts);
  }

  /**
   * @param {string} kind
   * @param {string} text
   * @param {string} said
   */
  chip(kind, text, said) {
    const chip = made("span", `chip ${kind}`);
    chip.append(made(kind.startsWith("out") ? "del" : "b", "", text || "∅"), made("small", "", said));
    return chip;
  }

  drawRows() {
    const { starts, drafted, kept, known } = this.play_;
    const refused = total(drafted) - total(kept);
    const wide = Math.max(this.reel.tokens.length, refused, 1);
    const rows = /** @type {[string, string[]][]} */ ([
      ["tokens", this.writer.slice(0, known)],
      [this.reel.checked ? "passes of the base" : "slots", new Array(this.passes(starts.length - 1)).fill("base")],
    ]);
    if (this.reel.checked) rows.push(["refused drafts", new Array(refused).fill("out")]);
    this.cells = [];
    this.counts = [];
    const parts = rows.flatMap(([name, kinds]) => {
      const picture = document.createElementNS(SVG, "svg");
      picture.setAttribute("viewBox", `0 0 ${wide} 1`);
      picture.setAttribute("preserveAspectRatio", "none");
      picture.setAttribute("aria-hidden", "true");
      const cells = kinds.map((kind, i) => {
        const cell = document.createElementNS(SVG, "rect");
        for (const [key, value] of Object.entries({ x: i + 0.1, y: 0, width: 0.8, height: 1 }))
          cell.setAttribute(key, String(value));
        cell.dataset.kind = kind;
        return cell;
      });
      picture.append(...cells);
      const count = made("span", "count");
      this.cells.push(cells);
      this.counts.push(count);
      return [made("span", "", name), picture, count];
    });
    this.rows.replaceChildren(...parts);
  }

  /**
   * @param {number} written
   * @param {number} s
   */
  markRows(written, s) {
    const { starts, drafted, kept } = this.play_;
    const refused = (/** @type {number} */ n) => total(drafted.slice(0, n)) - total(kept.slice(0, n));
    const spans = [[starts[s], written], [s, this.passes(s)], [refused(s), refused(s + 1)]];
    this.cells.forEach((cells, row) => {
      const [from, to] = spans[row];
      cells.forEach((cell, i) => {
        cell.setAttribute("class", `${cell.dataset.kind} ${i >= to ? "later" : i >= from ? "now" : "past"}`);
      });
      this.counts[row].textContent = String(to);
    });
  }

  /** @param {HTMLElement | undefined} token */
  reveal(token) {
    if (!token) return;
    const { offsetTop, offsetHeight } = token;
    const top = offsetTop - this.text.offsetTop;
    if (top < this.text.scrollTop || top + 2 * offsetHeight > this.text.scrollTop + this.text.clientHeight)
      this.text.scrollTop = top - this.text.clientHeight / 2;
  }

  play() {
    if (this.ended) this.go(1);
    this.button.textContent = "Pause";
    this.timer = setInterval(() => {
      this.go(this.step + 1);
      if (this.ended) this.pause();
    }, PACE);
  }

  pause() {
    clearInterval(this.timer);
    this.timer = 0;
    this.button.textContent = "Play";
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const { key, target } = event;
    if (event.altKey || event.ctrlKey || event.metaKey || target === this.tau) return;
    const steps = this.play_.starts.length;
    const goals = { ArrowRight: this.step + 1, ArrowLeft: this.step - 1, Home: 1, End: steps };
    if (key in goals) this.go(goals[/** @type {keyof typeof goals} */ (key)]);
    else if (key === " " && target !== this.button) this.button.click();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  destroy() {
    this.pause();
    this.root.remove();
  }
}

// Streamlit calls the default export at every change of data, and what it returns at the end.

/** @type {WeakMap<object, Film>} */
const films = new WeakMap();

/**
 * @param {{parentElement: HTMLElement | ShadowRoot, data: {reel: Reel, theme: string, tau?: string},
 *   setStateValue?: (name: string, value: string) => void}} mount
 */
export default function mount({ parentElement, data, setStateValue }) {
  let film = films.get(parentElement);
  if (!film) films.set(parentElement, (film = new Film(parentElement)));
  film.report = (tau) => setStateValue?.("tau", tau);
  film.update(data.reel, data.theme, data.tau ?? "");
  return () => {
    films.delete(parentElement);
    film.destroy();
  };
}
