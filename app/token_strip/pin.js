// The wire on which Python moves the pin: a mount of its own, without a picture, so that the strip is not sent again.

/** @typedef {{strip: string, at: number | null, turn: number}} Command */

/** @type {Map<string, object>} the mount that last moved the pin, by strip */
const holders = new Map();

/**
 * Leaves the command where the strip finds it, whichever of the two is mounted first, and tells it.
 * Streamlit may end an old mount after a new one of the same strip has begun: that takes no command away.
 * @param {{parentElement: object, data: Command}} mount
 */
export default function mount({ parentElement, data }) {
  const commands = (globalThis.microStepPins ??= new Map());
  holders.set(data.strip, parentElement);
  commands.set(data.strip, data);
  dispatchEvent(new Event("micro-step-pin"));
  return () => {
    if (holders.get(data.strip) !== parentElement) return;
    holders.delete(data.strip);
    commands.delete(data.strip);
  };
}
