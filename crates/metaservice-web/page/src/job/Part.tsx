import type { ComponentChildren, VNode } from "preact";

/** A part of the details, with its title. */
export function Part(props: { title: string; tools?: VNode; children: ComponentChildren }): VNode {
  return (
    <section class="part">
      <div class="part-head">
        <h3>{props.title}</h3>
        {props.tools}
      </div>
      {props.children}
    </section>
  );
}
