import { signal } from "@preact/signals";
import type { VNode } from "preact";

const flash = signal<{ text: string; bad: boolean } | undefined>(undefined);
let timer: number | undefined;

/** Says what an action came to, for some seconds. */
export function say(text: string, bad = false): void {
  clearTimeout(timer);
  flash.value = { text, bad };
  timer = setTimeout(() => (flash.value = undefined), bad ? 12_000 : 5_000);
}

export function Flash(): VNode {
  const shown = flash.value;
  return (
    <div class="flash" role={shown?.bad ? "alert" : "status"}>
      {shown && (
        <p class={shown.bad ? "problem" : ""}>
          <span>{shown.text}</span>
          <button type="button" aria-label="Close the message" onClick={() => (flash.value = undefined)}>
            ×
          </button>
        </p>
      )}
    </div>
  );
}
