// Stands in each output of a notebook as it is: unpacks the script of the strip, once in a page, and the strip itself.

/**
 * @param {{name: string, pin: number | null, body: string, look: string, version: string, code: string}} strip  body, look,
 *   code: gzip in base64
 */
async function load({ name, pin, body, look, version, code }) {
  const page = document.currentScript?.getRootNode() ?? document;
  const hosts = page.querySelectorAll(`[data-micro-step="${name}"]`); // now, as a notebook may take out what is far from view
  const [source, ...data] = await Promise.all([code, body, look].map(inflate));
  globalThis.microStepScripts ??= new Map();
  if (!globalThis.microStepScripts.has(version)) {
    const script = document.createElement("script"); // where this script may run, it may, too
    script.textContent = `(() => { ${new TextDecoder().decode(source)}; microStepScripts.set("${version}", show); })()`;
    document.head.append(script);
    script.remove();
  }
  for (const host of hosts) globalThis.microStepScripts.get(version)(host, pin, ...data);
}

/** @param {string} text */
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
