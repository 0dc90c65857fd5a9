import type { ComponentChildren, VNode } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { reason } from "../server";

/** A dialog. Escape closes it. */
export function Dialog(props: {
  title: string;
  close: () => void;
  class?: string;
  children: ComponentChildren;
}): VNode {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} class={props.class} onClose={props.close} aria-labelledby={id}>
      <h2 id={id}>{props.title}</h2>
      {props.children}
    </dialog>
  );
}

interface AskProps {
  title: string;
  /** The button that does it, and what it says meanwhile. */
  verb: string;
  busy: string;
  /** Does it. The dialog closes if it succeeds. */
  act: () => Promise<void>;
  close: () => void;
  /** Whether it destroys nothing. */
  harmless?: boolean;
  children: ComponentChildren;
}

/** Asks once, then acts. */
export function Ask(props: AskProps): VNode {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const act = async (): Promise<void> => {
    setBusy(true);
    setError("");
    try {
      await props.act();
      props.close();
    } catch (problem) {
      setBusy(false);
      setError(reason(problem));
    }
  };
  return (
    <Dialog title={props.title} close={props.close}>
      {props.children}
      <p class="problem" role="alert">
        {error}
      </p>
      <div class="choices">
        <button type="button" onClick={props.close}>
          Cancel
        </button>
        <button
          type="button"
          class={props.harmless ? "primary" : "danger"}
          disabled={busy}
          onClick={() => void act()}
        >
          {busy ? props.busy : props.verb}
        </button>
      </div>
    </Dialog>
  );
}
