// The wire of a strip's body: a mount without a picture, so that another score or lens does not send the body again.

/** @type {Map<string, Set<object>>} the mounts that hold a body, by its digest */
const holders = new Map();

/** @type {WeakMap<object, string>} */
const names = new WeakMap();

/**
 * Leaves the bytes under their digest where the strip finds them, whichever of the two is mounted first, and tells it.
 * Streamlit may end an old mount after a new one of the same body has begun: the last holder takes the body away.
 * @param {{parentElement: object, data: Uint8Array}} mount
 */
export default function mount({ parentElement, data }) {
  const name = data.subarray(0, 16).join(" ");
  if (names.get(parentElement) !== name) release(parentElement);
  names.set(parentElement, name);
  if (!holders.has(name)) holders.set(name, new Set());
  holders.get(name).add(parentElement);
  (globalThis.microStepBodies ??= new Map()).set(name, data);
  dispatchEvent(new Event("micro-step-body"));
  return () => release(parentElement);
}

/** @param {object} parentElement */
function release(parentElement) {
  const name = names.get(parentElement);
  const held = holders.get(name);
  names.delete(parentElement);
  if (!held?.delete(parentElement) || held.size) return;
  holders.delete(name);
  globalThis.microStepBodies.delete(name);
}
