// Streamlit adds a step of Back for whatever a run writes into the address, the values of a first visit among it. Here one
// act of the reader is one step at most, and what no act led to is none.
if (!window.oneStep) {
  window.oneStep = true;
  let acted = false;
  for (const kind of ["pointerdown", "keydown", "input", "change"])
    window.addEventListener(kind, () => { acted = true; }, true);
  window.addEventListener("popstate", () => { acted = false; }, true);
  const push = history.pushState.bind(history);
  history.pushState = (state, title, to) => {
    const moved = new URL(to, location.href).pathname !== location.pathname;
    if (acted || moved) push(state, title, to);
    else history.replaceState(state, title, to);
    acted = false;
  };
}
