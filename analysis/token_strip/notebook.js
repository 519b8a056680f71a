// Shows a strip in a notebook: in a shadow root, which takes the place of the static picture that is there without scripts.

/**
 * @param {Document | ShadowRoot} page
 * @param {{name: string, style: string, body: string, look: string, pin: number | null}} strip  bytes: gzip in base64
 */
async function show(page, { name, style, body, look, pin }) {
  const [bodyBytes, lookBytes] = await Promise.all([inflate(body), inflate(look)]);
  for (const host of page.querySelectorAll(`[data-micro-step="${name}"]`)) {
    if (host.shadowRoot) continue;
    host.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab leaves the keys to the strip
    const root = host.attachShadow({ mode: "open" });
    const sheet = document.createElement("style");
    sheet.textContent = style;
    root.append(sheet);
    (globalThis.microStepBodies ??= new Map()).set(digest(bodyBytes), bodyBytes);
    (globalThis.microStepPins ??= new Map()).set("", { strip: "", at: pin, turn: 1 }); // read by mount, once
    const draw = () => mount({ parentElement: root, data: lookBytes, setStateValue: () => {} });
    // The colours of the probe move when the page changes its theme; JupyterLab hides the page meanwhile, which cancels.
    for (const moved of ["transitionend", "transitioncancel"]) root.addEventListener(moved, draw);
    draw();
  }
}

/** @param {string} text */
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
