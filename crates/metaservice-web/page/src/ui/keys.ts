// Keys of the whole page.

import { useEffect } from "preact/hooks";

/** Whether the user writes text there, or the keys belong to a terminal. */
export function isTyping(target: EventTarget | null): boolean {
  if (target instanceof HTMLInputElement) return !["checkbox", "radio", "button"].includes(target.type);
  return target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement;
}

/** Acts on keys that no text field takes and that no dialog hides. */
export function useKeys(act: (event: KeyboardEvent) => void): void {
  useEffect(() => {
    const keys = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
      act(event);
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  });
}
