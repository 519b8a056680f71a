// Shows a strip in a notebook: in a shadow root, which takes the place of the static picture that is there without scripts.

/**
 * @param {HTMLElement} host
 * @param {number | null} pin
 * @param {Uint8Array} body
 * @param {Uint8Array} look
 */
function show(host, pin, body, look) {
  if (host.shadowRoot) return;
  host.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab leaves the keys to the strip
  const root = host.attachShadow({ mode: "open" });
  const sheet = document.createElement("style");
  sheet.textContent = STYLE;
  root.append(sheet);
  (globalThis.microStepBodies ??= new Map()).set(digest(body), body);
  (globalThis.microStepPins ??= new Map()).set("", { strip: "", at: pin, turn: 1 }); // read by mount, once
  const draw = () => mount({ parentElement: root, data: look, setStateValue: () => {} });
  // The colours of the probe move when the page changes its theme. JupyterLab hides the page for that moment, which cancels
  // the move, and a cell far from view does not move at all.
  for (const moved of ["transitionend", "transitioncancel"]) root.addEventListener(moved, () => requestAnimationFrame(draw));
  new IntersectionObserver(draw).observe(host);
  draw();
  const use = () => host.classList.add("used");
  if (pin !== null) use();
  for (const first of ["pointerover", "focusin"]) root.addEventListener(first, use, { once: true });
  globalThis.microStepBodies.delete(digest(body)); // mount has read it
}
