(() => {
  const key = localStorage.getItem("micro_step_key");
  if (!key) {
    const ask = new URL(location.href);
    ask.searchParams.set("access_token", "");
    location.replace(ask);
    return;
  }
  const Plain = window.WebSocket;
  window.WebSocket = class extends Plain {
    constructor(url, words = []) {
      super(url, new URL(url, location.href).host === location.host ? [...[words].flat(), `micro-step-key.${key}`] : words);
    }
  };
})();
