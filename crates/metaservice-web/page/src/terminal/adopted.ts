// The styles of xterm.js under a policy that forbids inline styles.
//
// xterm.js writes its styles into <style> elements, which `default-src 'self'` blocks. The build
// (xtermStyles in vite.config.ts) has it make these elements instead. What is written into one
// becomes a constructed style sheet, which is no markup and needs no exception of the policy. It is
// there as long as the element is in the document.

class AdoptedStyle extends HTMLElement {
  #sheet = new CSSStyleSheet();

  override get textContent(): string {
    return "";
  }

  override set textContent(css: string) {
    this.#sheet.replaceSync(css);
  }

  connectedCallback(): void {
    this.hidden = true;
    document.adoptedStyleSheets.push(this.#sheet);
  }

  disconnectedCallback(): void {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== this.#sheet);
  }
}

/** Must be called before a terminal is made. */
export function defineAdoptedStyle(): void {
  if (!customElements.get("adopted-style")) customElements.define("adopted-style", AdoptedStyle);
}
