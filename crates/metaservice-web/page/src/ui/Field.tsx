import type { ComponentChildren, VNode } from "preact";
import { useId } from "preact/hooks";

/** A field with its name, its error, and how it is used. */
export function Field(props: {
  label: string;
  hint?: ComponentChildren;
  error?: string | undefined;
  children: (attributes: { id: string; "aria-describedby": string; "aria-invalid": boolean }) => VNode;
}): VNode {
  const id = useId();
  return (
    <div class="form-field">
      <label for={id}>{props.label}</label>
      {props.children({ id, "aria-describedby": `${id}-hint`, "aria-invalid": props.error !== undefined })}
      <p id={`${id}-hint`} class={props.error === undefined ? "hint" : "hint problem"}>
        {props.error ?? props.hint}
      </p>
    </div>
  );
}
