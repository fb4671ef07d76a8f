// Browsers start no worker from a file: address, so there the search runs in a hidden frame.
if (location.protocol === "file:") {
  const script = (page, src) =>
    new Promise((resolve, reject) => {
      const tag = page.createElement("script");
      Object.assign(tag, { src, onload: resolve, onerror: reject });
      page.head.append(tag);
    });
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inside = frame.contentWindow;
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      inside.importScripts = async (...urls) => {
        for (const each of urls) await script(inside.document, each);
      };
      this.started = script(inside.document, url);
      this.inside = inside;
    }
    postMessage(data) {
      this.started.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
