// The wire on which Python moves the pin: a mount of its own, without a picture, so that the strip is not sent again.

/** @typedef {{strip: string, at: number | null, turn: number}} Command */

/**
 * Leaves the command where the strip finds it, whichever of the two is mounted first, and tells it.
 * @param {{data: Command}} mount
 */
export default function mount({ data }) {
  const commands = (globalThis.microStepPins ??= new Map());
  commands.set(data.strip, data);
  dispatchEvent(new Event("micro-step-pin"));
  return () => commands.delete(data.strip);
}
