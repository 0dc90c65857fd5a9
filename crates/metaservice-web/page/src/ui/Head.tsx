import type { ComponentChildren, VNode } from "preact";
import { Link } from "./Link";

export function Mark(): VNode {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" />
      <path d="M8 11l5 5-5 5M16 22h8" />
    </svg>
  );
}

/** The head of a page. */
export function Head(props: { children: ComponentChildren }): VNode {
  return (
    <header class="head">
      <Link to="/" class="home" label="All jobs">
        <Mark />
      </Link>
      {props.children}
    </header>
  );
}
