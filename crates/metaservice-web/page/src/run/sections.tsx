// The parts of the form for a job.

import type { VNode } from "preact";
import { useEffect, useId, useState } from "preact/hooks";
import { bytes } from "../format";
import { get } from "../server";
import { Field } from "../ui/Field";
import type { Errors, Fields } from "./form";
import { shellWords } from "./shell";

interface Props {
  fields: Fields;
  errors: Errors;
  set: (change: Partial<Fields>) => void;
}

const plain = { autocomplete: "off", spellcheck: false } as const;

export function CommandFields({ fields, errors, set, unknown }: Props & { unknown: string[] }): VNode {
  const isScript = fields.mode === "script";
  return (
    <section class="group">
      <h2>Command</h2>
      <div class="segments" role="group" aria-label="How the command is given">
        <button type="button" aria-pressed={!isScript} onClick={() => set({ mode: "words" })}>
          One command
        </button>
        <button type="button" aria-pressed={isScript} onClick={() => set({ mode: "script" })}>
          Script
        </button>
      </div>
      {isScript ? (
        <Field label="Script" hint="The guest runs it with sh -c." error={errors.script}>
          {(attributes) => (
            <textarea
              {...attributes}
              {...plain}
              class="code"
              rows={6}
              value={fields.script}
              onInput={(event) => set({ script: event.currentTarget.value })}
            />
          )}
        </Field>
      ) : (
        <Field
          label="Program and arguments"
          hint={
            shellWords(fields.command)
              ? "No shell reads this: characters such as | > $ * are passed as they are. For a shell, choose Script."
              : "Quotes group words, as in a shell: make test 'NAME=two words'"
          }
          error={errors.command}
        >
          {(attributes) => (
            <input
              {...attributes}
              {...plain}
              class="code"
              value={fields.command}
              onInput={(event) => set({ command: event.currentTarget.value })}
            />
          )}
        </Field>
      )}
      <div class="pair">
        <Field label="Name" hint="Without one, the job gets one that is free." error={errors.name}>
          {(attributes) => (
            <input
              {...attributes}
              {...plain}
              value={fields.name}
              onInput={(event) => set({ name: event.currentTarget.value })}
            />
          )}
        </Field>
        <Field label="Working directory" hint="In the guest." error={errors.workdir}>
          {(attributes) => (
            <input
              {...attributes}
              {...plain}
              class="code"
              value={fields.workdir}
              onInput={(event) => set({ workdir: event.currentTarget.value })}
            />
          )}
        </Field>
      </div>
      <Field
        label="Environment"
        hint={
          unknown.length > 0
            ? `The values of the other job are not kept. Write them again: ${unknown.join(", ")}.`
            : "NAME=VALUE, one a line. Write no secrets here."
        }
        error={errors.env}
      >
        {(attributes) => (
          <textarea
            {...attributes}
            {...plain}
            class="code"
            rows={Math.min(10, Math.max(3, fields.env.split("\n").length + 1))}
            value={fields.env}
            onInput={(event) => set({ env: event.currentTarget.value })}
          />
        )}
      </Field>
      <div class="pair">
        <Field label="Timeout" hint="Without one, the command may run for ever." error={errors.timeout}>
          {(attributes) => (
            <input
              {...attributes}
              {...plain}
              placeholder="1h 30m"
              value={fields.timeout}
              onInput={(event) => set({ timeout: event.currentTarget.value })}
            />
          )}
        </Field>
        <Keep fields={fields} errors={errors} set={set} />
      </div>
    </section>
  );
}

function Keep({ fields, errors, set }: Props): VNode {
  const id = useId();
  return (
    <div class="form-field">
      <label class="check">
        <input
          type="checkbox"
          checked={fields.keep}
          onChange={(event) => set({ keep: event.currentTarget.checked })}
        />
        Keep the machine on failure, for
      </label>
      <input
        {...plain}
        aria-label="How long the machine is kept"
        aria-describedby={id}
        aria-invalid={errors.keepFor !== undefined}
        disabled={!fields.keep}
        value={fields.keepFor}
        onInput={(event) => set({ keepFor: event.currentTarget.value })}
      />
      <p id={id} class={errors.keepFor === undefined ? "hint" : "hint problem"}>
        {errors.keepFor ?? "Then its terminal and files can be used to find out why."}
      </p>
    </div>
  );
}

interface Image {
  name: string;
  size?: number;
}

export function MachineFields({ fields, errors, set }: Props): VNode {
  const [images, setImages] = useState<Image[]>([]);
  const list = useId();
  useEffect(() => {
    // Without the list, the name can be written all the same.
    get<Image[]>("/api/images").then(setImages, () => {});
  }, []);
  return (
    <section class="group">
      <h2>Machine</h2>
      <Field label="Image" hint="Without one: the built-in guest, a small Linux." error={errors.image}>
        {(attributes) => (
          <>
            <input
              {...attributes}
              {...plain}
              list={list}
              placeholder="built-in"
              value={fields.image}
              onInput={(event) => set({ image: event.currentTarget.value })}
            />
            <datalist id={list}>
              {images.map(({ name, size }) => (
                <option key={name} value={name}>
                  {size === undefined ? name : `${name}, ${bytes(size)}`}
                </option>
              ))}
            </datalist>
          </>
        )}
      </Field>
      <div class="pair">
        <Field label="Memory" hint="512M, 1.5G" error={errors.memory}>
          {(attributes) => (
            <input
              {...attributes}
              {...plain}
              value={fields.memory}
              onInput={(event) => set({ memory: event.currentTarget.value })}
            />
          )}
        </Field>
        <Field label="Processors" error={errors.cpus}>
          {(attributes) => (
            <input
              {...attributes}
              {...plain}
              inputMode="numeric"
              value={fields.cpus}
              onInput={(event) => set({ cpus: event.currentTarget.value })}
            />
          )}
        </Field>
      </div>
    </section>
  );
}

export function NetworkFields({ fields, errors, set }: Props): VNode {
  const isOpen = fields.network === "open";
  return (
    <section class="group">
      <h2>Network</h2>
      <fieldset class="radios">
        <legend class="vh">What the guest reaches without a rule</legend>
        <label>
          <input type="radio" name="network" checked={!isOpen} onChange={() => set({ network: "none" })} />
          <b>Closed</b>
          <span>only what the rules allow</span>
        </label>
        <label>
          <input type="radio" name="network" checked={isOpen} onChange={() => set({ network: "open" })} />
          <b>Open</b>
          <span>all public addresses, and what the rules allow</span>
        </label>
      </fieldset>
      <Field
        label="Rules that allow"
        hint="One a line: example.org:443, *.example.org, 10.1.0.0/16, host:8080"
        error={errors.allow}
      >
        {(attributes) => (
          <textarea
            {...attributes}
            {...plain}
            class="code"
            rows={3}
            value={fields.allow}
            onInput={(event) => set({ allow: event.currentTarget.value })}
          />
        )}
      </Field>
    </section>
  );
}
