import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";

/** Writes text to the clipboard. */
export async function copyText(text: string): Promise<void> {
  await navigator.clipboard.writeText(text);
}

/** A button that copies a text. `what` names it for those who do not see where it is. */
export function Copy(props: { text: () => string; what: string; label?: string }): VNode {
  const [state, setState] = useState<"" | "done" | "failed">("");
  useEffect(() => {
    if (state === "") return;
    const timer = setTimeout(() => setState(""), 2_000);
    return () => clearTimeout(timer);
  }, [state]);
  const copy = (): void => {
    copyText(props.text()).then(
      () => setState("done"),
      () => setState("failed"),
    );
  };
  const words = { "": props.label ?? "Copy", done: "Copied", failed: "Not allowed" };
  return (
    <button type="button" class="copy" onClick={copy}>
      <span aria-live="polite">{words[state]}</span>
      <span class="vh"> {props.what}</span>
    </button>
  );
}
