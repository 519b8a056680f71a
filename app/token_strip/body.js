// The wire of a strip's body: a mount without a picture, so that another score or lens does not send the body again.

/** @type {WeakMap<object, string>} */
const names = new WeakMap();

/**
 * Leaves the bytes under their digest where the strip finds them, whichever of the two is mounted first, and tells it.
 * @param {{parentElement: object, data: Uint8Array}} mount
 */
export default function mount({ parentElement, data }) {
  const bodies = (globalThis.microStepBodies ??= new Map());
  const name = data.subarray(0, 16).join(" ");
  if (names.get(parentElement) !== name) bodies.delete(names.get(parentElement));
  names.set(parentElement, name);
  bodies.set(name, data);
  dispatchEvent(new Event("micro-step-body"));
  return () => bodies.delete(name);
}
